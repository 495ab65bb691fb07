package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"nftsentry/cmd/nftsentry/internal/sandbox"
	"nftsentry/conf"
	"nftsentry/conf/portsentry"
	"nftsentry/controller/host"
	"nftsentry/state"
)

// A takeover is the way of Portsentry's blocked files and history into a store of ours.
type takeover struct {
	*importSource
	cfg   conf.Config
	now   time.Time
	files []oldFile // what Portsentry has left, and what is linked already
	spare spared
	said  []string
}

// say adds a message.
func (t *takeover) say(format string, args ...any) {
	t.said = append(t.said, fmt.Sprintf(format, args...))
}

// importState hands what Portsentry has left to the store, and says what came of it. All is read before anything is
// written.
func (o *options) importState(in *importSource, link bool) ([]string, error) {
	t := &takeover{importSource: in, cfg: conf.Default(), now: time.Now()}
	if link && in.config.Version == portsentry.V2 {
		return nil, usagef("--link: the files of Portsentry 2.x have other formats than ours, which what reads them does not know: leave it out")
	}
	if o.config != "" {
		var err error
		if t.cfg, _, err = o.load(); err != nil {
			return nil, err
		}
	}
	if err := t.find(); err != nil {
		return nil, err
	}
	entries, err := t.entries()
	if err != nil {
		return nil, err
	}
	var links []placedLink
	if link {
		if links, err = t.planLinks(); err != nil {
			return nil, err
		}
	}
	t.spare = t.sources()
	if err := t.store(entries, o.out); err != nil {
		return nil, err
	}
	return t.said, t.placeLinks(links)
}

// entries reads the blocked files. Of several entries of one address the newest counts.
func (t *takeover) entries() ([]portsentry.Entry, error) {
	newest := make(map[netip.Addr]portsentry.Entry)
	var errs []error
	for _, f := range t.files {
		if f.history || f.linked {
			continue
		}
		data, err := readOld(f.path, portsentry.MaxBlocked)
		if err == nil {
			var entries []portsentry.Entry
			entries, err = portsentry.ParseBlocked(f.path, data)
			t.newest(newest, entries, f)
		}
		errs = append(errs, err)
	}
	var out []portsentry.Entry
	for _, e := range newest {
		out = append(out, e)
	}
	slices.SortFunc(out, func(a, b portsentry.Entry) int { return a.Address.Compare(b.Address) })
	return out, errors.Join(errs...)
}

// newest adds the entries of a file. Where Portsentry did not block, it wrote that it did all the same.
func (t *takeover) newest(into map[netip.Addr]portsentry.Entry, entries []portsentry.Entry, f oldFile) {
	unblocked := 0
	for _, e := range entries {
		if !t.blocks(e.Protocol) {
			unblocked++
			continue
		}
		if e.Time.IsZero() {
			e.Time = f.written
		}
		if before, there := into[e.Address]; !there || before.Time.Before(e.Time) {
			into[e.Address] = e
		}
	}
	if unblocked > 0 {
		t.say("%s: %s not taken over, as Portsentry was told not to block: it wrote \"Blocked\" all the same", f.path, plural(unblocked, "entry"))
	}
}

