package service

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"nftsentry/integration/netns"
)

// TestReloadOutside asks a daemon in its sandbox for what it has taken from itself: it says what, and what to do, and
// changes nothing. A restart has it.
func TestReloadOutside(t *testing.T) {
	requireLandlock(t)
	p := newPlace(t, netns.New(t, "host"), guardUser, "")
	inside, outside := p.path("etc", "ignore"), p.path("ignore")
	for _, path := range []string{inside, outside} {
		must(t, os.WriteFile(path, []byte("192.0.2.1\n"), 0o644))
	}
	d := p.start(asGuard(t), nil, nil)
	d.hear("READY=1")
	hook := "\n[[hook.webhook]]\nurl = \"http://127.0.0.1/\"\n"
	for _, tt := range []struct {
		name, conf string
		want       []string // parts of the messages, one each; none for a reload that works
	}{
		{"a file elsewhere", fmt.Sprintf("ignore.files = [%q]", outside), []string{"ignore.files: " + outside + " lies in a folder that was not read at the start: "}},
		{"a hook", hook, []string{"hook: hooks run programs"}},
		{"both", fmt.Sprintf("ignore.files = [%q]", outside) + hook, []string{"ignore.files: ", "hook: "}},
		{"a file beside the configuration", fmt.Sprintf("ignore.files = [%q]", inside), nil},
	} {
		p.configure(tt.conf)
		r := p.ask("reload")
		if tt.want == nil {
			if r.code != 0 {
				t.Errorf("%s: %+v", tt.name, r)
			}
			continue
		}
		lines := strings.Split(strings.TrimSuffix(r.stderr, "\n"), "\n")
		if r.code != 2 || len(lines) != len(tt.want) {
			t.Errorf("%s: %+v, want %d lines", tt.name, r, len(tt.want))
			continue
		}
		for i, want := range tt.want {
			if !strings.HasPrefix(lines[i], "nftsentry: "+want) || !strings.Contains(lines[i], "restart it") {
				t.Errorf("%s: %q, want %q", tt.name, lines[i], want)
			}
		}
	}
	if got := p.status().Ignored.Listed; got != 1 {
		t.Errorf("%d lines in force, want that of the last reload", got)
	}
}

// TestHooksWithin shows that a daemon which runs hooks itself is in no sandbox, and says so.
func TestHooksWithin(t *testing.T) {
	p := newPlace(t, netns.New(t, "host"), guardUser, "[[hook.webhook]]\nurl = \"http://127.0.0.1/\"\n")
	d := p.start(asGuard(t), nil, nil)
	d.hear("READY=1")
	if got := p.status().Sandbox; got.Landlock != 0 || !strings.Contains(got.Reason, "hooks") {
		t.Errorf("sandbox %+v", got)
	}
	if got := p.must("status"); !strings.Contains(got, "none: the hooks run in the daemon") {
		t.Errorf("status\n%s", got)
	}
	if got := p.ask("doctor").stdout; !strings.Contains(got, "warning\tsandbox\tthe daemon has all files of its user") {
		t.Errorf("doctor\n%s", got)
	}
}
