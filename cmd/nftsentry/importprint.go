package main

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// importTables are our tables in the order in which they are written.
var importTables = []string{"tcp", "udp", "trigger", "block", "ignore", "hook", "hook.exec", "hook.hosts_deny"}

// lineWidth is how long a line of text in a file may be, in characters.
const lineWidth = 78

// toml is the configuration as a file.
func (t *translation) toml() string {
	var b strings.Builder
	comment(&b, fmt.Sprintf("Made by \"nftsentry import\" of %s, which is for Portsentry %s. What is not here has its default: see reference.toml.",
		t.config.File, t.config.Version))
	said := make(map[string]bool) // settings whose notes are written
	for _, table := range importTables {
		t.table(&b, table, said)
	}
	return b.String()
}

// table writes a table with the keys of all changes that have any there.
func (t *translation) table(b *strings.Builder, table string, said map[string]bool) {
	var body strings.Builder
	off := true
	for _, c := range t.changes {
		keys := slices.DeleteFunc(slices.Clone(c.keys), func(a assignment) bool { return a.table != table })
		if len(keys) == 0 {
			continue
		}
		body.WriteString("\n")
		t.remark(&body, c, said)
		for _, a := range keys {
			off = off && a.off
			fmt.Fprintf(&body, "%s%s = %s\n", mark(a.off), a.key, a.value)
		}
	}
	if body.Len() == 0 {
		return
	}
	heading := "[" + table + "]"
	if table == "hook.exec" {
		heading = "[[" + table + "]]"
	}
	text := body.String()
	if off { // the remark on a hook that is commented out says to take the signs off: keep the heading with its keys
		i := strings.Index(text, mark(true)+keyOf(t.changes, table)+" = ")
		fmt.Fprintf(b, "%s%s%s\n%s", text[:i], mark(true), heading, text[i:])
		return
	}
	fmt.Fprintf(b, "\n%s%s", heading, text)
}

// keyOf is the first key of a table.
func keyOf(changes []change, table string) string {
	for _, c := range changes {
		for _, a := range c.keys {
			if a.table == table {
				return a.key
			}
		}
	}
	return ""
}

func mark(off bool) string {
	if off {
		return "# "
	}
	return ""
}

// remark writes what a change comes from, and once its notes.
func (t *translation) remark(b *strings.Builder, c change, said map[string]bool) {
	comment(b, c.was(lineWidth-2))
	if said[c.setting+c.place] {
		return
	}
	said[c.setting+c.place] = true
	for _, note := range c.notes {
		comment(b, sentence(note))
	}
}

// was is the setting as it was, in so many characters.
func (c change) was(most int) string {
	if strings.HasPrefix(c.old, "(") {
		return shorten(c.setting+" "+c.old, most)
	}
	return shorten(c.setting+" = "+c.old, most)
}

// sentence makes a sentence of a message.
func sentence(s string) string {
	if strings.HasPrefix(s, " ") {
		return s
	}
	if !strings.HasSuffix(s, ":") {
		s += "."
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

// comment writes lines of a comment. One that is indented is not broken.
func comment(b *strings.Builder, text string) {
	if strings.HasPrefix(text, " ") {
		fmt.Fprintf(b, "# %s\n", text)
		return
	}
	for _, line := range wrap(text, lineWidth-2) {
		fmt.Fprintf(b, "# %s\n", line)
	}
}

// messages are what became of each setting, and what was broken before.
func (t *translation) messages() []string {
	var out []string
	for _, note := range t.notes {
		out = append(out, t.config.File+": "+note)
	}
	for _, c := range t.changes {
		head := c.was(72)
		if c.place != "" {
			head = c.place + ": " + head
		}
		out = append(out, head+": "+c.outcome())
		for _, note := range c.notes {
			out = append(out, "    "+note)
		}
	}
	for _, trap := range t.traps {
		out = append(out, "was broken: "+trap.String())
	}
	return out
}

// outcome is what became of a setting, in a line.
func (c change) outcome() string {
	var now []string
	for _, a := range c.keys {
		if !a.off {
			now = append(now, fmt.Sprintf("%s.%s = %s", a.table, a.key, shorten(a.value, 60)))
		}
	}
	switch {
	case len(now) > 0:
		return "now " + strings.Join(now, ", ")
	case c.gone != "":
		return "no longer needed: " + c.gone
	}
	return "see below"
}

// diff prints old and new side by side: for a terminal in 100 columns, and in a pipe as plain lines.
func (o *output) diff(t *translation) error {
	heading := []string{"PORTSENTRY", "WAS", "NFTSENTRY"}
	var rows [][]string
	for _, c := range t.changes {
		for i, now := range c.sides() {
			if i > 0 && o.terminal {
				rows = append(rows, []string{"", "", now})
				continue
			}
			rows = append(rows, []string{c.setting, c.old, now})
		}
	}
	if !o.terminal {
		return o.table(heading, rows)
	}
	var narrow [][]string
	for _, row := range rows {
		narrow = append(narrow, fold(row, 20, 28, 48)...)
	}
	return o.table(heading, narrow)
}

// sides are the right sides of a change.
func (c change) sides() []string {
	var out []string
	for _, a := range c.keys {
		out = append(out, fmt.Sprintf("%s%s.%s = %s", mark(a.off), a.table, a.key, a.value))
	}
	if len(out) == 0 {
		return []string{"(gone: " + c.gone + ")"}
	}
	return out
}

// fold makes several rows of one whose cells are too wide.
func fold(row []string, widths ...int) [][]string {
	var out [][]string
	for i, cell := range row {
		for n, line := range wrap(cell, widths[i]) {
			if n == len(out) {
				out = append(out, make([]string, len(row)))
			}
			out[n][i] = line
		}
	}
	return out
}

// wrap breaks a text into lines of at most so many characters, after blanks and commas where there are any.
func wrap(text string, width int) []string {
	var out []string
	for utf8.RuneCountInString(text) > width {
		end := width
		runes := []rune(text)
		if i := strings.LastIndexAny(string(runes[:width+1]), " "); i > 0 {
			out, text = append(out, text[:i]), text[i+1:]
			continue
		}
		if i := strings.LastIndexAny(string(runes[:width]), ","); i > 0 {
			out, text = append(out, text[:i+1]), text[i+1:]
			continue
		}
		out, text = append(out, string(runes[:end])), string(runes[end:])
	}
	return append(out, text)
}

// shorten cuts a text to so many characters.
func shorten(s string, most int) string {
	runes := []rune(s)
	if len(runes) <= most {
		return s
	}
	return string(runes[:most-3]) + "..."
}
