package api

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"nftsentry/state"
)

// A Block is one blocked source.
type Block struct {
	Source   string    `json:"source"`   // address or prefix
	Since    time.Time `json:"since"`    // RFC 3339, UTC, whole seconds
	Until    time.Time `json:"until"`    // likewise
	Port     uint16    `json:"port"`     // that was touched; 0 for none
	Protocol string    `json:"protocol"` // "tcp" or "udp"; "" for none
	Kind     string    `json:"kind"`     // "connect", "syn", "fin", "null", "xmas", "syn-fin", "udp"; "" for none
	Evidence string    `json:"evidence"` // "proven" or "unproven"; "" for none
	Strikes  int       `json:"strikes"`  // earlier blocks that still count
	Origin   string    `json:"origin"`   // "decoy", "operator", "kernel"
	Comment  string    `json:"comment"`  // as the element in the kernel carries it
}

// BlockOf is the form of a block on the wire.
func BlockOf(b state.Block) Block {
	return Block{
		Source: Display(b.Source), Since: b.Since.UTC().Truncate(time.Second), Until: b.Until.UTC().Truncate(time.Second),
		Port: b.Port, Protocol: b.Protocol, Kind: b.Kind, Evidence: b.Evidence,
		Strikes: b.Strikes, Origin: string(b.Origin), Comment: b.Comment,
	}
}

