package hook

import (
	"net/netip"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// An On is what an event tells of.
type On string

// What events tell of.
const (
	Block   On = "block"   // a block was made
	Unblock On = "unblock" // a block has ended
	Run     On = "run"     // the trigger was reached where nothing is blocked
	Before  On = "before"  // a block is about to be made; only programs that ask for it are told
)

// An Event is one thing to tell. It survives JSON.
type Event struct {
	On On `json:"on"`
	// Source is what is blocked.
	Source netip.Prefix `json:"source"`
	// Address is who touched a port; the zero Addr where a prefix was blocked by an operator.
	Address netip.Addr `json:"address"`
	// Port is the one that was touched last; 0 where none was.
	Port uint16 `json:"port"`
	// Protocol is "tcp" or "udp"; Kind, Evidence and Origin are words of the daemon. Mode is Portsentry's; the Runner fills
	// it in if it is empty.
	Protocol string `json:"protocol"`
	Kind     string `json:"kind"`
	Evidence string `json:"evidence"`
	Mode     string `json:"mode"`
	Origin   string `json:"origin"`
	// Comment and Reason are free text, perhaps from outside.
	Comment string `json:"comment"`
	Reason  string `json:"reason"`
	Strikes int    `json:"strikes"`
	// Since and Until bound the block; Until is zero where it has no end.
	Since time.Time `json:"since"`
	Until time.Time `json:"until"`
}

// Target is the address, or else the prefix, as text; "" if the event has neither.
func (e Event) Target() string {
	switch {
	case e.Address.IsValid():
		return e.Address.Unmap().WithZone("").String()
	case e.Source.IsValid():
		return e.Source.String()
	}
	return ""
}

// sourceText is the prefix as text, or "".
func (e Event) sourceText() string {
	if !e.Source.IsValid() {
		return ""
	}
	return e.Source.String()
}

// key is what makes two events the same for the limit per source.
func (e Event) key() sourceKey {
	if e.Source.IsValid() {
		return sourceKey{e.On, e.Source}
	}
	return sourceKey{e.On, netip.PrefixFrom(e.Address.Unmap().WithZone(""), e.Address.Unmap().BitLen())}
}

// Lengths to which texts of an event are cut, in bytes.
const (
	maxWord = 32
	maxText = 256
)

// Clean makes an event fit to be handed on: words have letters, digits, "-", "_" and "." and do not begin with a dash, texts
// are one line of what prints. Tell does so itself.
func (e Event) Clean() Event {
	for _, s := range []*string{&e.Protocol, &e.Kind, &e.Evidence, &e.Mode, &e.Origin} {
		*s = word(*s)
	}
	e.Comment, e.Reason = printable(e.Comment, maxText), printable(e.Reason, maxText)
	return e
}

// word keeps of a text what no program can take for something else than a word.
func word(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < utf8.RuneSelf && (unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune("-_.", r)) {
			return r
		}
		return -1
	}, s[:min(len(s), 4*maxWord)])
	s = strings.TrimLeft(s, "-")
	return s[:min(len(s), maxWord)]
}

// printable makes one line of so many bytes at most of a text: what does not print becomes a blank.
func printable(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s[:min(len(s), 4*most)])
	return cut(s, most)
}

// cut shortens a text to so many bytes, 3 or more, between two characters.
func cut(s string, most int) string {
	const more = "..."
	if len(s) <= most {
		return s
	}
	end := most - len(more)
	for end > 0 && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + more
}
