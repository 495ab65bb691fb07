package listener

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestNames(t *testing.T) {
	got := map[string][]string{
		"protocol": names[Protocol](256),
		"kind":     names[Kind](256),
		"verdict":  names[Verdict](256),
	}
	want := map[string][]string{
		"protocol": {"tcp", "udp"},
		"kind":     {"connect", "syn", "fin", "null", "xmas", "syn-fin", "udp"},
		"verdict":  {"noticed", "exempted", "convicted", "crowded", "overspent"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
	if got := Kind(0).String() + Protocol(0).String(); got != "unknownunknown" {
		t.Errorf("zero values are %q, want unknown", got)
	}
	if Verdict(0) != Noticed || Evidence(0) != Unproven {
		t.Error("the zero values are not those of a lone packet that is counted")
	}
}

// names are those of all values below n but for the unknown.
func names[T interface {
	~uint8
	String() string
}](n int) []string {
	var all []string
	for i := range n {
		if s := T(i).String(); s != unknown {
			all = append(all, s)
		}
	}
	return all
}

func TestPortsentry(t *testing.T) {
	for kind, want := range map[Kind]string{
		0:        "Unknown Type",
		Connect:  "Connect",
		Syn:      "TCP SYN/Normal scan",
		Fin:      "TCP FIN scan",
		Null:     "TCP NULL scan",
		Xmas:     "TCP XMAS scan",
		SynFin:   "Unknown Type: TCP Packet Flags: SYN: 1 FIN: 1 ACK: 0 PSH: 0 URG: 0 RST: 0",
		Datagram: "UDP scan",
		255:      "Unknown Type",
	} {
		if got := kind.Portsentry(); got != want {
			t.Errorf("%v: %q, want %q", kind, got, want)
		}
	}
}
