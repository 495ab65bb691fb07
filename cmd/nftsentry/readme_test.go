package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestDocumentedCommands has README and the pages of docs show no command,
// flag or argument that the program does not take, and README all commands.
func TestDocumentedCommands(t *testing.T) {
	pages, err := filepath.Glob("../../docs/*.md")
	if err != nil || len(pages) == 0 {
		t.Fatalf("pages %q, %v", pages, err)
	}
	named := make(map[string]bool) // commands in README
	for _, page := range append(pages, "../../README.md") {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range shownCommands(string(text)) {
			name, err := resolve(shellWords(line))
			if err != nil {
				t.Errorf("%s: %s: %v", filepath.Base(page), line, err)
			}
			if filepath.Base(page) == "README.md" {
				named[name] = true
			}
		}
	}
	for _, name := range commands(newRoot(&output{data: &bytes.Buffer{}, messages: &bytes.Buffer{}})) {
		if !named[name] && name != "completion" && name != "help" {
			t.Errorf("README does not show %q", name)
		}
	}
}

// TestResolve holds the check of the pages to what it is to find.
func TestResolve(t *testing.T) {
	page := "```console\n# nftsentry list --json   # all\nnftsentry is not running\n```\n\n" +
		"nftsentry in a text\n\n```sh\nnftsentry check && nftsentry reload | cat\nnftsentry run    guards\n# nftsentry lst\n```\n"
	var got []string
	for _, line := range shownCommands(page) {
		got = append(got, strings.Join(shellWords(line), " "))
	}
	if want := "list --json;check;reload;run"; strings.Join(got, ";") != want {
		t.Errorf("commands %q, want %q", got, want)
	}
	for line, right := range map[string]bool{
		`block 192.0.2.7 --comment "abuse desk"`: true, "list -c FILE": true, "lst": false, "list --jsn": false, "list all": false, "explain": false,
	} {
		if _, err := resolve(shellWords("nftsentry " + line)); (err == nil) != right {
			t.Errorf("%s: %v", line, err)
		}
	}
}

// shownCommands are the calls of nftsentry in the fenced blocks of a page: in
// a console those behind a prompt, and in a script those that begin a line.
func shownCommands(page string) (out []string) {
	fence := ""
	for line := range strings.Lines(page) {
		line = strings.TrimSuffix(line, "\n")
		if kind, ok := strings.CutPrefix(strings.TrimSpace(line), "```"); ok {
			if fence = kind; kind == "" {
				fence = ""
			}
			continue
		}
		typed, prompt := strings.CutPrefix(line, "# ")
		if !prompt {
			typed, prompt = strings.CutPrefix(line, "$ ")
		}
		switch {
		case fence == "console" && prompt:
		case fence == "sh" && !prompt:
			typed = line
		default:
			continue
		}
		for _, one := range strings.Split(typed, " && ") {
			if strings.HasPrefix(one, "nftsentry ") {
				out = append(out, one)
			}
		}
	}
	return out
}

var (
	shellEnd  = regexp.MustCompile(` [|>#]|  | 2>`) // of one command: what follows is another, a file or a remark
	shellWord = regexp.MustCompile(`"[^"]*"|\S+`)
)

// shellWords are the arguments of a call of nftsentry.
func shellWords(line string) (words []string) {
	line = strings.TrimPrefix(line, "nftsentry ")
	if end := shellEnd.FindStringIndex(line); end != nil {
		line = line[:end[0]]
	}
	for _, word := range shellWord.FindAllString(line, -1) {
		words = append(words, strings.Trim(word, `"`))
	}
	return words
}

// resolve tells the command that arguments name, and what is wrong with them.
func resolve(args []string) (name string, err error) {
	root := newRoot(&output{data: &bytes.Buffer{}, messages: &bytes.Buffer{}})
	cmd, rest, err := root.Find(args)
	if err != nil {
		return "", err
	}
	if cmd == root {
		return "", unknownCommand(root, strings.Join(args, " "))
	}
	if err := cmd.ParseFlags(rest); err != nil {
		return cmd.Name(), err
	}
	return cmd.Name(), cmd.ValidateArgs(cmd.Flags().Args())
}
