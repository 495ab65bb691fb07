package host

import (
	"errors"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
)

// Where the resolvers are written, see resolv.conf(5). Behind a stub on the host itself they are those that
// systemd-resolved(8) or NetworkManager(8) ask.
const (
	resolvConf     = "/etc/resolv.conf"
	resolvedConf   = "/run/systemd/resolve/resolv.conf"
	netManagerConf = "/run/NetworkManager/no-stub-resolv.conf"
)

// ResolvFiles are the files that may name the resolvers of the host. They are read again whenever one of them changes.
func ResolvFiles() []string { return []string{resolvConf, resolvedConf, netManagerConf} }

// resolvLimit is how many bytes of a resolv.conf are read.
const resolvLimit = 1 << 20

// resolvFiles is a resolv.conf and the files that name the resolvers behind its stub.
type resolvFiles struct {
	conf     string
	upstream []string
}

// read returns the resolvers. A file that is not there names none.
func (r resolvFiles) read() ([]netip.Addr, error) {
	addrs, err := readResolv(r.conf)
	if err != nil {
		return nil, err
	}
	set := addrSet{}
	// Without a name server in resolv.conf, programs ask the loopback address.
	if len(addrs) == 0 || slices.ContainsFunc(addrs, netip.Addr.IsLoopback) {
		for _, path := range r.upstream {
			more, err := readResolv(path)
			if err != nil {
				return nil, err
			}
			addrs = append(addrs, more...)
		}
	}
	for _, a := range addrs {
		set.add(a)
	}
	return set.sorted(), nil
}

// readResolv returns the name servers of one file.
func readResolv(path string) ([]netip.Addr, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, resolvLimit))
	if err != nil {
		return nil, err
	}
	return parseResolv(string(b)), nil
}

// parseResolv returns the addresses of the nameserver lines of a resolv.conf(5), without zones, in the order of the
// file. It takes more than the three that the C library asks, and skips what is not understood.
func parseResolv(text string) []netip.Addr {
	var addrs []netip.Addr
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] != "nameserver" {
			continue
		}
		if a, err := netip.ParseAddr(fields[1]); err == nil {
			addrs = append(addrs, a.Unmap().WithZone(""))
		}
	}
	return addrs
}

// A stamp tells a file from what it was before.
type stamp struct {
	inode       uint64
	size        int64
	nanoseconds int64
}

// stamps returns a stamp of each file, zero for one that is not there.
func (r resolvFiles) stamps() []stamp {
	var all []stamp
	for _, path := range append([]string{r.conf}, r.upstream...) {
		var s stamp
		if fi, err := os.Stat(path); err == nil {
			s.size, s.nanoseconds = fi.Size(), fi.ModTime().UnixNano()
			if st, ok := fi.Sys().(*syscall.Stat_t); ok {
				s.inode = st.Ino
			}
		}
		all = append(all, s)
	}
	return all
}
