package conf

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os/user"
	"path/filepath"
	"strings"
	"unicode"
)

// Lengths that Linux sets, without the NUL at the end.
const (
	maxPath          = 4095 // PATH_MAX
	maxSocketPath    = 107  // sun_path, unix(7)
	maxInterfaceName = 15   // IFNAMSIZ
)

// path is an absolute path of so many bytes, which is cleaned.
func path(most int) form[string] {
	return func(value any) (string, error) {
		s, err := asString(value, "an absolute path")
		switch {
		case err != nil:
			return "", err
		case !filepath.IsAbs(s):
			return "", errors.New(`must be an absolute path, which begins with "/"`)
		case strings.ContainsRune(s, 0):
			return "", errors.New("a path has no NUL in it")
		case len(s) > most:
			return "", fmt.Errorf("%d bytes long, at most %d are allowed", len(s), most)
		}
		return filepath.Clean(s), nil
	}
}

// endpoint is an address and port, the absolute path of a socket, or "" for none.
func endpoint(value any) (string, error) {
	const such = `an address and a port such as "127.0.0.1:9478" or "[::1]:9478", or the absolute path of a socket`
	s, err := asString(value, such)
	if err != nil || s == "" {
		return "", err
	}
	if filepath.IsAbs(s) {
		return path(maxSocketPath)(s)
	}
	at, err := netip.ParseAddrPort(s)
	if err != nil || at.Port() == 0 {
		return "", errors.New("must be " + such)
	}
	return netip.AddrPortFrom(at.Addr().Unmap(), at.Port()).String(), nil
}

// interfaceName is what dev_valid_name of net/core/dev.c lets pass, less patterns and what does not print.
func interfaceName(value any) (string, error) {
	s, err := asString(value, `the name of an interface such as "wg0"`)
	bad := func(r rune) bool { return strings.ContainsRune("/:", r) || unicode.IsSpace(r) || !unicode.IsPrint(r) }
	switch {
	case err != nil:
		return "", err
	case s == "", len(s) > maxInterfaceName:
		return "", fmt.Errorf("%d bytes long, the name of an interface has 1 to %d", len(s), maxInterfaceName)
	case s == ".", s == "..", strings.ContainsFunc(s, bad):
		return "", errors.New(`no interface can have this name: it has no "/", ":" or white space`)
	case strings.ContainsRune(s, '*'):
		return "", errors.New("patterns are not known here: name each interface")
	}
	return s, nil
}

// group is the name of a group of this host, or "" for none.
func group(value any) (string, error) {
	s, err := asString(value, "the name of a group")
	if err != nil || s == "" {
		return "", err
	}
	var unknown user.UnknownGroupError
	_, err = user.LookupGroup(s)
	if errors.As(err, &unknown) {
		return "", errors.New(`this host has no such group: add it, see groupadd(8), or write "" for none`)
	}
	if errors.Is(err, fs.ErrPermission) { // a daemon in its sandbox reads the file again: the group is what it has been
		return s, nil
	}
	if err != nil {
		return "", fmt.Errorf("look up the group: %w", err)
	}
	return s, nil
}
