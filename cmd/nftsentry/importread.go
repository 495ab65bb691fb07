package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"

	"nftsentry/conf/portsentry"
)

// An importSource is what import has read.
type importSource struct {
	config    *portsentry.Config
	modes     portsentry.Modes
	modesFile string // that they are from; "" if it was none
	traps     []portsentry.Trap
	notes     []string // on the files

	ignoreFile string         // for ignore.files; "" for none
	ignored    []netip.Prefix // that Portsentry ignored
}

// readImport reads all files that the configuration is made of.
func readImport(path string, f importFlags) (*importSource, error) {
	version, modes, err := parseMode(f.mode)
	if err != nil {
		return nil, err
	}
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		path = filepath.Join(path, "portsentry.conf")
	}
	data, err := portsentry.Read(path, portsentry.MaxConfig)
	if err != nil {
		return nil, &usageError{fmt.Errorf("%w: name the portsentry.conf, or the folder that it is in", err)}
	}
	c, err := portsentry.ParseConfig(path, data, version)
	if err != nil {
		return nil, err
	}
	in := &importSource{config: c, modes: modes, traps: c.Traps}
	if err := in.readModes(f, version != 0); err != nil {
		return nil, err
	}
	return in, in.readIgnore()
}

// readModes finds out in which modes Portsentry runs, unless that was told.
func (in *importSource) readModes(f importFlags, told bool) error {
	path, err := findDefault(in.config.File, f.defaults)
	switch {
	case err != nil:
		return err
	case in.config.Version == portsentry.V2 && f.defaults != "":
		return usagef("--default %s: this is for Portsentry 1.2, and %s is for 2.x, as it has no ADVANCED_ key: see --mode", path, in.config.File)
	case told:
		return nil
	case in.config.Version == portsentry.V2:
		in.modes = modes2("stealth")
		in.notes = append(in.notes, "taken for Portsentry 2.x, as there is no ADVANCED_ key, in the mode stealth: if its command line has another, say so, as in \"--mode connect\" or \"--mode tcp,udp\"")
		return nil
	case path == "":
		in.modes = portsentry.Modes{
			TCP: portsentry.Setting{Key: "TCP_MODE", Value: "tcp"}, UDP: portsentry.Setting{Key: "UDP_MODE", Value: "udp"},
		}
		in.notes = append(in.notes, "no file says in which modes Portsentry 1.2 ran: taken for tcp and udp, as in a new installation; name it with --default, or the modes with --mode")
		return nil
	}
	data, err := portsentry.Read(path, portsentry.MaxConfig)
	if err != nil {
		return err
	}
	in.modesFile = path
	in.modes, err = portsentry.ParseDefault(path, data)
	in.modes.TCP.Key, in.modes.UDP.Key = "TCP_MODE", "UDP_MODE"
	return err
}

// findDefault finds the file of the modes that belongs to a configuration; "" for none.
func findDefault(config, named string) (string, error) {
	if named != "" {
		if _, err := os.Stat(named); err != nil {
			return "", usagef("--default: %w", err)
		}
		return named, nil
	}
	dir := filepath.Dir(config)
	full, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	paths := []string{filepath.Join(dir, "portsentry.default")}
	if filepath.Base(full) == "portsentry" {
		paths = append(paths, filepath.Join(filepath.Dir(full), "default", "portsentry"))
	}
	return firstThere(paths...), nil
}

// firstThere is the first path where there is something; "" if there is nothing at all.
func firstThere(paths ...string) string {
	for _, path := range paths {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return ""
}

// readIgnore finds the ignore file, and looks for lines that were not read as they were meant. The one beside the
// configuration goes first, as that may be a copy of another host's.
func (in *importSource) readIgnore() error {
	named := in.config.Get("IGNORE_FILE")
	if named == "" {
		return nil
	}
	kind := portsentry.Ignore1
	if in.config.Version == portsentry.V2 {
		kind = portsentry.Ignore2
	}
	beside := filepath.Join(filepath.Dir(in.config.File), filepath.Base(named))
	path := firstThere(beside, named)
	in.ignoreFile = named
	const static = ".static"
	if from := firstThere(beside+static, named+static); from != "" && kind == portsentry.Ignore1 {
		path, in.ignoreFile, kind = from, named+static, portsentry.IgnoreStatic
	}
	if path == "" {
		in.notes = append(in.notes, fmt.Sprintf("IGNORE_FILE = %q: not found on this host, so that nobody looked for mistakes in it", named))
		return nil
	}
	data, err := portsentry.Read(path, portsentry.MaxIgnore)
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w: run this as root", err)
	}
	if err != nil {
		return err
	}
	var traps []portsentry.Trap
	in.ignored, traps = portsentry.ParseIgnore(path, data, kind)
	in.traps = append(in.traps, traps...)
	return nil
}
