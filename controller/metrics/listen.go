package metrics

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Listen opens an address and port, or the absolute path of a unix socket, in
// the place of one that nobody answers on. Everybody who can enter its folder
// may use that. The caller closes it, or hands it to Run.
func Listen(address string) (net.Listener, error) {
	if strings.HasPrefix(address, "/") {
		return listenUnix(address)
	}
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, err
	}
	network := "tcp"
	if at.Addr().Is4() { // or 0.0.0.0 would be all addresses of IPv6 as well
		network = "tcp4"
	}
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	l, err := lc.Listen(context.Background(), network, address)
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		return nil, fmt.Errorf("%w: another program has it: \"ss -ltnp\" tells which; stop it, or take another port", unix.EADDRINUSE)
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return nil, fmt.Errorf("%w: this host has no such address: \"ip address\" tells those that it has", unix.EADDRNOTAVAIL)
	}
	return l, err
}

func listenUnix(path string) (net.Listener, error) {
	if err := removeStale(path); err != nil {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o666); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// removeStale removes a socket that nobody answers on.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return errors.New("there is a file that is not a socket: move it away, or take another path")
	}
	conn, err := net.DialTimeout("unix", path, patience)
	if err == nil {
		return errors.Join(errors.New("another program answers on it: stop it, or take another path"), conn.Close())
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return err
	}
	return os.Remove(path)
}
