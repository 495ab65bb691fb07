package top

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"
	"github.com/google/go-cmp/cmp"

	"nftsentry/controller/api"
)

var update = flag.Bool("update", false, "write the golden files anew")

var start = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// fakeDaemon has some blocks, and lets go of all but one.
type fakeDaemon struct{ let []string }

var errStays = errors.New("192.0.2.9 is not blocked")

func (*fakeDaemon) Status(context.Context) (api.Status, error) { return someStatus(), nil }
func (*fakeDaemon) List(context.Context) ([]api.Block, error)  { return someBlocks(30), nil }
func (d *fakeDaemon) Unblock(_ context.Context, source string) (api.Block, error) {
	if source == "192.0.2.9" {
		return api.Block{}, errStays
	}
	d.let = append(d.let, source)
	return api.Block{Source: source}, nil
}

func (*fakeDaemon) Watch(ctx context.Context, _ api.EventFilter, _ func(api.Event) error) error {
	<-ctx.Done()
	return nil
}

func someStatus() api.Status {
	return api.Status{Version: "1.2.3", PID: 42, Started: start.Add(-51 * time.Hour), Mode: "enforce", Dropped: api.Dropped{Packets: 100, Bytes: 6000}}
}

func someBlocks(n int) []api.Block {
	all := []api.Block{{
		Source: "2001:db8:1:2::/64", Since: start, Until: start.Add(7 * 24 * time.Hour), Comment: "tcp/23 connect x4", Evidence: "proven",
		Origin: "decoy", Strikes: 3,
	}}
	for i := 1; i < n; i++ {
		all = append(all, api.Block{
			Source: fmt.Sprintf("192.0.2.%d", i), Since: start.Add(time.Duration(i) * time.Second), Until: start.Add(time.Duration(10+i) * time.Minute),
			Comment: fmt.Sprintf("tcp/%d syn", i), Evidence: "unproven", Origin: "kernel",
		})
	}
	return all
}

// show is a model that was told of a status, blocks and probes.
func show(t *testing.T, width, height int) (*model, *fakeDaemon) {
	t.Helper()
	daemon := &fakeDaemon{}
	m := newModel(t.Context(), daemon, start)
	m.Update(tea.WindowSizeMsg{Width: width, Height: height})
	m.Update(m.askStatus())
	m.Update(m.askList())
	var all events
	for i := range 200 {
		all = append(all, api.Event{
			Time: start.Add(-time.Second), Event: "probe", Source: fmt.Sprintf("198.51.%d.%d", i%3, i%7), Port: uint16(20 + i%5), Protocol: "tcp", Kind: "syn",
		})
	}
	m.Update(all)
	return m, daemon
}

// press presses keys, and does what comes of them.
func press(m *model, keys ...string) {
	for _, k := range keys {
		msg := tea.KeyPressMsg{Text: k, Code: []rune(k)[0]}
		if code, special := map[string]rune{"enter": tea.KeyEnter, "esc": tea.KeyEscape, "down": tea.KeyDown, "up": tea.KeyUp, "end": tea.KeyEnd, "home": tea.KeyHome, "pgdown": tea.KeyPgDown}[k]; special {
			msg = tea.KeyPressMsg{Code: code}
		}
		_, cmd := m.Update(msg)
		if cmd == nil || m.filtering {
			continue
		}
		m.Update(cmd())
	}
}

func screen(m *model) string { return ansi.Strip(m.View().Content) + "\n" }

// Times are shown in the zone of the host. It is set before there is anything
// else that may read it, such as a server that another test has left to end.
func init() { time.Local = time.UTC }

