package host

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// A Proc is what proc(5) tells of the host: its processes, and the sockets of the caller's network namespace.
type Proc struct{ dir string }

// NewProc reads below a folder, which is "/proc" on a real host.
func NewProc(dir string) Proc { return Proc{dir} }

// A Process is a program that runs.
type Process struct {
	PID  int
	Name string   // of the program, at most 15 bytes of it
	Args []string // its command line; none for threads of the kernel
}

// Runs tells whether the process is a program of this name, or an interpreter that runs it.
func (p Process) Runs(program string) bool {
	if p.Name == program[:min(len(program), 15)] {
		return true
	}
	const most = 4 // such as "/usr/bin/perl -w /usr/sbin/psad"
	for i, arg := range p.Args[:min(len(p.Args), most)] {
		if filepath.Base(arg) == program {
			return i == 0 || isInterpreter(p.Args[0])
		}
	}
	return false
}

func isInterpreter(path string) bool {
	name := filepath.Base(path)
	return slices.ContainsFunc([]string{"python", "perl", "ruby"}, func(s string) bool { return strings.HasPrefix(name, s) })
}

// Processes lists those that run in the network namespace of the caller, and those of which that cannot be told.
func (p Proc) Processes() ([]Process, error) {
	own, _ := os.Readlink(filepath.Join(p.dir, "self/ns/net"))
	var all []Process
	err := p.each(func(pid int, dir string) {
		if ns, err := os.Readlink(filepath.Join(dir, "ns/net")); err == nil && own != "" && ns != own {
			return // such as in a container
		}
		if one, alive := readProcess(pid, dir); alive {
			all = append(all, one)
		}
	})
	return all, err
}

// Holders tells who holds the sockets of the host, by their inodes, as far as the caller may know.
func (p Proc) Holders() (map[uint64]Process, error) {
	holders := make(map[uint64]Process)
	err := p.each(func(pid int, dir string) {
		fds, err := os.ReadDir(filepath.Join(dir, "fd"))
		if err != nil {
			return
		}
		for _, fd := range fds {
			to, err := os.Readlink(filepath.Join(dir, "fd", fd.Name()))
			var inode uint64
			if n, _ := fmt.Sscanf(to, "socket:[%d]", &inode); err != nil || n != 1 {
				continue
			}
			if one, alive := readProcess(pid, dir); alive {
				holders[inode] = one
			}
		}
	})
	return holders, err
}

// each calls f for each process.
func (p Proc) each(f func(pid int, dir string)) error {
	entries, err := os.ReadDir(p.dir)
	if err != nil {
		return fmt.Errorf("read processes: %w", err)
	}
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			f(pid, filepath.Join(p.dir, e.Name()))
		}
	}
	return nil
}

// readProcess reads the names of a process, which may have ended meanwhile.
func readProcess(pid int, dir string) (Process, bool) {
	comm, err := os.ReadFile(filepath.Join(dir, "comm"))
	if err != nil {
		return Process{}, false
	}
	one := Process{PID: pid, Name: strings.TrimSuffix(string(comm), "\n")}
	if line, err := os.ReadFile(filepath.Join(dir, "cmdline")); err == nil && len(line) > 0 {
		one.Args = strings.Split(strings.TrimSuffix(string(line), "\x00"), "\x00")
	}
	return one, true
}

// A Reader reads an NFLOG group.
type Reader struct {
	Group uint16
	Port  uint32 // of its netlink socket
	Inode uint64 // of its netlink socket; 0 if that is not known
}

// Readers lists who reads NFLOG groups; nobody where the kernel has none. Only root may know.
func (p Proc) Readers() ([]Reader, error) {
	groups, err := p.lines("net/netfilter/nfnetlink_log")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	sockets, err := p.lines("self/net/netlink")
	if err != nil {
		return nil, err
	}
	inodes := make(map[uint32]uint64)
	for _, f := range sockets {
		const netfilter = "12" // NETLINK_NETFILTER
		if len(f) >= 10 && f[1] == netfilter {
			inodes[uint32(parse(f[2], 10))] = parse(f[9], 10)
		}
	}
	var all []Reader
	for _, f := range groups {
		if len(f) >= 2 {
			port := uint32(parse(f[1], 10))
			all = append(all, Reader{uint16(parse(f[0], 10)), port, inodes[port]})
		}
	}
	return all, nil
}

// A Listener is a TCP socket that waits for others.
type Listener struct {
	Address netip.AddrPort
	Inode   uint64
}

// Listeners lists the TCP sockets that wait for others.
func (p Proc) Listeners() ([]Listener, error) {
	var all []Listener
	for _, name := range []string{"self/net/tcp", "self/net/tcp6"} {
		lines, err := p.lines(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // a kernel without IPv6
		}
		if err != nil {
			return nil, err
		}
		for _, f := range lines {
			const listen = "0A" // TCP_LISTEN
			if len(f) < 10 || f[3] != listen {
				continue
			}
			if at, ok := parseLocal(f[1]); ok {
				all = append(all, Listener{at, parse(f[9], 10)})
			}
		}
	}
	return all, nil
}

// parseLocal reads an address and port such as "0100007F:0016", words of 32 bits in the byte order of the machine.
func parseLocal(s string) (netip.AddrPort, bool) {
	words, port, _ := strings.Cut(s, ":")
	raw, err := hex.DecodeString(words)
	if err != nil || len(raw)%4 != 0 {
		return netip.AddrPort{}, false
	}
	for w := range slices.Chunk(raw, 4) {
		binary.NativeEndian.PutUint32(w, binary.BigEndian.Uint32(w))
	}
	a, ok := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(a.Unmap(), uint16(parse(port, 16))), ok
}

// Legacy names the tables of the old iptables that are in use: "filter", or "ip6 filter". Only root may know.
func (p Proc) Legacy() ([]string, error) {
	var all []string
	for file, prefix := range map[string]string{"net/ip_tables_names": "", "net/ip6_tables_names": "ip6 "} {
		lines, err := p.lines(file)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, f := range lines {
			all = append(all, prefix+f[0])
		}
	}
	slices.Sort(all)
	return all, nil
}

// Conntrack tells how many connections are tracked now, and how many can be. It is an error that wraps fs.ErrNotExist
// where connection tracking has not been used yet.
func (p Proc) Conntrack() (count, most int, err error) {
	err = scanFile(filepath.Join(p.dir, "sys/net/netfilter/nf_conntrack_count"), &count)
	if err == nil {
		err = scanFile(filepath.Join(p.dir, "sys/net/netfilter/nf_conntrack_max"), &most)
	}
	return count, most, err
}

// lines reads the fields of each line of a file that has some.
func (p Proc) lines(name string) ([][]string, error) {
	data, err := os.ReadFile(filepath.Join(p.dir, name))
	if err != nil {
		return nil, err
	}
	var all [][]string
	for s := bufio.NewScanner(bytes.NewReader(data)); s.Scan(); {
		if f := strings.Fields(s.Text()); len(f) > 0 {
			all = append(all, f)
		}
	}
	return all, nil
}

// parse reads a number of the kernel's; 0 if it is none. Some netlink ports are printed as negative numbers.
func parse(s string, base int) uint64 {
	if n, err := strconv.ParseUint(s, base, 64); err == nil {
		return n
	}
	n, _ := strconv.ParseInt(s, base, 64)
	return uint64(n)
}