// Display writes a prefix of one address as that address.
func Display(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

// ParseSource reads an address or a prefix, as Display writes it. A mapped
// IPv4 address is the IPv4 address. Host bits in a prefix are an error.
func ParseSource(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		a = a.Unmap()
		if a.Zone() != "" {
			return netip.Prefix{}, &SourceError{s, "an address without a zone, such as " + a.WithZone("").String()}
		}
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil || p.Addr().Is4In6() {
		return netip.Prefix{}, &SourceError{s, "an address such as 192.0.2.7 or a prefix such as 192.0.2.0/24"}
	}
	if p != p.Masked() {
		return netip.Prefix{}, &SourceError{s, "the network " + p.Masked().String() + " or the address " + p.Addr().String()}
	}
	return p, nil
}

// A SourceError is what ParseSource cannot read.
type SourceError struct {
	Got  string
	Want string // what to write instead
}

// Error says what to write instead; what was got is quoted and cut.
func (e *SourceError) Error() string {
	const enough = 64
	got := e.Got
	if len(got) > enough {
		got = got[:enough]
	}
	return strconv.Quote(got) + " is not a source: write " + e.Want
}

// A BlockRequest asks for a block.
type BlockRequest struct {
	Source  string `json:"source"`            // address or prefix
	Seconds int64  `json:"seconds,omitempty"` // how long; 0 for as long as a decoy would block it
	Comment string `json:"comment,omitempty"` // shown with the block
}

// A BulkRequest asks for the same of many sources, at most MaxBulk.
type BulkRequest struct {
	Sources []string `json:"sources"`           // addresses and prefixes
	Seconds int64    `json:"seconds,omitempty"` // as in BlockRequest; not for the end of blocks
	Comment string   `json:"comment,omitempty"` // likewise
}

// BulkUnblocked tells whose blocks have ended, and what is wrong with those
// of whom none has.
type BulkUnblocked struct {
	Unblocked []string `json:"unblocked"`
	Problems  []string `json:"problems"` // twenty at most
}

// MaxBulk is how many sources a BulkRequest may name.
const MaxBulk = 262144

// Bounds of what may be asked for: they are the controller's too.
const (
	MinTimeout = time.Second
	MaxTimeout = 3650 * 24 * time.Hour
	MaxComment = 100 // bytes
)

// parse reads what a request asks for, and says what is wrong with it.
func (r BlockRequest) parse() (source netip.Prefix, timeout time.Duration, comment string, err error) {
	if source, err = ParseSource(r.Source); err != nil {
		return netip.Prefix{}, 0, "", err
	}
	const least, most = int64(MinTimeout / time.Second), int64(MaxTimeout / time.Second)
	if r.Seconds != 0 && (r.Seconds < least || r.Seconds > most) {
		return netip.Prefix{}, 0, "", fmt.Errorf("seconds %d: out of range, from %d to %d", r.Seconds, least, most)
	}
	if comment, err = ParseComment(r.Comment); err != nil {
		return netip.Prefix{}, 0, "", fmt.Errorf("comment: %w", err)
	}
	return source, time.Duration(r.Seconds) * time.Second, comment, nil
}

var (
	errNotUTF8 = errors.New("not UTF-8: write it in UTF-8")
	errBlanks  = errors.New("nothing but blanks: say why, or leave it out")
)

// ParseComment takes the blanks at both ends off a comment, which may be
// empty. The error says what is wrong, without the comment itself.
func ParseComment(s string) (string, error) {
	text := strings.TrimSpace(s)
	if text == "" && s != "" {
		return "", errBlanks
	}
	if len(text) > MaxComment {
		return "", fmt.Errorf("too long with %d bytes: at most %d", len(text), MaxComment)
	}
	if !utf8.ValidString(text) {
		return "", errNotUTF8
	}
	for _, r := range text {
		if r == '"' || !unicode.IsPrint(r) {
			return "", fmt.Errorf("%q is not allowed: printable characters only, and no double quotes", r)
		}
	}
	return text, nil
}

// UnblockedAll tells how many blocks have been ended.
type UnblockedAll struct {
	Unblocked int `json:"unblocked"`
}

// Reloaded tells what came of reading the configuration again.
type Reloaded struct {
	Config string `json:"config"` // the file; "" for the built-in defaults
	// Restart names the keys that have changed and wait for a restart.
	Restart []string `json:"restart"`
	// Warnings say what was not taken over yet, and when it will be, and how
	// many blocks have ended by it.
	Warnings []string `json:"warnings,omitempty"`
}

// Panicked tells how many blocks are suspended, or in force again.
type Panicked struct {
	Blocks int `json:"blocks"`
	// Already says that it was so before, and nothing has changed.
	Already bool `json:"already,omitempty"`
	// Suspended says why nothing is in force after a resume all the same; "" if
	// all is.
	Suspended string `json:"suspended,omitempty"`
}

// A Problem says what went wrong, in one sentence.
type Problem struct {
	Error string `json:"error"`
}

// Status is what the daemon is doing.
type Status struct {
	Version string    `json:"version"`
	PID     int       `json:"pid"`
	Started time.Time `json:"started"` // RFC 3339, UTC, whole seconds
	Mode    string    `json:"mode"`    // "enforce", "observe", "panic" until resume, or "suspended" while ignore.files cannot be read
	Logged  []string  `json:"logged"`  // protocols whose evidence is only logged, by respond = "log"
	Run     []string  `json:"run"`     // protocols whose evidence is left to the hooks, by respond = "run"
	Config  string    `json:"config"`  // the file; "" for the built-in defaults
	Decoys  Decoys    `json:"decoys"`
	Watched Watched   `json:"watched"`
	Blocks  Blocks    `json:"blocks"`
	Ignored Ignored   `json:"ignored"`
	Dropped Dropped   `json:"dropped"`
	State   string    `json:"state"`   // the folder
	Mended  uint64    `json:"mended"`  // times that the table was made again after others had touched it
	Readers int       `json:"readers"` // who watch events now
	Hooks   []Hook    `json:"hooks"`
	Sandbox Sandbox   `json:"sandbox"`
	// Service is where the hooks run, if not in the daemon: Hooks are then as of when it has answered last.
	Service *HookService `json:"hook_service,omitempty"`
	// Problems says what is not as it should be, a sentence each.
	Problems []string `json:"problems"`
}

// Decoys is the state of the decoy ports.
type Decoys struct {
	Ports       int    `json:"ports"`       // how many lead to the listener
	Listener    uint16 `json:"listener"`    // its own port
	Connections uint64 `json:"connections"` // noticed
	Lost        uint64 `json:"lost"`        // of these, not looked at for lack of time
	Starved     uint64 `json:"starved"`     // times that the host had no file or memory left for one
}

// Watched is the state of the watched ports. The last three count packets
// since the table was made, the others since the start.
type Watched struct {
	TCP         int    `json:"tcp"`          // how many TCP ports, besides the decoys
	UDP         int    `json:"udp"`          // how many UDP ports
	Served      int    `json:"served"`       // ports that are no tripwire because a service was seen there, as of a minute ago
	Probes      uint64 `json:"probes"`       // noticed, each port of a source once in a window
	Peers       uint64 `json:"peers"`        // of these, from peers, which do not count
	Lost        uint64 `json:"lost"`         // messages of the kernel, not looked at for lack of time
	Overruns    uint64 `json:"overruns"`     // times that the kernel had no room for a message
	Malformed   uint64 `json:"malformed"`    // messages that could not be read
	Flooded     uint64 `json:"flooded"`      // probes dropped unseen, too many coming at once
	Crowded     uint64 `json:"crowded"`      // probes not counted because a set of the kernel was full
	BudgetSpent uint64 `json:"budget_spent"` // probes that would have blocked if the budget had not been spent
}

// Blocks counts blocks.
type Blocks struct {
	Live     int    `json:"live"`     // in force now
	Made     uint64 `json:"made"`     // since the start
	Unproven uint64 `json:"unproven"` // of these, on unproven evidence
	Ended    uint64 `json:"ended"`    // since the start
	Ran      uint64 `json:"ran"`      // that were left to the hooks, by respond = "run"
	Would    uint64 `json:"would"`    // that were only logged, in observe mode or by respond = "log"
	Failed   uint64 `json:"failed"`   // that the kernel refused at first
	Evicted  uint64 `json:"evicted"`  // that had to make room for others
}

// Sandbox is what the daemon has taken from itself.
type Sandbox struct {
	Landlock int    `json:"landlock"` // version of the kernel's interface (ABI) by which it has no files but its own; 0 if it has all that its user has
	Reason   string `json:"reason"`   // of a 0; "" otherwise
}

// Hook is what has become of the events of one hook since it was configured.
type Hook struct {
	Name     string `json:"name"`      // its place in the configuration, such as "exec[0]"
	What     string `json:"what"`      // what it runs or reaches
	Done     uint64 `json:"done"`      // runs, mails, requests or rewritings
	Failed   uint64 `json:"failed"`    // of the same
	TimedOut uint64 `json:"timed_out"` // attempts that took too long
	Dropped  uint64 `json:"dropped"`   // events for which there was no room
	Limited  uint64 `json:"limited"`   // events that a limit has left out
	Waiting  int    `json:"waiting"`   // events, now
	Running  int    `json:"running"`   // jobs, now
}

// HookService is the process that runs the hooks of a daemon that does not.
type HookService struct {
	Socket  string    `json:"socket"`
	Problem string    `json:"problem"`        // why it does not answer; "" if it does
	Since   time.Time `json:"since,omitzero"` // when that was noticed, RFC 3339, UTC, whole seconds
	Waiting int       `json:"waiting"`        // events that it is to be told
	Dropped uint64    `json:"dropped"`        // events for which there was no room
}

// Ignored counts what is never blocked.
type Ignored struct {
	Prefixes int    `json:"prefixes"` // addresses and prefixes
	Files    int    `json:"files"`    // of ignore.files
	Listed   int    `json:"listed"`   // lines of these files that are in force, each with an address or prefix
	Events   uint64 `json:"events"`   // that came from ignored sources
}

// Dropped counts what the kernel has dropped from blocked sources.
type Dropped struct {
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}
