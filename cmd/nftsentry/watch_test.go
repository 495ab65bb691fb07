package main

import (
	"bytes"
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"nftsentry/controller"
	"nftsentry/controller/api"
	"nftsentry/listener"
	"nftsentry/state"
)

// Times are shown in the zone of the host. It is set before there is anything
// else that may read it, such as a server that another test has left to end.
func init() { time.Local = time.UTC }

// TestEvent shows each kind of event as a person sees it, from the notice on.
func TestEvent(t *testing.T) {
	at := time.Date(2026, 11, 24, 12, 4, 11, 924_000_000, time.UTC)
	probe := listener.Event{
		Time: at, Source: netip.MustParseAddrPort("203.0.113.7:4000"), Target: netip.MustParseAddrPort("10.0.0.1:23"),
		Protocol: listener.TCP, Kind: listener.Connect, Evidence: listener.Proven,
	}
	probe6 := probe
	probe6.Source = netip.MustParseAddrPort("[2001:db8::7]:4000")
	hidden := probe
	hidden.Protocol, hidden.Kind, hidden.Evidence = 0, 0, listener.Unproven
	hidden.Target = netip.AddrPortFrom(hidden.Target.Addr(), 0)
	block := state.Block{
		Source: netip.MustParsePrefix("203.0.113.7/32"), Since: at, Until: at.Add(10 * time.Minute), Port: 23, Protocol: "tcp", Kind: "connect",
		Evidence: "proven", Origin: state.OriginDecoy,
	}
	block6 := block
	block6.Source, block6.Strikes = netip.MustParsePrefix("2001:db8::/64"), 2
	for _, tt := range []struct {
		notice controller.Notice
		want   string
	}{
		{controller.Notice{What: controller.Probed, Event: probe}, "12:04:11.924  probe        203.0.113.7      tcp/23     connect  proven"},
		{controller.Notice{What: controller.Probed, Event: hidden}, "12:04:11.924  probe        203.0.113.7      -          -        unproven"},
		{controller.Notice{What: controller.Ignored, Event: probe, By: netip.MustParsePrefix("203.0.113.0/24"), Reason: "ignore.sources"},
			"12:04:11.924  ignored      203.0.113.7      tcp/23     connect  proven    203.0.113.0/24: ignore.sources"},
		{controller.Notice{What: controller.Blocked, Event: probe, Block: block, Took: 140 * time.Microsecond},
			"12:04:11.924  block        203.0.113.7      tcp/23     connect  proven    for 10m  by decoy  took 140µs"},
		{controller.Notice{What: controller.Extended, Event: probe6, Block: block6},
			"12:04:11.924  extend       2001:db8::7      tcp/23     connect  proven    2001:db8::/64  for 10m  2 strikes  by decoy"},
		{controller.Notice{What: controller.Unblocked, Block: block6, Reason: "expired"},
			"12:04:11.924  unblock      2001:db8::/64    tcp/23     connect  proven    expired"},
		{controller.Notice{What: controller.Healed, Reason: "our table was made again"}, "12:04:11.924  heal         our table was made again"},
		{controller.Notice{What: controller.Healed, Reason: "\"a\x1b[2J\u009b\" has changed it"}, "12:04:11.924  heal         \"a\ufffd[2J\ufffd\" has changed it"},
		{controller.Notice{What: controller.Reloaded, Reason: "another configuration holds"}, "12:04:11.924  reload       another configuration holds"},
	} {
		tt.notice.Time = at
		if diff := cmp.Diff(tt.want, eventLine(eventOf(tt.notice))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.notice.What, diff)
		}
	}
	want := "12:04:11.924  lost         7 events: this reader is too slow"
	if diff := cmp.Diff(want, eventLine(api.Event{Time: at, Event: "lost", Lost: 7})); diff != "" {
		t.Errorf("lost (-want +got):\n%s", diff)
	}
}

// TestEventNames holds the words of the wire and those of the controller equal.
func TestEventNames(t *testing.T) {
	var names, kinds []string
	for what := controller.What(1); what.String() != "unknown"; what++ {
		names = append(names, what.String())
	}
	for kind := listener.Connect; kind.String() != "unknown"; kind++ {
		kinds = append(kinds, kind.String())
	}
	if diff := cmp.Diff(append(names, "stop", "lost"), api.EventNames); diff != "" {
		t.Errorf("events (-controller +api):\n%s", diff)
	}
	if diff := cmp.Diff(kinds, api.KindNames); diff != "" {
		t.Errorf("kinds (-listener +api):\n%s", diff)
	}
}

// TestCompletion shows what the shell completes without a daemon: the words of
// lists, and files where there may be some.
func TestCompletion(t *testing.T) {
	for line, want := range map[string]string{
		"watch --event heal,sto":      "heal,stop\n:4\n",
		"watch --kind u":              "udp\n:4\n",
		"watch --port ":               ":4\n",
		"list ":                       ":4\n",
		"run --config ":               ":0\n",
		"list --socket ":              ":0\n",
		"block --file ":               ":0\n",
		"import ":                     ":0\n",
		"import --default ":           ":0\n",
		"report --html ":              ":0\n",
		"report --html=":              ":0\n",
		"unblock --socket /nowhere ":  ":4\n",
		"explain --socket /nowhere 1": ":4\n",
	} {
		var data bytes.Buffer
		root := newRoot(&output{data: &data, messages: io.Discard})
		root.SetArgs(append([]string{"__complete"}, strings.Split(line, " ")...))
		if err := root.Execute(); err != nil {
			t.Errorf("%s: %v", line, err)
		}
		if diff := cmp.Diff(want, data.String()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", line, diff)
		}
	}
}

func TestEventColor(t *testing.T) {
	for _, tt := range []struct {
		color bool
		event string
		want  string
	}{
		{true, "block", "\x1b[31m00:00:00.000  block        x\x1b[0m\n"},
		{true, "probe", "00:00:00.000  probe        x\n"},
		{false, "block", "00:00:00.000  block        x\n"},
	} {
		var data bytes.Buffer
		o := &options{out: &output{data: &data, color: tt.color}}
		if err := o.event(api.Event{Time: time.Date(2026, 11, 24, 0, 0, 0, 0, time.Local), Event: tt.event, Reason: "x"}); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tt.want, data.String()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.event, diff)
		}
	}
}
