//go:build bench

package bench

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
)

// machineOnce has the first experiment tell of the machine.
var machineOnce sync.Once

// packages are Debian's, of the peers and of what scans and floods.
var packages = []string{
	"portsentry", "psad", "fail2ban", "sshguard", "crowdsec-firewall-bouncer", "ulogd2",
	"nftables", "iptables", "ipset", "nmap", "masscan", "zmap", "hping3", "iperf3",
}

// writeMachine tells what the figures were measured on, and with what.
func writeMachine(t testing.TB, file string) {
	t.Helper()
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := tabwriter.NewWriter(f, 0, 0, 2, ' ', 0)
	for _, line := range [][2]string{
		{"date", time.Now().UTC().Format(time.DateOnly)},
		{"processor", labelled(t, "/proc/cpuinfo", "model name")},
		{"cores", fmt.Sprint(runtime.NumCPU())},
		{"memory", memory(t)},
		{"kernel", kernel(t)},
		{"distribution", distribution()},
		{"Go", runtime.Version()},
	} {
		fmt.Fprintf(w, "%s\t%s\n", line[0], line[1])
	}
	for _, g := range all() {
		switch missing := g.absent(); {
		case len(missing) > 0:
			fmt.Fprintf(w, "%s\tleft out: %s not installed\n", g.name, strings.Join(missing, ", "))
		case g.version != nil && g.version(t) != "":
			fmt.Fprintf(w, "%s\t%s\n", g.name, g.version(t))
		}
	}
	for _, name := range packages {
		out, err := exec.Command("dpkg-query", "-W", "-f", "${Version}", name).Output()
		if err == nil && len(out) > 0 {
			fmt.Fprintf(w, "package %s\t%s\n", name, out)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
}

// labelled is what stands behind a label and a colon in a file of /proc.
func labelled(t testing.TB, file, label string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == label {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

func memory(t testing.TB) string {
	t.Helper()
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%.1f GiB", float64(info.Totalram)*float64(info.Unit)/(1<<30))
}

func kernel(t testing.TB) string {
	t.Helper()
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		t.Fatal(err)
	}
	return unix.ByteSliceToString(name.Release[:]) + " " + unix.ByteSliceToString(name.Machine[:])
}

func distribution() string {
	text, _ := os.ReadFile("/etc/os-release") // absent where nothing says
	for line := range strings.Lines(string(text)) {
		if name, ok := strings.CutPrefix(line, "PRETTY_NAME="); ok {
			return strings.Trim(strings.TrimSpace(name), `"`)
		}
	}
	return "unknown"
}
