package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nftsentry/cmd/nftsentry/internal/doctor"
	"nftsentry/cmd/nftsentry/internal/selftest"
)

func TestDiagnose(t *testing.T) {
	findings := []doctor.Finding{
		{Check: "rights", Status: doctor.OK, Text: "root"},
		{Check: "nflog", Status: doctor.Failure, Text: "taken by \x1b[2Ja\tb", Advice: "stop it"},
	}
	for _, tt := range []struct {
		name     string
		terminal bool
		want     string
	}{
		{"pipe", false, "ok\trights\troot\nfailure\tnflog\ttaken by ?[2Ja?b; stop it\n"},
		{"terminal", true, "STATUS   CHECK   FINDING\nok       rights  root\nfailure  nflog   taken by ?[2Ja?b; stop it\n"},
	} {
		var data bytes.Buffer
		o := &options{out: &output{data: &data, terminal: tt.terminal}}
		err := o.diagnose(diagnosis{Status: doctor.Worst(findings), Findings: findings})
		if diff := cmp.Diff(tt.want, data.String()); diff != "" || !errors.Is(err, errSilent) {
			t.Errorf("%s: error %v (-want +got):\n%s", tt.name, err, diff)
		}
	}
	o := &options{out: &output{data: &bytes.Buffer{}}}
	if err := o.diagnose(diagnosis{Status: doctor.Warning}); err != nil {
		t.Errorf("warnings fail: %v", err)
	}
}

func TestPrintSelftest(t *testing.T) {
	r := selftest.Report{Notes: []string{"a note"}, Trials: []selftest.Trial{
		{Kind: "syn", Family: "IPv4", Outcome: selftest.AsConfigured, Noticed: true, Blocked: selftest.Yes, Probes: 3, Microseconds: 41, Dropped: true, Released: true},
		{Kind: "fin", Family: "IPv6", Outcome: selftest.Failed, Problem: "no block after 3 probes", Noticed: true, Blocked: selftest.No},
		{Kind: "null", Family: "IPv4", Outcome: selftest.AsConfigured, Noticed: true, Blocked: selftest.Would, Probes: 3, Microseconds: 100},
		{Kind: "udp", Family: "IPv4", Outcome: selftest.NotWatched, Blocked: selftest.No},
	}}
	var data, messages bytes.Buffer
	o := &options{out: &output{data: &data, messages: &messages}}
	if err := o.printSelftest(r); err != nil {
		t.Fatal(err)
	}
	want := strings.Join([]string{
		"syn\tIPv4\tok\tyes\tyes\t3\t41us\tyes\tyes", "fin\tIPv6\tfailed\tyes\tno\t-\t-\t-\t-",
		"null\tIPv4\tok\tyes\twould-be\t3\t100us\t-\t-", "udp\tIPv4\tnot-watched\t-\t-\t-\t-\t-\t-", "",
	}, "\n")
	if diff := cmp.Diff(want, data.String()); diff != "" {
		t.Errorf("data (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff("nftsentry: a note\nnftsentry: fin over IPv6: no block after 3 probes\n", messages.String()); diff != "" {
		t.Errorf("messages (-want +got):\n%s", diff)
	}
}
