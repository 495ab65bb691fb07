package packages

import (
	"strings"
	"testing"

	"nftsentry/integration/netns"
)

// TestPackagesLogin shows which address the first installation has ignored.
func TestPackagesLogin(t *testing.T) {
	r := newRoot(t, netns.New(t, "server"), false)
	r.must("dpkg", "-i", r.bring(built(t, "new", "deb")))
	header := string(read(t, r.path("etc/nftsentry/ignore")))
	const setup = "/usr/libexec/nftsentry/setup"
	connection := func(address string) []string { return []string{"SSH_CONNECTION=" + address + " 50000 10.9.0.2 22"} }
	without := []string{"env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", setup, "welcome"} // as by sudo
	direct := []string{setup, "welcome"}
	for _, tt := range []struct {
		name    string
		env     []string
		who     string // what who(1) says
		command []string
		want    string // "" for nothing
	}{
		{"IPv4", connection("192.0.2.7"), "", direct, "192.0.2.7"},
		{"SSH_CLIENT", []string{"SSH_CLIENT=192.0.2.8 50000 22"}, "", direct, "192.0.2.8"},
		{"IPv6", connection("2001:db8::7"), "", direct, "2001:db8::7"},
		{"zone", connection("fe80::1%eth0"), "", direct, "fe80::1"},
		{"mapped", connection("::ffff:192.0.2.7"), "", direct, "192.0.2.7"},
		{"mapped, capital letters", connection("::FFFF:192.0.2.7"), "", direct, "192.0.2.7"},
		{"mapped, in hexadecimal", connection("::ffff:c000:207"), "", direct, "::ffff:c000:207"}, // read as 192.0.2.7
		{"no login", nil, "", direct, ""},
		{"by this host itself", connection("127.0.0.1"), "", direct, ""},
		{"by this host itself, IPv6", connection("::1"), "", direct, ""},
		{"by this host itself, mapped", connection("::ffff:127.0.0.1"), "", direct, ""},
		{"no address", connection("UNKNOWN"), "", direct, ""},
		{"no address, though it looks like one", connection("192.0.2.700"), "", direct, ""},
		{"an address in pieces", connection("2001:db8::7::8"), "", direct, ""},
		{"sudo", connection("192.0.2.9"), "", append([]string{"sh", "-c", `"$@"; :`, "sh"}, without...), "192.0.2.9"},
		{"who", nil, "root  pts/0  2026-11-24 18:09 (192.0.2.10)", direct, "192.0.2.10"},
		{"who, IPv6", nil, "root  pts/0  2026-11-24 18:09 (fe80::2%eth0)", direct, "fe80::2"},
		{"who, a name", nil, "root  pts/0  2026-11-24 18:09 (client.example.net)", direct, ""},
		{"who, tmux", nil, "root  pts/0  2026-11-24 18:09 (tmux(7).%0)", direct, ""},
		{"who, a screen", nil, "root  tty1  2026-11-24 18:09 (:0)", direct, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r.write("etc/nftsentry/ignore", header, 0o644)
			r.write("usr/local/bin/who", "#!/bin/sh\necho '"+tt.who+"'\n", 0o755)
			said := r.mustAs(tt.env, tt.command...)
			added, found := strings.CutPrefix(string(read(t, r.path("etc/nftsentry/ignore"))), header)
			switch {
			case !found:
				t.Errorf("the file is another: %s", added)
			case tt.want == "":
				if added != "" || said != "" {
					t.Errorf("added %q, said %q, want nothing", added, said)
				}
			default:
				if !strings.HasPrefix(added, tt.want+" # logged in from here when nftsentry was installed") || strings.Count(added, "\n") != 1 {
					t.Errorf("added %q, want %s", added, tt.want)
				}
				expectWords(t, said, tt.want+", from which you are logged in, is never blocked", "delete its line in /etc/nftsentry/ignore")
				if r.mustAs(tt.env, tt.command...) != "" || !strings.HasSuffix(string(read(t, r.path("etc/nftsentry/ignore"))), header+added) {
					t.Error("done again, it adds a line again")
				}
			}
			if out, err := r.try(nil, "nftsentry", "check"); err != nil {
				t.Errorf("check: %v\n%s", err, out)
			}
		})
	}
}

// TestPackagesFirst shows what else may be on a host at the first installation.
func TestPackagesFirst(t *testing.T) {
	r := newRoot(t, netns.New(t, "server"), false)
	r.write("etc/nftsentry/ignore", "198.51.100.1", 0o600) // without a newline
	r.write("usr/local/psionic/portsentry/portsentry.conf", "", 0o644)
	said := r.mustAs([]string{"SSH_CONNECTION=192.0.2.7 50000 10.9.0.2 22"}, "dpkg", "-i", r.bring(built(t, "new", "deb")))
	expectWords(t, said, "nftsentry import /usr/local/psionic/portsentry/portsentry.conf --diff")
	if got := string(read(t, r.path("etc/nftsentry/ignore"))); !strings.HasPrefix(got, "198.51.100.1\n192.0.2.7 # ") {
		t.Errorf("the file of ignored sources: %q", got)
	}
	r.write("etc/nftsentry/nftsentry.toml", "[ignore]\nfiles = []\n", 0o644)
	said = r.mustAs([]string{"SSH_CONNECTION=192.0.2.8 50000 10.9.0.2 22"}, "/usr/libexec/nftsentry/setup", "welcome")
	expectWords(t, said, `add "/etc/nftsentry/ignore" to ignore.files`)
}
