package portsentry

import (
	"strings"
)

// A Command is a command line as Portsentry hands it to the shell.
type Command struct {
	// Words are the program and its arguments, with $TARGET$, $PORT$ and $MODE$ where they stood. They are nil if it
	// takes a shell to run the line.
	Words []string
	// Shell says what takes a shell, such as `a pipe, "|"`; "" if nothing does.
	Shell string
}

// tokens are what Portsentry replaces in a command, and the arguments of a script that stand for them.
var tokens = []struct{ token, argument string }{{"$TARGET$", "1"}, {"$PORT$", "2"}, {"$MODE$", "3"}}

// ParseCommand splits a command line as sh(1) does, as long as it is plain words and quotes.
func ParseCommand(line string) Command {
	w := &words{rest: line}
	for w.rest != "" && w.shell == "" {
		w.next()
	}
	w.end()
	switch {
	case w.shell == "" && w.quote != 0:
		w.shell = "a quote without its end"
	case w.shell == "" && len(w.out) == 0:
		w.shell = "no program"
	case w.shell == "" && strings.Contains(w.first, "="):
		w.shell = "a variable that is set"
	}
	if w.shell != "" {
		return Command{Shell: w.shell}
	}
	return Command{Words: w.out}
}

// words are those of a command line, on their way.
type words struct {
	rest  string
	out   []string
	word  strings.Builder
	open  bool   // a word has begun
	quote byte   // ' or ", 0 for none
	first string // the unquoted part of the first word
	shell string
}

// next takes a token, an escape or a byte.
func (w *words) next() {
	for _, t := range tokens {
		if strings.HasPrefix(w.rest, t.token) {
			w.add(t.token, len(t.token))
			return
		}
	}
	c := w.rest[0]
	switch {
	case w.quote == '\'' && c != '\'', w.quote == '"' && !strings.ContainsRune("\"\\$`", rune(c)):
		w.add(w.rest[:1], 1)
	case w.quote != 0 && w.quote == c:
		w.quote, w.rest = 0, w.rest[1:]
	case w.quote == 0 && (c == '\'' || c == '"'):
		w.quote, w.open, w.rest = c, true, w.rest[1:]
	case c == '\\':
		w.escape()
	case c == ' ' || c == '\t':
		w.end()
		w.rest = w.rest[1:]
	default:
		w.plain(c)
	}
}

// escape takes a backslash, and what it stands before. In double quotes it only means something before a few.
func (w *words) escape() {
	if len(w.rest) < 2 {
		w.shell = "a backslash at the end"
		return
	}
	if w.quote == '"' && !strings.ContainsRune("\"\\$`", rune(w.rest[1])) {
		w.add(w.rest[:1], 1)
		return
	}
	w.add(w.rest[1:2], 2)
}

// plain takes a byte that no quote protects, unless it means something to a shell.
func (w *words) plain(c byte) {
	w.shell = special(c, w.open)
	if w.shell != "" {
		return
	}
	if len(w.out) == 0 {
		w.first += w.rest[:1]
	}
	w.add(w.rest[:1], 1)
}

// special says what a byte means to a shell; "" for nothing.
func special(c byte, inWord bool) string {
	switch c {
	case '|':
		return `a pipe, "|"`
	case '<', '>':
		return `a redirection, "` + string(c) + `"`
	case ';', '&', '\n':
		return `more than one command, "` + string(c) + `"`
	case '`', '$':
		return `a variable or another command, "` + string(c) + `"`
	case '*', '?', '[', '{':
		return `a pattern, "` + string(c) + `"`
	case '(', ')':
		return `a group, "` + string(c) + `"`
	case '~', '#', '!':
		if !inWord {
			return `"` + string(c) + `" at the start of a word`
		}
	}
	return ""
}

func (w *words) add(s string, n int) {
	w.word.WriteString(s)
	w.open, w.rest = true, w.rest[n:]
}

// end ends a word.
func (w *words) end() {
	if w.open {
		w.out = append(w.out, w.word.String())
	}
	w.word.Reset()
	w.open = false
}

// ParseScript is the script that does what a command line did, for a program that runs it with $TARGET$, $PORT$ and
// $MODE$ as its arguments. What a forger could write is never read by the shell as more than an argument.
func ParseScript(line string) []string {
	var b strings.Builder
	quote := byte(0)
	for i := 0; i < len(line); {
		if n, text := argument(line[i:], quote); n > 0 {
			b.WriteString(text)
			i += n
			continue
		}
		c := line[i]
		b.WriteByte(c)
		i++
		switch {
		case c == '\\' && quote != '\'' && i < len(line):
			b.WriteByte(line[i])
			i++
		case c == quote:
			quote = 0
		case quote == 0 && (c == '\'' || c == '"'):
			quote = c
		}
	}
	return []string{"#!/bin/sh", "# $1 is the address, $2 the port, $3 the mode.", b.String()}
}

// argument is how a script writes a token that the line begins with, and how long that is; 0 for none.
func argument(line string, quote byte) (n int, text string) {
	for _, t := range tokens {
		if !strings.HasPrefix(line, t.token) {
			continue
		}
		text = `"${` + t.argument + `}"`
		switch quote {
		case '"':
			text = `${` + t.argument + `}`
		case '\'':
			text = `'` + text + `'`
		}
		return len(t.token), text
	}
	return 0, ""
}
