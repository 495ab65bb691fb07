package doctor

import (
	"context"
	"os"

	"nftsentry/controller/host"
)

// guards are programs with a task like ours.
var guards = []struct {
	program  string
	conflict bool
	text     string
	advice   string
}{
	{"portsentry", true, "it watches the same ports: it owns them, so that we see none of its scans",
		"stop it for good, and take over its configuration with \"nftsentry import\""},
	{"fail2ban-server", false, "it blocks by log files, which is another task; it may read portsentry.history of ours, too", ""},
	{"psad", false, "it finds scans in the log of iptables, later than we do; both may block the same source", ""},
	{"crowdsec", false, "it blocks by log files and by lists of others; both may block the same source", ""},
	{"sshguard", false, "it blocks by log files, which is another task", ""},
}

func (e *exam) checkGuards(context.Context) []Finding {
	processes, err := e.proc.Processes()
	if err != nil {
		return []Finding{check("guard").warn("see whether /proc can be read", "other guards cannot be looked for: %v", err)}
	}
	_, err = os.Stat("/proc/1") // that of others is hidden by the mount option hidepid
	return judgeGuards(processes, err == nil)
}

func judgeGuards(processes []host.Process, all bool) []Finding {
	const c check = "guard"
	var found []Finding
	for _, g := range guards {
		for _, p := range processes {
			if !p.Runs(g.program) {
				continue
			}
			if g.conflict {
				found = append(found, c.warn(g.advice, "%s is running (process %d): %s", g.program, p.PID, g.text))
			} else {
				found = append(found, c.ok("%s is running (process %d): %s", g.program, p.PID, g.text))
			}
			break
		}
	}
	switch {
	case len(found) > 0:
		return found
	case !all:
		return []Finding{c.warn("run it as root", "other guards cannot be looked for: processes of others are hidden")}
	}
	return []Finding{c.ok("no other guard is running")}
}
