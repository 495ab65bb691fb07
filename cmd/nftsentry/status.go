package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"nftsentry/conf"
	"nftsentry/controller/api"
)

func newStatus(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "status",
		Short:   "Show what the daemon is doing",
		Example: "  nftsentry status\n  nftsentry status --json | jq .blocks.live",
		Args:    arguments(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := o.client()
			if err != nil {
				return err
			}
			s, err := client.Status(cmd.Context())
			if err != nil {
				return err
			}
			if o.json {
				return o.out.json(s)
			}
			return o.out.status(s)
		},
	}
	return o.prints(o.asks(cmd))
}

func (o *output) status(s api.Status) error {
	config := s.Config
	if config == "" {
		config = "built-in defaults"
	}
	blocked := fmt.Sprintf("%s now; %d made (%d unproven) and %d ended since the start",
		plural(s.Blocks.Live, "source"), s.Blocks.Made, s.Blocks.Unproven, s.Blocks.Ended)
	if s.Mode == "panic" {
		blocked = fmt.Sprintf("nobody: %s suspended until \"nftsentry resume\"", plural(s.Blocks.Live, "block"))
	}
	if s.Mode == "suspended" {
		blocked = fmt.Sprintf("nobody: %s suspended until ignore.files can be read", plural(s.Blocks.Live, "block"))
	}
	if s.Mode == string(conf.Observe) {
		blocked = fmt.Sprintf("nobody: mode is observe; %d would have been", s.Blocks.Would)
	}
	mode := s.Mode
	if len(s.Logged) > 0 && s.Mode == string(conf.Enforce) {
		mode += fmt.Sprintf("; %s is only logged, and %d would have been blocked", strings.Join(s.Logged, " and "), s.Blocks.Would)
	}
	if len(s.Run) > 0 && s.Mode == string(conf.Enforce) {
		mode += fmt.Sprintf("; %s is left to the hooks, %d times so far", strings.Join(s.Run, " and "), s.Blocks.Ran)
	}
	rows := [][2]string{
		{"nftsentry", fmt.Sprintf("%s, process %d, up %s", s.Version, s.PID, conf.FormatDuration(time.Since(s.Started)))},
		{"mode", mode},
		{"configuration", config},
		{"decoys", fmt.Sprintf("%s, led to port %d; %s noticed", plural(s.Decoys.Ports, "port"), s.Decoys.Listener, plural(int(s.Decoys.Connections), "connection"))},
		{"watched", watched(s.Watched)},
		{"blocked", blocked},
		{"dropped", fmt.Sprintf("%d packets, %d bytes", s.Dropped.Packets, s.Dropped.Bytes)},
		{"ignored", ignored(s.Ignored)},
		{"state", s.State},
		{"sandbox", sandboxLine(s.Sandbox)},
	}
	if s.Service != nil {
		rows = append(rows, [2]string{"hooks", serviceLine(*s.Service)})
	}
	for _, h := range s.Hooks {
		rows = append(rows, [2]string{"hook", hookLine(h)})
	}
	for _, problem := range s.Problems {
		rows = append(rows, [2]string{"problem", problem})
	}
	return o.facts(rows)
}

func ignored(i api.Ignored) string {
	out := fmt.Sprintf("%d addresses and prefixes", i.Prefixes)
	if i.Files > 0 {
		out += fmt.Sprintf("; %s in %s", plural(i.Listed, "line"), plural(i.Files, "file"))
	}
	return out
}

func watched(w api.Watched) string {
	return fmt.Sprintf("%s of TCP and %d of UDP, less %d with a service; %s noticed",
		plural(w.TCP, "port"), w.UDP, w.Served, plural(int(w.Probes), "probe"))
}
