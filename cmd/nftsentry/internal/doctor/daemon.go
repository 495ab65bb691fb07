package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"

	"nftsentry/conf"
	"nftsentry/controller/api"
)

func (e *exam) checkConfig(context.Context) []Finding {
	return []Finding{judgeConfig(e.File, e.Mistakes)}
}

func judgeConfig(file string, mistakes error) Finding {
	const c check = "configuration"
	var wrong conf.Errors
	switch {
	case errors.As(mistakes, &wrong):
		return c.fail(fmt.Sprintf("mend what \"nftsentry check -c %s\" tells; the checks below are those of the defaults", file),
			"%s has %s, first: %v", file, plural(len(wrong), "mistake"), wrong[0])
	case errors.Is(mistakes, fs.ErrPermission):
		return c.fail("the checks below are those of the defaults until then", "%v", mistakes)
	case mistakes != nil:
		return c.fail("make the file readable; the checks below are those of the defaults", "%v", mistakes)
	case file == "":
		return c.ok("built-in defaults, as there is no %s", conf.DefaultPath)
	}
	return c.ok("%s is correct", file)
}

func (e *exam) checkIgnored(context.Context) []Finding {
	return judgeIgnored(len(e.Config.Ignore.Files), e.Ignored)
}

func judgeIgnored(files int, wrong []string) []Finding {
	const c check = "ignore"
	switch {
	case files == 0:
		return nil
	case len(wrong) > 0:
		return []Finding{c.fail("mend what \"nftsentry check\" tells as root; a daemon that starts now notices and blocks nothing until then",
			"ignore.files has %s, first: %s", plural(len(wrong), "mistake"), wrong[0])}
	}
	return []Finding{c.ok("%s of ignore.files can be read", plural(files, "file"))}
}

func (e *exam) checkHooks(context.Context) []Finding { return judgeHooks(e.Hooks, e.HooksErr) }

func judgeHooks(hooks int, err error) []Finding {
	const c check = "hooks"
	if hooks == 0 {
		return nil
	}
	wrong := []error{err}
	if all, ok := err.(interface{ Unwrap() []error }); ok {
		wrong = all.Unwrap()
	}
	var found []Finding
	for _, err := range wrong {
		if err != nil {
			found = append(found, c.fail("mend it, or take the hook out: the daemon does not start with it; what only root may read is looked at by root alone", "%v", err))
		}
	}
	if len(found) == 0 {
		return []Finding{c.ok("%s with all that it takes: programs and files are there, and can be changed by root alone", plural(hooks, "hook"))}
	}
	return found
}

func (e *exam) checkDaemon(context.Context) []Finding {
	return judgeDaemon(e.daemon, e.daemonErr, e.Version, e.Config.Control.Socket)
}

func judgeDaemon(s api.Status, err error, version, socket string) []Finding {
	const c check = "daemon"
	switch {
	case errors.Is(err, api.ErrNoDaemon):
		return []Finding{c.warn("start it with \"systemctl start nftsentry\" or \"nftsentry run\"", "not running: nobody answers on %s", socket)}
	case errors.Is(err, fs.ErrPermission):
		return []Finding{c.warn("run it as root, or as a member of control.group", "no right to ask on %s whether it is running and well", socket)}
	case err != nil:
		return []Finding{c.fail("look at control.socket, and whether the daemon is stopped", "%v", err)}
	}
	mode := s.Mode
	if mode == string(conf.Observe) {
		mode += ", which blocks nothing"
	}
	all := []Finding{c.ok("running (process %d), mode %s, with %s", s.PID, mode, plural(s.Blocks.Live, "block"))}
	if s.Version != version {
		all = append(all, c.warn("restart it with \"systemctl restart nftsentry\"", "it is version %s, and this program %s", s.Version, version))
	}
	for _, p := range s.Problems {
		all = append(all, c.warn("see its log", "%s", p))
	}
	if s.Mended > 0 {
		all = append(all, c.warn("its log has the name of the program that did it",
			"others have touched our table, which was made again %s", plural(int(s.Mended), "time")))
	}
	return all
}

func (e *exam) checkDecoys(context.Context) []Finding {
	const c check = "decoys"
	if e.servicesErr != nil {
		return []Finding{c.warn("see whether the kernel has inet_diag", "the services of this host cannot be found: %v", e.servicesErr)}
	}
	owned, taken := []conf.PortRange{}, map[uint16]bool{}
	for _, s := range e.services {
		if s.Protocol != unix.IPPROTO_TCP {
			continue
		}
		taken[s.Port] = true
		if conf.Contains(e.Config.TCP.Decoys(), s.Port) {
			owned = append(owned, conf.PortRange{First: s.Port, Last: s.Port})
		}
	}
	watched := append(e.Config.TCP.Watched(), e.Config.UDP.Watched()...)
	found := []Finding{judgeDecoys(e.Config.TCP.Decoys(), watched, owned)}
	if errors.Is(e.daemonErr, api.ErrNoDaemon) {
		found = append(found, judgeListener(e.Config.TCP, e.Hidden, taken)...)
	}
	return found
}

// judgeListener looks for a port for the decoy listener of a daemon that is yet to start, which it does not without.
func judgeListener(tcp conf.TCP, hidden conf.PortRange, taken map[uint16]bool) []Finding {
	const c check = "decoys"
	if tcp.Port != 0 {
		if taken[tcp.Port] {
			return []Finding{c.fail("set tcp.port to a free port, or to 0", "a service owns TCP port %d, where tcp.port has the decoy listener: the daemon does not start", tcp.Port)}
		}
		return nil
	}
	for port := hidden.First; port <= hidden.Last; port++ {
		if !taken[port] && !conf.Contains(tcp.Decoy, port) && !conf.Contains(tcp.Exclude, port) {
			return nil
		}
	}
	return []Finding{c.fail("set tcp.port to a free port", "all ports from %d to %d are in tcp.decoy or tcp.exclude, or a service owns them, so that none is left for the decoy listener: the daemon does not start",
		hidden.First, hidden.Last)}
}

func judgeDecoys(decoys, watched, owned []conf.PortRange) Finding {
	const c check = "decoys"
	switch {
	case len(decoys) == 0 && len(watched) == 0:
		return c.warn("name some in tcp.decoy or tcp.watch that tcp.exclude has not", "no decoys, and no watched ports either: nothing is ever noticed")
	case len(decoys) == 0:
		return c.ok("none, as configured: no evidence is proven, and all blocks are short")
	case len(owned) > 0:
		return c.ok("a service owns TCP port %s now, which is then no decoy; the others are", conf.FormatPorts(owned))
	}
	return c.ok("no service owns any of the ports")
}
