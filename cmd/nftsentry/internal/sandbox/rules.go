package sandbox

import (
	"os"
	"path/filepath"
	"slices"
)

// Rules name all files that the process may open from now on, by absolute paths. Nothing may be executed.
type Rules struct {
	// Await are files that are read again, may be replaced, and need not be there yet: the folders that they lie in, or
	// lead to by symbolic links, are readable with all that is below. Where one is missing it is the nearest folder above.
	Await []string
	// Follow are likewise, and what such a link is replaced by is readable too.
	Follow []string
	// Read are files, and folders with all that is below them. What is missing is left out. They are held open, since
	// the kernel makes those of /proc anew when it has forgotten them, and a rule is for one of them only.
	Read []string
	// Write are folders in which files are made, written, renamed and removed. Where one is missing it may be made, in
	// the nearest folder above it.
	Write []string
	// Remove are folders in which files are removed, such as the socket of the process.
	Remove []string
}

// readable are the folders of Follow and Await.
func (r Rules) readable() []string {
	var out []string
	for _, path := range r.Follow {
		own, _ := nearest(filepath.Dir(path))
		out = append(out, own)
	}
	for _, path := range slices.Concat(r.Follow, r.Await) {
		dir, _ := folderOf(path)
		out = append(out, dir)
	}
	return out
}

// maxLinks is how many symbolic links Linux follows in one path, path_resolution(7).
const maxLinks = 40

// folderOf is the folder in which a file lies, or would be made, after all symbolic links. If that is missing it is the
// nearest one above.
func folderOf(path string) (dir string, there bool) {
	for range maxLinks {
		target, err := os.Readlink(path)
		if err != nil {
			break
		}
		if !filepath.IsAbs(target) {
			above, _ := nearest(filepath.Dir(path))
			target = filepath.Join(above, target)
		}
		path = target
	}
	return nearest(filepath.Dir(path))
}

// nearest is a folder without symbolic links, or the nearest one above it that is there.
func nearest(dir string) (real string, there bool) {
	there = true
	for {
		if real, err := filepath.EvalSymlinks(dir); err == nil {
			return real, there
		}
		if dir == filepath.Dir(dir) {
			return dir, false
		}
		dir, there = filepath.Dir(dir), false
	}
}
