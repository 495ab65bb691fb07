package doctor

import (
	"context"

	"nftsentry/cmd/nftsentry/internal/sandbox"
	"nftsentry/controller/api"
)

func (e *exam) checkSandbox(context.Context) []Finding {
	abi, err := sandbox.ABI()
	return []Finding{judgeSandbox(e.daemon.Sandbox, e.running(), abi, err)}
}

// fullABI is the first version of Landlock's interface that covers all that is done to files.
const fullABI = 5

// judgeSandbox looks at the sandbox of the daemon, or at what the kernel has for it.
func judgeSandbox(s api.Sandbox, running bool, abi int, err error) Finding {
	const c check = "sandbox"
	const newer = "use Linux 6.10 or later, which restricts devices too; all else is as well guarded"
	switch {
	case err != nil:
		return c.warn("use a kernel with it (CONFIG_SECURITY_LANDLOCK, and landlock in lsm= of its command line); the rights of its user are all that keeps the daemon from files", "%v", err)
	case running && s.Landlock == 0:
		return c.warn("let hooks run in a process of their own, as nftsentry-hook.service does", "the daemon has all files of its user: %s", s.Reason)
	case running && s.Landlock < fullABI:
		return c.warn(newer, "the daemon has no files but its own (Landlock, ABI %d)", s.Landlock)
	case running:
		return c.ok("the daemon has no files but its own (Landlock, ABI %d)", s.Landlock)
	}
	return c.ok("Landlock, ABI %d, is there for the daemon", abi)
}