// TestView compares screens of several sizes with what they should be.
func TestView(t *testing.T) {
	for name, tt := range map[string]struct {
		width, height int
		do            func(m *model)
	}{
		"80x24":    {80, 24, func(*model) {}},
		"120x40":   {120, 40, func(m *model) { press(m, "s", "s", "r") }},
		"50x14":    {50, 14, func(m *model) { press(m, "end") }},
		"30x10":    {30, 10, func(*model) {}},
		"filtered": {80, 24, func(m *model) { press(m, "/", "2", "0", "0", "1", "enter") }},
		"asking":   {80, 24, func(m *model) { press(m, "down", "down", "u") }},
		"help":     {80, 24, func(m *model) { press(m, "?") }},
		"problems": {80, 24, func(m *model) {
			m.status.Problems = []string{"the kernel refused 1 block: see the log\x1b[2J", "more"}
			press(m, "p")
		}},
		"unanswered": {80, 24, func(m *model) { m.Update(statusOf{err: errors.New("nobody answers")}) }},
	} {
		t.Run(name, func(t *testing.T) {
			m, _ := show(t, tt.width, tt.height)
			tt.do(m)
			got, file := screen(m), filepath.Join("testdata", name+".txt")
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("screen (-want +got):\n%s", diff)
			}
			for line := range strings.Lines(got) {
				if w := ansi.StringWidth(strings.TrimSuffix(line, "\n")); w > tt.width {
					t.Errorf("line of %d cells, want %d at most: %q", w, tt.width, line)
				}
			}
			if n := strings.Count(got, "\n"); n > tt.height {
				t.Errorf("%d lines, want %d at most", n, tt.height)
			}
		})
	}
}

// TestKeys shows what the keys change.
func TestKeys(t *testing.T) {
	m, daemon := show(t, 80, 24)
	chosen := func(what, want string) {
		t.Helper()
		if got := m.rows[m.selection()].Source; got != want {
			t.Errorf("%s: %s is chosen, want %s", what, got, want)
		}
	}
	chosen("at first", "192.0.2.1")
	press(m, "down", "j")
	chosen("two down", "192.0.2.3")
	press(m, "up")
	chosen("one up", "192.0.2.2")
	press(m, "r")
	chosen("reversed, the same", "192.0.2.2")
	press(m, "end")
	chosen("the end", "192.0.2.1")
	press(m, "home")
	chosen("the beginning", "2001:db8:1:2::/64")
	press(m, "down", "u", "n")
	if len(daemon.let) > 0 || m.message != "192.0.2.29 stays blocked" {
		t.Errorf("no was taken for yes: %v, %q", daemon.let, m.message)
	}
	press(m, "u", "y")
	if diff := cmp.Diff([]string{"192.0.2.29"}, daemon.let); diff != "" || m.message != "let go 192.0.2.29" {
		t.Errorf("let go (-want +got):\n%s%q", diff, m.message)
	}
	press(m, "/", "1", "9", "2", ".", "0", ".", "2", ".", "9", "enter", "u", "y")
	if m.message != errStays.Error() {
		t.Errorf("message %q, want %v", m.message, errStays)
	}
	press(m, "/", "esc", "x")
	if len(m.rows) != 30 || m.message != `"x" does nothing: ? shows the keys` {
		t.Errorf("%d rows, %q", len(m.rows), m.message)
	}
}

// TestEvents shows that blocks come and go by events alone, and that a list is
// asked for after some were lost.
func TestEvents(t *testing.T) {
	m, _ := show(t, 80, 24)
	block := someBlocks(1)[0]
	block.Source = "203.0.113.7"
	m.Update(events{
		{Event: "block", Time: start, Source: "203.0.113.7", Block: &block},
		{Event: "unblock", Time: start, Source: "192.0.2.1"},
		{Event: "heal", Time: start, Reason: "our table was made again"},
	})
	if _, there := m.blocks["203.0.113.7"]; !there || len(m.blocks) != 30 {
		t.Errorf("%d blocks, the new one %v", len(m.blocks), there)
	}
	m.Update(tick(start.Add(12 * time.Minute)))
	if len(m.rows) != 29 { // one has ended, and nobody has told
		t.Errorf("%d rows, want 29", len(m.rows))
	}
	m.listAt = start.Add(12 * time.Minute)
	m.Update(events{{Event: "lost", Lost: 7}})
	if !m.listAt.IsZero() {
		t.Error("no list is asked for")
	}
	m.Update(ended{errStays})
	if !errors.Is(m.err, errStays) {
		t.Errorf("ended with %v", m.err)
	}
}

func TestLeft(t *testing.T) {
	m := &model{now: start}
	for left, want := range map[time.Duration]string{
		time.Millisecond: "1s", 59*time.Minute + 59*time.Second: "59m59s", 10*time.Hour - time.Second: "9h59m59s", 10*time.Hour + 59*time.Second: "10h",
		24*time.Hour - time.Second: "23h59m", 34*time.Hour + 59*time.Minute: "1d10h", 3650*24*time.Hour - time.Second: "3649d23h",
	} {
		if got := m.left(row{Block: api.Block{Until: start.Add(left)}}); got != want || len(got) > 8 {
			t.Errorf("%v left is shown as %s, want %s", left, got, want)
		}
	}
}

