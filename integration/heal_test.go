package integration

import (
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nftsentry/integration/netns"
)

// damages are what others may do to the table, as commands of nft(8).
var damages = map[string]string{
	"flush ruleset":     "flush ruleset",
	"delete table":      "delete table inet nftsentry",
	"flush chain":       "flush chain inet nftsentry shield_open; flush chain inet nftsentry shield",
	"flush sets":        "flush set inet nftsentry blocked4; flush set inet nftsentry blocked6; flush set inet nftsentry nets4",
	"delete elements":   "delete element inet nftsentry blocked4 { 10.8.0.2 }; delete element inet nftsentry blocked6 { 2001:db8:8:: }",
	"change policy":     "chain inet nftsentry lure { policy drop; }",
	"foreign rule":      "insert rule inet nftsentry shield accept",
	"put to sleep":      "add table inet nftsentry { flags dormant; }",
	"delete decoys":     "flush set inet nftsentry decoy_tcp",
	"shorten a timeout": "delete element inet nftsentry blocked4 { 10.8.0.2 }; add element inet nftsentry blocked4 { 10.8.0.2 timeout 1s }",
	"ignore everybody":  "add element inet nftsentry ignored4 { 0.0.0.0/0 }; add element inet nftsentry ignored6 { ::/0 }",
}

// TestHeals does to the table what others may do, and waits until all is as
// it was.
func TestHeals(t *testing.T) {
	w := newWorld(t)
	serve(t, w.server, ":80", "welcome")
	d := guard(t, w.server, "")
	d.must("block", client4, "2001:db8:8::/64", "198.51.100.0/24", "--timeout", "1h")
	nft := netns.Tool(t, "nft")
	shape := func() string {
		// The answer comes after what is under way in the daemon.
		_ = d.status()
		return expires.ReplaceAllString(w.server.Output(t, nft, "-s", "list", "table", "inet", "nftsentry"), "")
	}
	want, list := shape(), d.list()
	for name, command := range damages {
		t.Run(name, func(t *testing.T) {
			w.server.Output(t, nft, command)
			if name == "shorten a timeout" {
				time.Sleep(1500 * time.Millisecond) // if it were not put back, it would be gone
			}
			got := ""
			for deadline := time.Now().Add(patience); got != want && time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
				got = shape()
			}
			if got != want {
				t.Fatalf("the table is\n%s\nwant\n%s", got, want)
			}
			expectSilence(t, w.client, "", server4, 80)
			expectSilence(t, w.client, "", server6, 80)
			if got := d.list(); !slices.Equal(got, list) {
				t.Errorf("listed %v, want %v", got, list)
			}
		})
	}
	if s := d.status(); s.Mended < 5 || len(s.Problems) != 0 {
		t.Errorf("mended %d times, problems %q", s.Mended, s.Problems)
	}
	if code := d.end(unix.SIGTERM); code != 0 {
		t.Errorf("exit status %d", code)
	}
}

// TestAddedByHand shows that what an operator adds by nft(8) is taken over.
func TestAddedByHand(t *testing.T) {
	w := newWorld(t)
	d := guard(t, w.server, "")
	w.server.Output(t, netns.Tool(t, "nft"), "add element inet nftsentry blocked4 { 203.0.113.7 timeout 30m comment \"mine\" }")
	b := d.listed()
	if b.Source != "203.0.113.7" || b.Comment != "mine" || b.Until.Sub(b.Since).Round(time.Minute) != 30*time.Minute {
		t.Errorf("listed as %+v", b)
	}
}

// TestTableGoneAtTheEnd shows what is said when somebody has deleted the table
// while the daemon could not see it.
func TestTableGoneAtTheEnd(t *testing.T) {
	w := newWorld(t)
	d := guard(t, w.server, "")
	if err := d.cmd.Process.Signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	w.server.Output(t, netns.Tool(t, "nft"), "delete table inet nftsentry")
	if err := d.cmd.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := d.end(unix.SIGCONT); code != 0 {
		t.Errorf("exit status %d", code)
	}
	if log := d.log.String(); !strings.Contains(log, "made our table again") && !strings.Contains(log, "on record only: our table was deleted") {
		t.Error("neither was the table made again, nor is it said that it was not")
	}
}

// expires is what nft(8) says of the time that an element has and has left.
var expires = regexp.MustCompile(` (timeout|expires) \d\S*`)
