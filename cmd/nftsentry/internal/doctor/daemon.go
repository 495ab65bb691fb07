package doctor

import (
	"context"
	"errors"
	"fmt"

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
	case mistakes != nil:
		return c.fail("make the file readable; the checks below are those of the defaults", "%v", mistakes)
	case file == "":
		return c.ok("built-in defaults, as there is no %s", conf.DefaultPath)
	}
	return c.ok("%s is correct", file)
}

func (e *exam) checkDaemon(context.Context) []Finding {
	return judgeDaemon(e.daemon, e.daemonErr, e.Version, e.Config.Control.Socket)
}

func judgeDaemon(s api.Status, err error, version, socket string) []Finding {
	const c check = "daemon"
	switch {
	case errors.Is(err, api.ErrNoDaemon):
		return []Finding{c.warn("start it with \"systemctl start nftsentry\" or \"nftsentry run\"", "not running: nobody answers on %s", socket)}
	case err != nil:
		return []Finding{c.fail("look at control.socket, and whether the daemon is stopped", "%v", err)}
	}
	all := []Finding{c.ok("running (process %d), mode %s, with %s", s.PID, s.Mode, plural(s.Blocks.Live, "block"))}
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
	var owned []conf.PortRange
	for _, s := range e.services {
		if s.Protocol == unix.IPPROTO_TCP && conf.Contains(e.Config.TCP.Decoys(), s.Port) {
			owned = append(owned, conf.PortRange{First: s.Port, Last: s.Port})
		}
	}
	return []Finding{judgeDecoys(e.Config.TCP.Decoys(), owned)}
}

func judgeDecoys(decoys, owned []conf.PortRange) Finding {
	const c check = "decoys"
	switch {
	case len(decoys) == 0:
		return c.ok("none, as configured: no evidence is proven, and all blocks are short")
	case len(owned) > 0:
		return c.ok("a service owns TCP port %s now, which is then no decoy; the others are", conf.FormatPorts(owned))
	}
	return c.ok("no service owns any of the ports")
}