// TestHeld shows that a held picture stays as it is, and that what has happened
// meanwhile is there when it goes on.
func TestHeld(t *testing.T) {
	m, _ := show(t, 80, 24)
	block := someBlocks(1)[0]
	block.Source = "203.0.113.7"
	press(m, "p")
	before := screen(m)
	m.Update(tick(start.Add(time.Second)))
	m.Update(events{
		{Event: "block", Time: start, Source: "203.0.113.7", Block: &block},
		{Event: "unblock", Time: start, Source: "192.0.2.1"},
		{Event: "probe", Time: start, Source: "203.0.113.7", Port: 20, Protocol: "tcp"},
	})
	other := someStatus()
	other.Dropped.Packets += 1000
	m.Update(statusOf{status: other})
	m.Update(listOf{blocks: someBlocks(2)})
	if diff := cmp.Diff(before, screen(m)); diff != "" {
		t.Errorf("held (-before +after):\n%s", diff)
	}
	press(m, "p")
	if _, there := m.blocks["192.0.2.1"]; there || m.rows[len(m.rows)-1].Source != "203.0.113.7" || m.ports.most(start, 1)[0].n != 41 {
		t.Errorf("what has happened meanwhile is not there:\n%s", screen(m))
	}
	if m.packets.parts != (rate{}).parts || !m.listAt.IsZero() {
		t.Errorf("packets %v count for one second, or no list is asked for", m.packets.parts)
	}
}

// TestList shows that a list does not undo what has happened since it was asked
// for, and that no two are asked for at once.
func TestList(t *testing.T) {
	m, _ := show(t, 80, 24)
	block := someBlocks(1)[0]
	block.Source = "203.0.113.7"
	m.tick(start.Add(listEvery))
	if !m.listing || !m.listAt.Equal(start.Add(listEvery)) {
		t.Fatalf("no list is asked for after %v", listEvery)
	}
	m.Update(events{
		{Event: "block", Time: start, Source: "203.0.113.7", Block: &block},
		{Event: "unblock", Time: start, Source: "192.0.2.1"},
		{Event: "lost", Lost: 1},
	})
	m.tick(start.Add(listEvery + time.Second))
	if !m.listAt.IsZero() {
		t.Error("a second list is asked for while the first has not come")
	}
	m.Update(listOf{blocks: someBlocks(3)})
	_, made := m.blocks["203.0.113.7"]
	if _, ended := m.blocks["192.0.2.1"]; !made || ended || len(m.blocks) != 3 {
		t.Errorf("a list that is older than the events counts for more: %v", m.blocks)
	}
	if m.tick(start.Add(listEvery + 2*time.Second)); !m.listing || m.since != nil {
		t.Error("no list is asked for after events were lost")
	}
	m.since = nil
	m.Update(make(events, mostLater+1))
	if len(m.since) > 0 || !m.listAt.IsZero() {
		t.Error("too many events are kept, or no list is asked for instead")
	}
}

func TestTally(t *testing.T) {
	var c tally
	for i := range 20 {
		c.add("a", start.Add(time.Duration(i)*time.Minute))
	}
	c.add("b", start.Add(19*time.Minute))
	c.add("b", start.Add(-time.Hour)) // by a clock that was set back
	if diff := cmp.Diff([]count{{"a", 10}, {"b", 2}}, c.most(start.Add(19*time.Minute), 5), cmp.AllowUnexported(count{})); diff != "" {
		t.Errorf("most (-want +got):\n%s", diff)
	}
	for i := range 2 * mostKeys {
		c.add(fmt.Sprint(i), start.Add(20*time.Minute))
	}
	if n := len(c.parts[minutes-1]); n != mostKeys {
		t.Errorf("%d keys in a minute, want %d", n, mostKeys)
	}
	if got := c.most(start.Add(time.Hour), 5); len(got) != 0 {
		t.Errorf("after an hour: %v", got)
	}
}

func TestRate(t *testing.T) {
	var r rate
	r.add(50, start)
	if got := r.perSecond(start.Add(time.Second)); got != 5 {
		t.Errorf("%v a second, want 5", got)
	}
	if got := r.perSecond(start.Add(time.Minute)); got != 0 {
		t.Errorf("%v a second after a minute, want 0", got)
	}
}
