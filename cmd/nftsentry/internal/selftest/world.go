package selftest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"nftsentry/conf"
	"nftsentry/integration/namespace"
	"nftsentry/integration/packet"
)

// A family is a family of addresses in the world.
type family struct {
	name             string
	guarded, scanner string       // addresses on the link
	bits             int          // of the prefix of the link
	sources          netip.Prefix // where the sources of scans are, reached by way of the scanner
}

// A world is two hosts joined by a link. The scanner has many addresses, which to the guarded host are somewhere behind
// it.
type world struct {
	guarded, scanner *namespace.Host
	families         []family
	sender           *packet.Sender
	service          net.Listener // on the guarded host
	port             uint16       // of the service
	serving          errgroup.Group
}

// Networks for documentation and for tests of devices, where nobody is.
var (
	places4 = []string{"198.18.0.0/24", "192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "100.127.255.0/24", "172.31.255.0/24"}
	places6 = []string{"2001:db8::/32", "3fff::/32", "fd53:6e74::/32"}
)

// families are those of this host, with sources that the configuration does not ignore.
func families(c conf.Config) ([]family, error) {
	var all []family
	for _, f := range []struct {
		family
		places []string
	}{
		{family{name: "IPv4", guarded: "198.19.255.2", scanner: "198.19.255.1", bits: 24}, places4},
		{family{name: "IPv6", guarded: "fd53:6e75::2", scanner: "fd53:6e75::1", bits: 64}, places6},
	} {
		if f.name == "IPv6" && !hasIPv6() {
			continue
		}
		i := slices.IndexFunc(f.places, func(s string) bool { return !ignored(c, netip.MustParsePrefix(s)) })
		if i < 0 {
			return nil, fmt.Errorf("ignore.sources and ignore.files have all networks in them that a test could come from, such as %s: leave one out", f.places[0])
		}
		f.sources = netip.MustParsePrefix(f.places[i])
		all = append(all, f.family)
	}
	return all, nil
}

func hasIPv6() bool {
	_, err := os.Stat("/proc/self/net/if_inet6")
	return !errors.Is(err, fs.ErrNotExist)
}

func ignored(c conf.Config, p netip.Prefix) bool {
	return slices.ContainsFunc(c.Ignore.Sources, p.Overlaps)
}

// source is the i-th source, from 0 on. IPv6 sources have a prefix of 48 bits each, the widest that is blocked.
func (f family) source(i int) netip.Addr {
	if f.sources.Addr().Is4() {
		a := f.sources.Addr().As4()
		a[3] = byte(i + 1)
		return netip.AddrFrom4(a)
	}
	a := f.sources.Addr().As16()
	binary.BigEndian.PutUint16(a[4:], uint16(i+1))
	a[15] = 7
	return netip.AddrFrom16(a)
}

// openWorld makes the hosts, and a service on the guarded one.
func openWorld(c conf.Config, sources int) (w *world, err error) {
	w = &world{port: servicePort(c)}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close())
		}
	}()
	if w.port == 0 {
		return w, errors.New("ignore.sessions has all ports in it: then everybody is a peer, and no scan can be tested")
	}
	if w.families, err = families(c); err != nil {
		return w, err
	}
	if w.guarded, err = namespace.Open("guarded"); err != nil {
		return w, err
	}
	if w.scanner, err = namespace.Open("scanner"); err != nil {
		return w, err
	}
	if err := w.join(linkName(c), sources); err != nil {
		return w, err
	}
	if w.sender, err = packet.NewSender(w.scanner); err != nil {
		return w, err
	}
	return w, w.serve()
}

// linkName is the name of the guarded host's interface, which must not be an ignored one.
func linkName(c conf.Config) string {
	for i := 0; ; i++ {
		if name := fmt.Sprintf("selftest%d", i); !slices.Contains(c.Ignore.Interfaces, name) {
			return name
		}
	}
}

func (w *world) join(link string, sources int) error {
	const other = "eth0"
	if err := namespace.Join(w.guarded, w.scanner, link, other); err != nil {
		return err
	}
	for _, f := range w.families {
		own := []string{fmt.Sprintf("%s/%d", f.scanner, f.bits)}
		for i := range sources {
			a := f.source(i)
			own = append(own, netip.PrefixFrom(a, a.BitLen()).String())
		}
		err := errors.Join(
			w.guarded.Addr(link, fmt.Sprintf("%s/%d", f.guarded, f.bits)),
			w.scanner.Addr(other, own...),
		)
		if err == nil {
			err = w.guarded.Route("default", f.scanner)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// serve accepts connections on the guarded host until the world is closed.
func (w *world) serve() (err error) {
	w.service, err = w.guarded.Listen("tcp", fmt.Sprintf(":%d", w.port))
	if err != nil {
		return fmt.Errorf("open a service: %w", err)
	}
	w.serving.Go(func() error {
		for {
			conn, err := w.service.Accept()
			if err != nil {
				return nil // closed
			}
			_ = conn.Close()
		}
	})
	return nil
}

func (w *world) close() error {
	var errs []error
	if w.service != nil {
		errs = append(errs, w.service.Close(), w.serving.Wait())
	}
	if w.sender != nil {
		errs = append(errs, w.sender.Close())
	}
	for _, h := range []*namespace.Host{w.guarded, w.scanner} {
		if h != nil {
			errs = append(errs, h.Close())
		}
	}
	return errors.Join(errs...)
}

// dial connects from a source to a port of the guarded host, within a time, and closes the connection.
func (w *world) dial(ctx context.Context, f family, source netip.Addr, port uint16, within time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	to := netip.AddrPortFrom(netip.MustParseAddr(f.guarded), port)
	conn, err := w.scanner.Dial(ctx, "tcp", to.String(), source.String())
	if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) {
		return nil // connected, and closed by the decoy before this process had a look
	}
	if err != nil {
		return err
	}
	return conn.Close()
}
