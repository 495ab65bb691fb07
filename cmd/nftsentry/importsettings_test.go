package main

import (
	"path/filepath"
	"strings"
	"testing"

	"nftsentry/conf"
)

// TestImportSetting has settings that the golden files do not, and lines that come of them.
func TestImportSetting(t *testing.T) {
	for name, tt := range map[string]struct {
		mode, settings string
		want, not      string // a line of the configuration
		message        string // a part of the messages
	}{
		"no port at all":       {"atcp", `ADVANCED_PORTS_TCP="1"`, `watch = ""`, "", `ADVANCED_PORTS_TCP = "1": now tcp.watch = ""`},
		"none":                 {"atcp", `ADVANCED_PORTS_TCP="0"`, `watch = ""`, "", ""},
		"all ports":            {"atcp", `ADVANCED_PORTS_TCP="65536"`, `watch = "1-65535"`, "", ""},
		"as Portsentry does":   {"audp", ``, `watch = "1-1023"`, "", `ADVANCED_PORTS_UDP (not set): now udp.watch = "1-1023"`},
		"exclude not set":      {"audp", ``, `exclude = "53,67-68,123,137-138,443,520"`, "", `as before it was exclude = ""`},
		"one mode only":        {"atcp", ``, `watch = ""`, `mode_udp = "udp"`, `UDP_MODE = "": now udp.watch = ""`},
		"no path":              {"atcp", `KILL_RUN_CMD="notify.sh $TARGET$"`, `# command = ["/etc/nftsentry/notify.sh", "$TARGET$", "$PORT$", "$MODE$"]`, "[[hook.exec]]", `it has no absolute path: "notify.sh"`},
		"too many words":       {"atcp", `KILL_RUN_CMD="/bin/x` + strings.Repeat(" y", 64) + `"`, "# [[hook.exec]]", "[[hook.exec]]", "takes a shell for more than 64 words"},
		"as many as there may": {"atcp", `KILL_RUN_CMD="/bin/x` + strings.Repeat(" y", 63) + `"`, "[[hook.exec]]", "# [[hook.exec]]", "it runs without a shell"},
		"command not set":      {"atcp", `KILL_RUN_CMD_FIRST="1"`, "[block]", `when = "before"`, `KILL_RUN_CMD_FIRST = "1": no longer needed: there is no KILL_RUN_CMD`},
		"empty banner":         {"tcp", `TCP_PORTS="1"` + "\n" + `PORT_BANNER=""`, `decoy = "1"`, `banner = ""`, ""},
		"banner":               {"tcp", `TCP_PORTS="1"` + "\n" + `PORT_BANNER="Bad \ idea's #1"`, `banner = "Bad \\ idea's #1"`, "", ""},
		"own blocker":          {"atcp", `KILL_ROUTE="/root/ban.sh $TARGET$"`, "[block]", "[[hook.exec]]", "if this program does more than to block, make a [[hook.exec]] of it"},
		"a blocker by its end": {"atcp", `KILL_ROUTE="/root/roundtrip $TARGET$"`, "[block]", "", "if this program does more than to block"},
		"blocks without":       {"atcp", `BLOCK_TCP="1"`, `respond = "block"`, "", `KILL_ROUTE (not set): no longer needed: the set in the kernel blocks`},
		"trigger too high":     {"atcp", `SCAN_TRIGGER="51"`, `ports = 1`, `window = "1d"`, `was broken: `},
		"no hosts.deny":        {"atcp", `KILL_HOSTS_DENY="ALL: ALL"`, "[block]", "[hook.hosts_deny]", "KILL_HOSTS_DENY has no $TARGET$, so that Portsentry never did it"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			put(t, filepath.Join(dir, "portsentry.conf"), tt.settings+"\n")
			got := program(false, "import", dir, "--mode", tt.mode)
			if got.code != exitDone {
				t.Fatalf("%+v", got)
			}
			if !strings.Contains(got.data, "\n"+tt.want+"\n") {
				t.Errorf("no %q in\n%s", tt.want, got.data)
			}
			if tt.not != "" && strings.Contains(got.data, "\n"+tt.not+"\n") {
				t.Errorf("there is %q in\n%s", tt.not, got.data)
			}
			if !strings.Contains(got.messages, tt.message) {
				t.Errorf("no %q in\n%s", tt.message, got.messages)
			}
			if _, err := conf.Parse("made.toml", []byte(got.data)); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestWrap(t *testing.T) {
	for text, want := range map[string]string{
		"":                  "",
		"short":             "short",
		"ten letter":        "ten letter",
		"eleven lette":      "eleven|lette",
		"1,22,333,44":       "1,22,333,|44",
		"aaaaaaaaaaaaaaa":   "aaaaaaaaaa|aaaaa",
		"éééééééééé":        "éééééééééé",
		"éééééééééé é":      "éééééééééé|é",
		"a bb ccc dddd eee": "a bb ccc|dddd eee",
	} {
		if got := strings.Join(wrap(text, 10), "|"); got != want {
			t.Errorf("wrap(%q) = %q, want %q", text, got, want)
		}
	}
}

func TestShorten(t *testing.T) {
	for text, want := range map[string]string{"": "", "ten letter": "ten letter", "eleven lett": "eleven ...", "ééééééééééé": "ééééééé..."} {
		if got := shorten(text, 10); got != want {
			t.Errorf("shorten(%q) = %q, want %q", text, got, want)
		}
	}
}
