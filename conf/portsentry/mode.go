package portsentry

import (
	"regexp"
	"slices"
	"strings"
)

// Modes are those of Portsentry's two processes.
type Modes struct {
	TCP, UDP Setting // the values "tcp", "stcp" or "atcp", and "udp", "sudp" or "audp"; "" for no such process
}

// The values that each has in 1.2.
var (
	ModesTCP = []string{"tcp", "stcp", "atcp"}
	ModesUDP = []string{"udp", "sudp", "audp"}
)

// shellSet is a line of a shell that sets a variable to plain text.
var shellSet = regexp.MustCompile(`^\s*(?:export\s+)?(TCP_MODE|UDP_MODE)=("[^"]*"|'[^']*'|[^\s;#"']*)\s*;?\s*(?:#.*)?$`)

// shellMode is a line of a shell that does anything else to one.
var shellMode = regexp.MustCompile(`\b(TCP_MODE|UDP_MODE)\b`)

// ParseDefault reads the shell file of Debian that says in which modes 1.2 runs, /etc/default/portsentry. As in a shell,
// the last line counts. The name is what errors call it, which are of type Errors.
func ParseDefault(name string, data []byte) (Modes, error) {
	r := &report{file: name}
	var m Modes
	if !r.text(data) {
		return m, r.err()
	}
	n := 0
	for line := range strings.Lines(string(data)) {
		n++
		line = strings.TrimRight(line, "\r\n")
		if trimmed := strings.TrimSpace(line); strings.HasPrefix(trimmed, "#") {
			continue
		}
		set := shellSet.FindStringSubmatch(line)
		if set == nil {
			if found := shellMode.FindString(line); found != "" {
				r.wrong(n, "%s: this line does more than to set it: write %s=\"...\" alone", found, found)
			}
			continue
		}
		r.mode(&m, Setting{set[1], strings.Trim(set[2], `"'`), n})
	}
	return m, r.err()
}

// mode takes a mode.
func (r *report) mode(m *Modes, s Setting) {
	into, allowed := &m.TCP, ModesTCP
	if s.Key == "UDP_MODE" {
		into, allowed = &m.UDP, ModesUDP
	}
	if s.Value != "" && !slices.Contains(allowed, s.Value) {
		r.wrong(s.Line, "%s = %q: not a valid mode, with which Portsentry does not start: write %s or \"\", which is none",
			s.Key, shown(s.Value), `"`+strings.Join(allowed, `", "`)+`"`)
		return
	}
	*into = s
}
