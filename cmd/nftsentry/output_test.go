package main

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"nftsentry/conf"
	"nftsentry/controller/api"
)

func TestFinish(t *testing.T) {
	for name, tt := range map[string]struct {
		err  error
		code int
		text string
	}{
		"done":          {nil, 0, ""},
		"failed":        {errors.New("no"), 1, "nftsentry: no\n"},
		"two errors":    {errors.Join(errors.New("no"), errors.New("nor that")), 1, "nftsentry: no\nnftsentry: nor that\n"},
		"said already":  {errSilent, 1, ""},
		"usage":         {usagef("how"), 2, "nftsentry: how\n"},
		"wrapped usage": {fmt.Errorf("command: %w", usagef("how")), 2, "nftsentry: command: how\n"},
		"wrong request": {&api.RequestError{Err: errors.New("how")}, 2, "nftsentry: how\n"},
		"no socket":     {fmt.Errorf("list: %w", &api.SocketError{Path: "/x", Problem: "not a socket"}), 2, "nftsentry: list: /x: not a socket\n"},
		"usage, said":   {&usageError{errSilent}, 2, ""},
		"configuration": {conf.Errors{{File: "f", Line: 1, Column: 2, Problem: "no"}, {File: "f", Line: 3, Column: 4, Key: "k", Value: "5", Problem: "nor that"}}, 2,
			"nftsentry: f:1:2: no\nnftsentry: f:3:4: k = 5: nor that\n"},
	} {
		var messages bytes.Buffer
		o := &output{messages: &messages}
		if code := o.finish(tt.err); code != tt.code || messages.String() != tt.text {
			t.Errorf("%s: exit status %d, %q, want %d, %q", name, code, messages.String(), tt.code, tt.text)
		}
	}
}

func TestBlocksOnTerminal(t *testing.T) {
	until := time.Now().Add(90*time.Minute + 500*time.Millisecond)
	all := []api.Block{
		{Source: "192.0.2.7", Until: until, Comment: "tcp/23 connect x2", Evidence: "proven", Origin: "decoy", Strikes: 1},
		{Source: "2001:db8:1::/48", Until: until, Comment: "operator: abuse desk", Origin: "operator"},
	}
	var data bytes.Buffer
	var rows [][]string
	for _, b := range all {
		rows = append(rows, row(b, conf.FormatDuration(time.Until(b.Until))))
	}
	if err := (&output{data: &data, terminal: true}).table(listHeading, rows); err != nil {
		t.Fatal(err)
	}
	want := "" +
		"SOURCE           LEFT   WHY                   EVIDENCE  ORIGIN    STRIKES\n" +
		"192.0.2.7        1h30m  tcp/23 connect x2     proven    decoy     1\n" +
		"2001:db8:1::/48  1h30m  operator: abuse desk  -         operator  0\n"
	if got := data.String(); got != want {
		t.Errorf("table\n%s\nwant\n%s", got, want)
	}
}

func TestStatusOutput(t *testing.T) {
	var data bytes.Buffer
	s := api.Status{
		Version: "1.0", PID: 42, Started: time.Now(), Mode: "enforce", State: "/var/lib/nftsentry",
		Decoys: api.Decoys{Ports: 28, Listener: 1023, Connections: 1}, Blocks: api.Blocks{Live: 2, Made: 3, Unproven: 1, Ended: 1},
		Watched: api.Watched{TCP: 1010, UDP: 2, Served: 3, Probes: 7},
		Dropped: api.Dropped{Packets: 4, Bytes: 220}, Ignored: api.Ignored{Prefixes: 11}, Sandbox: api.Sandbox{Landlock: 7}, Problems: []string{"the disk is full"},
	}
	if err := (&output{data: &data}).status(s); err != nil {
		t.Fatal(err)
	}
	want := `nftsentry      1.0, process 42, up 0s
mode           enforce
configuration  built-in defaults
decoys         28 ports, led to port 1023; 1 connection noticed
watched        1010 ports of TCP and 2 of UDP, less 3 with a service; 7 probes noticed
blocked        2 sources now; 3 made (1 unproven) and 1 ended since the start
dropped        4 packets, 220 bytes
ignored        11 addresses and prefixes
state          /var/lib/nftsentry
sandbox        Landlock, ABI 7: no files but its own, and no programs
problem        the disk is full
`
	if got := data.String(); got != want {
		t.Errorf("status\n%s\nwant\n%s", got, want)
	}
}
