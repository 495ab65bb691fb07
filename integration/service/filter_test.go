package service

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/sys/unix"

	"nftsentry/integration/netns"
)

// filterEnv has this program play the part of the service manager that needs to be process 1: it holds the system
// calls that the unit lets pass, and the families of addresses, as JSON. What follows on the command line is then run.
const filterEnv = "NFTSENTRY_TEST_FILTER"

// A filtering is what a unit says of system calls.
type filtering struct{ Calls, Families []string }

const unitFile = "../../contrib/systemd/nftsentry.service"

// unit has the values of each key of a unit, in their order.
func unit(t *testing.T) map[string][]string {
	t.Helper()
	data, err := os.ReadFile(unitFile)
	must(t, err)
	out := make(map[string][]string)
	for line := range strings.Lines(string(data)) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if ok && !strings.HasPrefix(key, "#") {
			out[key] = append(out[key], value)
		}
	}
	return out
}

// sets are systemd's sets of system calls, by their names.
func sets(t *testing.T) map[string][]string {
	t.Helper()
	out, err := exec.Command(netns.Tool(t, "systemd-analyze"), "--no-pager", "syscall-filter").Output()
	must(t, err)
	all, name := make(map[string][]string), ""
	for line := range strings.Lines(string(out)) {
		switch text := strings.TrimSpace(line); {
		case strings.HasPrefix(line, "@"):
			name = text
		case strings.HasPrefix(line, " ") && text != "" && !strings.HasPrefix(text, "#"):
			all[name] = append(all[name], text)
		}
	}
	return all
}

// filterOf is what the unit lets pass, by the rules of SystemCallFilter= in systemd.exec(5): the first line begins a
// list of what may pass.
func filterOf(t *testing.T) filtering {
	t.Helper()
	u, known := unit(t), sets(t)
	var expand func(string) []string
	expand = func(name string) (out []string) {
		if !strings.HasPrefix(name, "@") {
			return []string{name}
		}
		if len(known[name]) == 0 {
			t.Errorf("SystemCallFilter=%s: there is no such set", name)
		}
		for _, member := range known[name] {
			out = append(out, expand(member)...)
		}
		return out
	}
	pass := make(map[string]bool)
	for _, name := range known["@default"] {
		pass[name] = true
	}
	for _, line := range u["SystemCallFilter"] {
		names, deny := strings.CutPrefix(line, "~")
		for _, name := range strings.Fields(names) {
			for _, call := range expand(name) {
				pass[call] = !deny
			}
		}
	}
	f := filtering{Families: strings.Fields(u["RestrictAddressFamilies"][0])}
	for call, passes := range pass {
		if passes {
			f.Calls = append(f.Calls, call)
		}
	}
	slices.Sort(f.Calls)
	return f
}

var families = map[string]uint64{
	"AF_UNIX": unix.AF_UNIX, "AF_INET": unix.AF_INET, "AF_INET6": unix.AF_INET6, "AF_NETLINK": unix.AF_NETLINK,
}

// filter puts this process behind a filter of system calls, and then has it become the program of a command line. It
// returns only an error.
func filter(command []string) error {
	runtime.LockOSThread()
	var f filtering
	if err := json.Unmarshal([]byte(os.Getenv(filterEnv)), &f); err != nil {
		return err
	}
	if err := os.Unsetenv(filterEnv); err != nil {
		return err
	}
	info, err := arch.GetInfo("")
	if err != nil {
		return err
	}
	own := map[string]bool{"socket": true, "mmap": true, "mprotect": true, "pkey_mprotect": true, "unshare": true, "setns": true}
	pass := seccomp.SyscallGroup{Action: seccomp.ActionAllow}
	for _, call := range f.Calls {
		if _, here := info.SyscallNames[call]; here && !own[call] {
			pass.Names = append(pass.Names, call)
		}
	}
	pass.NamesWithCondtions = conditions(f.Families)
	return become(seccomp.Policy{DefaultAction: seccomp.ActionErrno, Syscalls: []seccomp.SyscallGroup{pass}}, command)
}

// conditions are RestrictAddressFamilies= and MemoryDenyWriteExecute= of systemd.exec(5).
func conditions(allowed []string) []seccomp.NameWithConditions {
	var out []seccomp.NameWithConditions
	pass := func(call string, argument uint32, op seccomp.Operation, value uint64) {
		out = append(out, seccomp.NameWithConditions{
			Name: call, Conditions: seccomp.ArgumentConditions{{Argument: argument, Operation: op, Value: value}},
		})
	}
	for _, family := range allowed {
		pass("socket", 0, seccomp.Equal, families[family])
	}
	const protection = 2
	pass("mmap", protection, seccomp.BitsNotSet, unix.PROT_EXEC)
	pass("mmap", protection, seccomp.BitsNotSet, unix.PROT_WRITE)
	pass("mprotect", protection, seccomp.BitsNotSet, unix.PROT_EXEC)
	return out
}

func become(policy seccomp.Policy, command []string) error {
	err := seccomp.LoadFilter(seccomp.Filter{NoNewPrivs: true, Flag: seccomp.FilterFlagTSync, Policy: policy})
	if err != nil {
		return fmt.Errorf("load the filter: %w", err)
	}
	return fmt.Errorf("become %s: %w", command[0], unix.Exec(command[0], command, os.Environ()))
}

// asUnit is the command that becomes a daemon with the user, the rights and the system calls that the unit gives it.
func asUnit(t *testing.T) (wrap, env []string) {
	t.Helper()
	calls, err := json.Marshal(filterOf(t))
	must(t, err)
	self, err := os.Executable()
	must(t, err)
	passable(t, self)
	return append(asGuard(t), self), []string{filterEnv + "=" + string(calls)}
}

// asGuard is the command that becomes a daemon with the user and the rights that the unit gives it.
func asGuard(t *testing.T) []string {
	t.Helper()
	u := unit(t)
	names := func(key string) string {
		out := "-all"
		for _, name := range strings.Fields(u[key][0]) {
			out += ",+" + strings.ToLower(strings.TrimPrefix(name, "CAP_"))
		}
		return out
	}
	return []string{
		netns.Tool(t, "setpriv"), fmt.Sprintf("--reuid=%d", guardUser), fmt.Sprintf("--regid=%d", guardUser), "--clear-groups", "--no-new-privs",
		"--bounding-set=" + names("CapabilityBoundingSet"), "--inh-caps=" + names("AmbientCapabilities"), "--ambient-caps=" + names("AmbientCapabilities"),
	}
}
