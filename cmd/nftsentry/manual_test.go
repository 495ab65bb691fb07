package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

const manualDir = "../../contrib/man"

// manualDate is in the heading of each page: that of the last change worth one.
var manualDate = time.Date(2026, time.November, 24, 0, 0, 0, 0, time.UTC)

// TestManual holds the manual pages and the commands equal.
func TestManual(t *testing.T) {
	pages := manualPages(t)
	for name, want := range pages {
		file := filepath.Join(manualDir, name)
		if *update {
			if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := os.ReadFile(file)
		if err != nil {
			t.Errorf("%v: write it by \"go test ./cmd/nftsentry -run TestManual -update\"", err)
			continue
		}
		if diff := cmp.Diff(want, string(got)); diff != "" {
			t.Errorf("%s is not what the program says, write it anew by \"go test ./cmd/nftsentry -run TestManual -update\" (-program +page):\n%s", name, diff)
		}
	}
	there, err := filepath.Glob(filepath.Join(manualDir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range there {
		if _, known := pages[filepath.Base(file)]; !known {
			t.Errorf("%s is about no command", file)
		}
	}
}

// manualPages are all pages by the names of their files.
func manualPages(t *testing.T) map[string]string {
	t.Helper()
	pages := map[string]string{"nftsentry.toml.5": configPage(t)}
	root := newRoot(&output{data: &bytes.Buffer{}, messages: &bytes.Buffer{}})
	root.InitDefaultHelpFlag()
	root.Long += "\n\n" + strings.ReplaceAll(rootDetails, "\t", "    ")
	root.CompletionOptions.HiddenDefaultCmd = true
	var add func(cmd *cobra.Command)
	add = func(cmd *cobra.Command) {
		cmd.DisableAutoGenTag = true
		cmd.Long = preformatted(cmd.Long)
		var page bytes.Buffer
		header := &doc.GenManHeader{Section: "8", Date: &manualDate, Source: "nftsentry", Manual: "nftsentry"}
		if err := doc.GenMan(cmd, header, &page); err != nil {
			t.Fatal(err)
		}
		pages[strings.ReplaceAll(cmd.CommandPath(), " ", "-")+".8"] = page.String()
		for _, sub := range cmd.Commands() {
			if sub.IsAvailableCommand() && sub.Name() != "completion" {
				add(sub)
			}
		}
	}
	add(root)
	return pages
}

// rootDetails are what nftsentry(8) says besides the commands.
const rootDetails = `# FILES

/etc/nftsentry/nftsentry.toml
	the configuration, nftsentry.toml(5); without it the built-in defaults hold

/var/lib/nftsentry/nftsentry.db
	all blocks, and those that are over

/var/lib/nftsentry/portsentry.blocked.tcp, portsentry.blocked.udp
	the blocks in force, a line each, as Portsentry 1.2 writes them

/var/lib/nftsentry/portsentry.history
	all blocks there ever were, likewise

/run/nftsentry/control.sock
	where the commands reach the daemon

/run/nftsentry-hook/hook.sock
	where the daemon reaches the hook service, if there is one

# EXIT STATUS

0 done; 1 could not be done; 2 asked for in a wrong way, or a wrong configuration; 3 the daemon has lost CAP_NET_ADMIN.

# ENVIRONMENT

NO_COLOR takes the colours away, whatever its value.

# SEE ALSO

nftsentry.toml(5), nft(8)`

// preformatted marks the lines that begin with blanks, so that Markdown leaves
// them as they are.
func preformatted(text string) string {
	var out strings.Builder
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "  ") {
			line = "    " + line
		}
		out.WriteString(line)
	}
	return out.String()
}

var (
	tomlTable = regexp.MustCompile(`^#? ?(\[+[a-z_.]+\]+)$`)
	tomlKey   = regexp.MustCompile(`^#? ?[a-z_0-9]+ += `)
)

// configPage makes nftsentry.toml(5) of the reference configuration: what
// stands before a key or a table is its description.
func configPage(t *testing.T) string {
	t.Helper()
	reference, err := os.ReadFile("../../conf/reference.toml")
	if err != nil {
		t.Fatal(err)
	}
	var page strings.Builder
	fmt.Fprintf(&page, ".TH \"NFTSENTRY.TOML\" \"5\" \"%s\" \"nftsentry\" \"nftsentry\"\n", manualDate.Format("Jan 2006"))
	page.WriteString(".SH NAME\nnftsentry.toml \\- configuration of nftsentry(8)\n.SH DESCRIPTION\n")
	var about []string
	first := true
	for line := range strings.Lines(string(reference)) {
		line = strings.TrimSuffix(line, "\n")
		switch table := tomlTable.FindStringSubmatch(line); {
		case table != nil:
			fmt.Fprintf(&page, ".SS %s\n", roff(table[1]))
			paragraph(&page, about)
			about = nil
		case tomlKey.MatchString(line):
			key := strings.NewReplacer(`"`, `\(dq`, ",", `,\:`).Replace(roff(strings.TrimLeft(line, "# "))) // long lists break at a comma
			fmt.Fprintf(&page, ".TP\n.B %s\n", key)
			paragraph(&page, about)
			about = nil
		case strings.HasPrefix(line, "#"):
			about = append(about, strings.TrimPrefix(strings.TrimPrefix(line, "#"), " "))
		case first && len(about) > 0: // the head of the file
			paragraph(&page, about)
			page.WriteString(".SH KEYS\n")
			about, first = nil, false
		}
	}
	page.WriteString(".SH SEE ALSO\n.BR nftsentry (8)\n")
	return page.String()
}

// paragraph writes lines of a comment, of which empty ones part paragraphs.
func paragraph(page *strings.Builder, lines []string) {
	for _, line := range lines {
		if line == "" {
			page.WriteString(".IP\n")
			continue
		}
		page.WriteString(roff(line) + "\n")
	}
}

// roff escapes what groff(7) takes for a command.
func roff(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(s)
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		s = `\&` + s
	}
	return s
}
