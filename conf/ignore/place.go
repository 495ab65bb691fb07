package ignore

import (
	"os"
	"path/filepath"
	"strings"
)

// maxLinks is how many symbolic links Linux follows in one path, path_resolution(7).
const maxLinks = 40

// places are the names in folders that decide what an absolute path leads to: of each symbolic link on the way, and of
// the file itself, or of the first name that is missing. Whatever happens to the file happens to one of them, but for
// folders that are moved.
func places(path string) []string {
	var out []string
	at, rest, links := "/", split(path), 0
	for len(rest) > 0 {
		name := rest[0]
		rest = rest[1:]
		if name == ".." { // the way so far has no links left in it
			at = filepath.Dir(at)
			continue
		}
		next := filepath.Join(at, name)
		about, err := os.Lstat(next)
		switch {
		case err != nil:
			return append(out, next)
		case about.Mode()&os.ModeSymlink != 0:
			out = append(out, next)
			target, err := os.Readlink(next)
			if links++; err != nil || links > maxLinks {
				return out
			}
			if filepath.IsAbs(target) {
				at = "/"
			}
			rest = append(split(target), rest...)
		case len(rest) == 0 || !about.IsDir():
			return append(out, next)
		default:
			at = next
		}
	}
	return out
}

// split gives the names in a path, without those that mean nothing.
func split(path string) []string {
	var out []string
	for _, name := range strings.Split(path, "/") {
		if name != "" && name != "." {
			out = append(out, name)
		}
	}
	return out
}
