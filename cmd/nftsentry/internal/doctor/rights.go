package doctor

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"nftsentry/nft"
)

// rights are those of the caller that matter.
type rights struct {
	uid         int
	admin, bind bool // CAP_NET_ADMIN, CAP_NET_BIND_SERVICE
	err         error
}

func ownRights() rights {
	r := rights{uid: unix.Geteuid()}
	var data [2]unix.CapUserData
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	r.err = unix.Capget(&header, &data[0])
	has := func(n int) bool { return r.err == nil && data[n/32].Effective&(1<<(n%32)) != 0 }
	r.admin, r.bind = has(unix.CAP_NET_ADMIN), has(unix.CAP_NET_BIND_SERVICE)
	return r
}

func (e *exam) checkRights(context.Context) []Finding { return []Finding{judgeRights(e.rights)} }

func judgeRights(r rights) Finding {
	const c check = "rights"
	who := fmt.Sprintf("user %d", r.uid)
	if r.uid == 0 {
		who = "root"
	}
	const advice = "run it as root, such as with sudo"
	switch {
	case r.err != nil:
		return c.fail(advice, "the own capabilities cannot be read: %v", r.err)
	case !r.admin:
		return c.fail(advice, "%s without CAP_NET_ADMIN: the kernel's features, the table, other firewalls and NFLOG were not looked at", who)
	case !r.bind:
		return c.fail(advice+", or with CAP_NET_BIND_SERVICE", "%s without CAP_NET_BIND_SERVICE: the decoy listener needs a port below 1024", who)
	}
	return c.ok("%s, with CAP_NET_ADMIN and CAP_NET_BIND_SERVICE", who)
}

func (e *exam) checkKernel(context.Context) []Finding {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return nil // there is no such kernel
	}
	return []Finding{judgeKernel(unix.ByteSliceToString(u.Release[:]))}
}

// oldest is the oldest kernel on which nftsentry was tried.
var oldest = [2]int{6, 1}

func judgeKernel(release string) Finding {
	const c check = "kernel"
	parts := strings.SplitN(release, ".", 3)
	var v [2]int
	for i := range min(len(parts), 2) {
		v[i], _ = strconv.Atoi(strings.TrimRightFunc(parts[i], func(r rune) bool { return r < '0' || r > '9' }))
	}
	if v[0] < oldest[0] || v[0] == oldest[0] && v[1] < oldest[1] {
		return c.warn(fmt.Sprintf("try it with \"nftsentry selftest\", or use Linux %d.%d or later", oldest[0], oldest[1]),
			"Linux %s is older than any that nftsentry was tried on", release)
	}
	return c.ok("Linux %s", release)
}

// checkFeatures tries what the table needs, one by one, and then all of the table, in transactions that are thrown away.
func (e *exam) checkFeatures(context.Context) []Finding {
	const c check = "feature"
	if !e.rights.admin {
		return nil
	}
	table, err := nft.Open(0, e.Config.Block.Prefix6)
	if err != nil {
		return []Finding{c.fail("use a kernel with nf_tables", "nftables cannot be opened: %v", err)}
	}
	features, err := table.Features()
	var whole error
	if err == nil {
		whole = table.Check(e.Table(anyPort))
	}
	if err = errors.Join(err, table.Close()); err != nil {
		return []Finding{c.fail("run it as root of this network namespace", "the kernel does not say what it can do: %v", err)}
	}
	return judgeFeatures(features, whole)
}

// anyPort stands for the decoy listener's.
const anyPort = 1023

func judgeFeatures(features []nft.Feature, whole error) []Finding {
	const c check = "feature"
	var all []Finding
	for _, f := range features {
		if f.Err != nil {
			all = append(all, c.fail(fmt.Sprintf("load the module %s (modprobe %s), or use a kernel that has it", f.Module, f.Module),
				"%s: the kernel refuses: %v", f.Name, f.Err))
			continue
		}
		all = append(all, c.ok("%s", f.Name))
	}
	if whole != nil {
		return append(all, c.fail("report this with the output of \"nftsentry doctor\"", "the whole table: %v", whole))
	}
	return append(all, c.ok("the whole table of this configuration"))
}
