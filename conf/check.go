package conf

import (
	"errors"
	"fmt"
	"net/netip"
	"os/user"
	"path/filepath"
	"strings"
)

const (
	maxBanner    = 1024 // bytes
	maxSocket    = 107  // bytes of a path in sockaddr_un, without the zero at its end; unix(7)
	maxInterface = 15   // bytes of an interface's name, IFNAMSIZ without the zero
)

// parseSource reads an address or a prefix.
func parseSource(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		if a.Zone() != "" {
			return netip.Prefix{}, fmt.Errorf("an address here has no zone: write %s", a.WithZone(""))
		}
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil || p.Addr().Is4In6() {
		return netip.Prefix{}, errors.New("an address or a prefix is needed, such as 192.0.2.7 or 192.0.2.0/24")
	}
	if p != p.Masked() {
		return netip.Prefix{}, fmt.Errorf("host bits are set: write %s for the network or %s for the one address", p.Masked(), p.Addr())
	}
	return p, nil
}

func checkBanner(s string) error {
	if len(s) > maxBanner {
		return fmt.Errorf("%d bytes are too long, at most %d are allowed", len(s), maxBanner)
	}
	return nil
}

func checkPath(s string) error {
	if !filepath.IsAbs(s) {
		return errors.New("an absolute path is needed, which begins with /")
	}
	return nil
}

func checkSocket(s string) error {
	if len(s) > maxSocket {
		return fmt.Errorf("the path has %d bytes, the system allows %d for a socket", len(s), maxSocket)
	}
	return checkPath(s)
}

func checkGroup(s string) error {
	if s == "" {
		return nil
	}
	if _, err := user.LookupGroup(s); err != nil {
		return errors.New("this host has no such group: make it (groupadd), or leave \"\" for root alone")
	}
	return nil
}

func checkInterface(s string) error {
	if s == "" || len(s) > maxInterface || strings.ContainsAny(s, "/ \t\n") {
		return fmt.Errorf("the name of an interface is needed, such as \"wg0\": 1 to %d bytes without blanks or /", maxInterface)
	}
	return nil
}
