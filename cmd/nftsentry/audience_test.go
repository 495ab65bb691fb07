package main

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nftsentry/controller"
	"nftsentry/listener"
	"nftsentry/state"
)

// TestCompatLines shows what Portsentry would have logged.
func TestCompatLines(t *testing.T) {
	event := listener.Event{
		Source: netip.MustParseAddrPort("10.9.9.1:4000"), Target: netip.MustParseAddrPort("10.9.9.2:79"),
		Protocol: listener.TCP, Kind: listener.Null,
	}
	connect := event
	connect.Kind = listener.Connect
	block := state.Block{Source: netip.MustParsePrefix("10.9.9.1/32")}
	for name, tt := range map[string]struct {
		notice controller.Notice
		want   []string
	}{
		"block": {controller.Notice{What: controller.Blocked, Event: event, Block: block}, []string{
			"attackalert: TCP NULL scan from host: 10.9.9.1/10.9.9.1 to TCP port: 79",
			`attackalert: Host 10.9.9.1 has been blocked via nftables set: "inet nftsentry blocked4"`,
		}},
		"would block": {controller.Notice{What: controller.WouldBlock, Event: connect, Block: block}, []string{
			"attackalert: Connect from host: 10.9.9.1/10.9.9.1 to TCP port: 79",
			"attackalert: Ignoring TCP response per configuration file setting.",
		}},
		"run": {controller.Notice{What: controller.Triggered, Event: connect, Block: block}, []string{
			"attackalert: Connect from host: 10.9.9.1/10.9.9.1 to TCP port: 79",
		}},
		"repeated": {controller.Notice{What: controller.Repeated, Event: connect, Block: block}, []string{
			"attackalert: Connect from host: 10.9.9.1/10.9.9.1 to TCP port: 79",
			"attackalert: Host: 10.9.9.1 is already blocked. Ignoring",
		}},
		"below the trigger": {controller.Notice{What: controller.Probed, Event: event}, nil},
		"operator":          {controller.Notice{What: controller.Blocked, Block: block}, nil},
	} {
		if diff := cmp.Diff(tt.want, compatLines(tt.notice)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}