// store writes to the store. When it returns, all is on disk.
func (t *takeover) store(entries []portsentry.Entry, out *output) (err error) {
	log, level := newLogger(t.cfg.Log, out)
	level.SetLevel(zap.WarnLevel)
	s, err := state.Open(t.cfg.State.Dir, log.Named("state"))
	if errors.Is(err, state.ErrLocked) {
		return fmt.Errorf("%w: stop the daemon first, as with \"systemctl stop nftsentry\", and start it after the import; nothing is changed", err)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := s.Degraded(); err != nil {
		return fmt.Errorf("state.dir = %q cannot be written: %w", t.cfg.State.Dir, err)
	}
	if err := t.save(s, entries); err != nil {
		return err
	}
	done, stop := context.WithCancel(context.Background())
	stop() // Run writes what is pending and ends
	if err := s.Run(done); err != nil {
		return err
	}
	if err := t.mergeHistory(filepath.Join(t.cfg.State.Dir, historyName)); err != nil {
		return err
	}
	return sandbox.Adopt(t.cfg.State.Dir) // by the user of the daemon
}

// save hands in the blocks.
func (t *takeover) save(s *state.Store, entries []portsentry.Entry) error {
	live, err := s.Live()
	if err != nil {
		return err
	}
	blocked := make(map[netip.Prefix]bool, len(live))
	for _, b := range live {
		blocked[b.Source] = true
	}
	made, known := 0, 0
	for _, e := range t.unspared(entries) {
		b := t.block(e)
		last, over, err := s.Last(b.Source)
		if err != nil {
			return err
		}
		if blocked[b.Source] || over && !last.Since.Before(e.Time) { // what is on record is as new
			known++
			continue
		}
		blocked[b.Source] = true
		s.Save(b, nil)
		made++
	}
	t.say("%s: %s taken over, each for %s from now; %d known already", t.cfg.State.Dir, plural(made, "block"), conf.FormatDuration(t.cfg.Block.Timeout), known)
	return nil
}

// maxSpared bounds how many ignored sources are told of one by one.
const maxSpared = 20

// unspared are the entries of sources that are not ignored.
func (t *takeover) unspared(entries []portsentry.Entry) []portsentry.Entry {
	var out []portsentry.Entry
	spared := 0
	for _, e := range entries {
		why := t.spare.reason(e.Address)
		if why == "" {
			out = append(out, e)
			continue
		}
		if spared++; spared <= maxSpared {
			t.say("%s is not blocked: it is ignored, %s", e.Address, why)
		}
	}
	if spared > maxSpared {
		t.say("%d more are not blocked: they are ignored", spared-maxSpared)
	}
	return out
}

// block makes a block of an entry. A binary file does not say when it was made.
func (t *takeover) block(e portsentry.Entry) state.Block {
	bits := e.Address.BitLen()
	if e.Address.Is6() && !t.spare.neighbour(e.Address) {
		bits = t.cfg.Block.Prefix6
	}
	b := state.Block{
		Source: netip.PrefixFrom(e.Address, bits).Masked(), Address: e.Address, Since: e.Time, Until: t.now.Add(t.cfg.Block.Timeout),
		Port: e.Port, Protocol: e.Protocol, Origin: state.OriginImport, Comment: "import: portsentry",
	}
	if e.Protocol == "" || e.Time.After(t.now) {
		b.Since = t.now
	}
	return b
}

// spared are the sources that are not blocked.
type spared struct {
	reasons map[netip.Prefix]string
	onLink6 []netip.Prefix
}

// sources are those that are ignored: by the configuration, by Portsentry, and what belongs to this host.
func (t *takeover) sources() spared {
	s := spared{reasons: make(map[netip.Prefix]string)}
	add := func(reason string, prefixes ...netip.Prefix) {
		for _, p := range prefixes {
			s.reasons[p] = reason
		}
	}
	add("by "+t.config.Get("IGNORE_FILE"), t.ignored...)
	add("by ignore.sources", t.cfg.Ignore.Sources...)
	facts, err := host.New(zap.NewNop()).Read()
	if err != nil {
		t.say("cannot read all of what belongs to this host, so that an address of its own may be among the blocks: %v", err)
	}
	s.onLink6 = facts.OnLink6
	if t.cfg.Ignore.Host {
		for p, reason := range hostOf(facts).Ignored {
			add("as "+reason, p)
		}
	}
	return s
}

// reason says why an address is not blocked; "" if it may be.
func (s spared) reason(a netip.Addr) string {
	if a.IsLoopback() || a.IsUnspecified() || a.IsMulticast() {
		return "as nobody else has it"
	}
	for bits := a.BitLen(); bits >= 0; bits-- {
		p, err := a.Prefix(bits)
		if err != nil {
			break
		}
		if why, found := s.reasons[p]; found {
			return why
		}
	}
	return ""
}

func (s spared) neighbour(a netip.Addr) bool {
	return a.IsLinkLocalUnicast() || slices.ContainsFunc(s.onLink6, func(p netip.Prefix) bool { return p.Contains(a) })
}

// The files in state.dir, as package state names them.
const (
	blockedPrefix = "portsentry.blocked."
	historyName   = "portsentry.history"
)

// protocolOf is the protocol of a mode: what it ends in.
func protocolOf(mode string) string {
	if strings.HasSuffix(mode, "udp") {
		return "udp"
	}
	return "tcp"
}
