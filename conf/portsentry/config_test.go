package portsentry

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// full is a file of 1.2 with all that it needs.
const full = `# PortSentry Configuration
TCP_PORTS="1,11,79,12345,12346"
UDP_PORTS="1,7,9"
ADVANCED_PORTS_TCP="1024"
ADVANCED_PORTS_UDP="512"
ADVANCED_EXCLUDE_TCP="139,113"
IGNORE_FILE="/etc/portsentry/portsentry.ignore"
HISTORY_FILE="/var/lib/portsentry/portsentry.history"
BLOCKED_FILE="/var/lib/portsentry/portsentry.blocked"
RESOLVE_HOST = "0"
BLOCK_UDP="0"
BLOCK_TCP="1"
KILL_ROUTE="/sbin/route add -host $TARGET$ reject"
KILL_RUN_CMD_FIRST = "1"
KILL_RUN_CMD="/some/script $TARGET$ $PORT$ $MODE$"
SCAN_TRIGGER="2"
`

func TestConfig1(t *testing.T) {
	c, err := ParseConfig("portsentry.conf", []byte(full), 0)
	if err != nil {
		t.Fatal(err)
	}
	want := &Config{
		File: "portsentry.conf", Version: V1, Settings: c.Settings,
		TCPPorts: []uint16{1, 11, 79, 12345, 12346}, UDPPorts: []uint16{1, 7, 9}, ExcludeTCP: []uint16{113, 139},
		FirstTCP: 1024, FirstUDP: 512, BlockTCP: 1, Trigger: 2, CommandFirst: true,
	}
	if diff := cmp.Diff(want, c); diff != "" {
		t.Errorf("config (-want +got):\n%s", diff)
	}
	if want := (Setting{"KILL_RUN_CMD", "/some/script $TARGET$ $PORT$ $MODE$", 15}); c.Settings["KILL_RUN_CMD"] != want {
		t.Errorf("KILL_RUN_CMD is %v, want %v", c.Settings["KILL_RUN_CMD"], want)
	}
	if len(c.Settings) != 15 {
		t.Errorf("%d settings, want 15", len(c.Settings))
	}
}

func TestConfig2(t *testing.T) {
	c, err := ParseConfig("portsentry.conf", []byte("TCP_PORTS=\"20,7-9,8\"\r\nBLOCK_TCP = \"2\"\r\n"), 0)
	if err != nil {
		t.Fatal(err)
	}
	want := &Config{
		File: "portsentry.conf", Version: V2, Settings: c.Settings, TCPPorts: []uint16{7, 8, 9, 20}, BlockTCP: 2,
		FirstTCP: 1024, FirstUDP: 1024,
	}
	if diff := cmp.Diff(want, c); diff != "" {
		t.Errorf("config (-want +got):\n%s", diff)
	}
}

// TestMistakes has each mistake with its message.
func TestMistakes(t *testing.T) {
	const one, two = "ADVANCED_PORTS_TCP=\"1024\"\n", "SCAN_TRIGGER=\"0\"\n"
	long := `PORT_BANNER="` + strings.Repeat("x", 1100) + `"`
	for name, tt := range map[string]struct{ text, want string }{
		"no quotes":        {one + "SCAN_TRIGGER=2", `f:2: SCAN_TRIGGER: the value is not in double quotes, so that Portsentry skips it: write SCAN_TRIGGER="2"`},
		"single quotes":    {one + "SCAN_TRIGGER='2'", `f:2: SCAN_TRIGGER: the value is not in double quotes, so that Portsentry skips it: write SCAN_TRIGGER="2"`},
		"open quote":       {one + `SCAN_TRIGGER="2`, `f:2: SCAN_TRIGGER: the quote at the end is missing: write SCAN_TRIGGER="2"`},
		"no equals":        {one + `SCAN_TRIGGER`, `f:2: SCAN_TRIGGER: no "=" after the key: write SCAN_TRIGGER="..."`},
		"blank in ports":   {one + `TCP_PORTS="1, 2"`, `f:2: TCP_PORTS: item 2 is " 2": Portsentry allows no blanks in a list, take them out`},
		"range in 1.2":     {one + `TCP_PORTS="1,10-20"`, `f:2: TCP_PORTS: item 2 is "10-20": Portsentry 1.2 knows no ranges and watched port 10 alone: write the ports one by one`},
		"port too high":    {one + `UDP_PORTS="65536"`, `f:2: UDP_PORTS: item 1 is "65536": not a port from 1 to 65535`},
		"port 0":           {two + `UDP_PORTS="0"`, `f:2: UDP_PORTS: item 1 is "0": not a port from 1 to 65535`},
		"no port":          {two + `UDP_PORTS="ssh"`, `f:2: UDP_PORTS: item 1 is "ssh": not a port from 1 to 65535`},
		"empty item":       {two + `TCP_PORTS="1,,2"`, `f:2: TCP_PORTS: item 2 is empty: there is a comma too many`},
		"reversed":         {two + `TCP_PORTS="9-7"`, `f:2: TCP_PORTS: item 1 is "9-7": the range is reversed`},
		"half a range":     {two + `TCP_PORTS="9-"`, `f:2: TCP_PORTS: item 1 is "9-": not a port from 1 to 65535`},
		"no number":        {one + `SCAN_TRIGGER="two"`, `f:2: SCAN_TRIGGER = "two": not a whole number, such as "0"`},
		"too many ports":   {`ADVANCED_PORTS_TCP="65537"`, `f:1: ADVANCED_PORTS_TCP = "65537": there are ports up to 65535 only`},
		"relative path":    {two + `IGNORE_FILE="ignore"`, `f:2: IGNORE_FILE = "ignore": not an absolute path, which begins with "/"`},
		"choice in 2.x":    {two + `BLOCK_TCP="3"`, `f:2: BLOCK_TCP = "3": allowed is "0" to "2"`},
		"unknown in 2.x":   {two + `BLOCK_TPC="1"`, `f:2: BLOCK_TPC: Portsentry 2.x knows no such key and does not start with it: take the line out`},
		"lower in 2.x":     {two + `block_tcp="1"`, `f:2: block_tcp: Portsentry 2.x knows no such key and does not start with it: keys are in capitals, such as BLOCK_TCP: take the line out`},
		"indented in 2.x":  {two + ` BLOCK_TCP="1"`, `f:2: BLOCK_TCP: the line begins with a blank, and Portsentry 2.x does not start with it: take the blank out`},
		"twice in 2.x":     {two + two, `f:2: SCAN_TRIGGER: a second time, after line 1: leave the one that you mean`},
		"empty in 2.x":     {two + `KILL_ROUTE=""`, `f:2: KILL_ROUTE: no value, and Portsentry 2.x does not start without one: put a # before the line`},
		"stray in 2.x":     {two + `= "1"`, `f:2: "= \"1\"" sets nothing: put a # before it, or take it out`},
		"long line":        {one + long, `f:2: 1114 bytes long, and Portsentry reads 1022 of a line: make it shorter`},
		"letters of 8 bit": {one + `PORT_BANNER="go, é"`, `f:2: PORT_BANNER: a character that Portsentry 1.2 cannot read, behind "go, ": take it out`},
		"tab in value":     {two + "PORT_BANNER=\"go\tnow\"", `f:2: PORT_BANNER: a character that Portsentry 2.x cannot read, behind "go": take it out`},
		"no text":          {"\n\x7fELF\x00", "f:2: a NUL byte: this is no text, name the file that Portsentry reads"},
		"latin 1":          {"# \xe9\n", "f:1: the byte 0xe9 is not UTF-8: write this line in ASCII"},
		"all at once": {one + "SCAN_TRIGGER=2\nTCP_PORTS=\"x\"\nBLOCK_TCP=1",
			`f:2: SCAN_TRIGGER: the value is not in double quotes, so that Portsentry skips it: write SCAN_TRIGGER="2"` + "\n" +
				`f:3: TCP_PORTS: item 1 is "x": not a port from 1 to 65535` + "\n" +
				`f:4: BLOCK_TCP: the value is not in double quotes, so that Portsentry skips it: write BLOCK_TCP="1"`},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := ParseConfig("f", []byte(tt.text), 0)
			if err == nil {
				t.Fatalf("no mistake in %+v", c)
			}
			if diff := cmp.Diff(tt.want, err.Error()); diff != "" {
				t.Errorf("message (-want +got):\n%s", diff)
			}
		})
	}
}

// TestVersionTold shows what a version that is told makes of a key that it does not know.
func TestVersionTold(t *testing.T) {
	_, err := ParseConfig("f", []byte("ADVANCED_PORTS_TCP=\"1\"\n"), V2)
	want := "f:1: ADVANCED_PORTS_TCP: only Portsentry 1.2 knows this key, and 2.x does not start with it: take it out, or leave out --mode"
	if err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	if c, err := ParseConfig("f", []byte("BLOCK_TPC=\"1\"\n"), V1); err != nil || c.Version != V1 {
		t.Errorf("%+v, %v", c, err)
	}
}

// TestTraps has each thing that 1.2 read in another way than it was meant.
func TestTraps(t *testing.T) {
	for name, tt := range map[string]struct{ line, want, key, value string }{
		"indented":    {` BLOCK_UDP="1"`, `BLOCK_UDP: the line begins with a blank, so that Portsentry 1.2 never read the line: it does not count here either; take the blank out if it shall`, "BLOCK_UDP", "0"},
		"tab":         {"PORT_BANNER\t=\"x\"", `PORT_BANNER: a tab follows the key, so that Portsentry 1.2 never read the line: it does not count here either; take the blank out if it shall`, "PORT_BANNER", ""},
		"unknown":     {`BLOCK_TPC="1"`, `BLOCK_TPC: Portsentry 1.2 knows no such key and passed over it`, "BLOCK_TPC", ""},
		"lower case":  {`port_banner="x"`, `port_banner: Portsentry 1.2 knows no such key and passed over it: keys are in capitals, such as PORT_BANNER`, "PORT_BANNER", ""},
		"twice":       {`BLOCK_TCP="2"`, `BLOCK_TCP: a second time, and Portsentry 1.2 read line 12 only: this one does not count here either`, "BLOCK_TCP", "1"},
		"tail":        {`PORT_BANNER="say "no""`, `PORT_BANNER: a value ends at its second quote, so that Portsentry read "say " without "no\"\"": write single quotes inside of a value`, "PORT_BANNER", "say "},
		"no target":   {`KILL_HOSTS_DENY="ALL: ALL"`, `KILL_HOSTS_DENY has no $TARGET$, so that Portsentry never did it`, "KILL_HOSTS_DENY", ""},
		"sets naught": {`!`, `"!" sets nothing: Portsentry 1.2 passed over it`, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := ParseConfig("f", []byte(full+tt.line+"\n"), 0)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]Trap{{"f", 17, tt.want}}, c.Traps); diff != "" {
				t.Errorf("traps (-want +got):\n%s", diff)
			}
			if got := c.Get(tt.key); got != tt.value {
				t.Errorf("%s = %q, want %q", tt.key, got, tt.value)
			}
		})
	}
}

// TestTrapsOfValues are those that 1.2 makes of a value as a whole.
func TestTrapsOfValues(t *testing.T) {
	many := "TCP_PORTS=\"1" + strings.Repeat(",2", 64) + "\"\n"
	text := "ADVANCED_PORTS_TCP=\"1\"\n" + many + "SCAN_TRIGGER=\"51\"\nBLOCK_TCP=\"yes\"\nKILL_RUN_CMD_FIRST=\"2\"\n"
	c, err := ParseConfig("f", []byte(text), 0)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, trap := range c.Traps {
		got = append(got, trap.String())
	}
	want := []string{
		"f: IGNORE_FILE is missing: Portsentry 1.2 does not start without it",
		"f: HISTORY_FILE is missing: Portsentry 1.2 does not start without it",
		"f: BLOCKED_FILE is missing: Portsentry 1.2 does not start without it",
		"f:2: TCP_PORTS has 65 ports, of which Portsentry 1.2 watched the first 64: all count here",
		`f:3: SCAN_TRIGGER = "51": Portsentry 1.2 counts to 50, so that it fired at the first hit`,
		`f:4: BLOCK_TCP = "yes": allowed is "0" to "2", and Portsentry 1.2 took this for "0"`,
		`f:5: KILL_RUN_CMD_FIRST = "2": allowed is "0" to "1", and Portsentry 1.2 took this for "0"`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("traps (-want +got):\n%s", diff)
	}
	if c.Trigger != 0 || c.BlockTCP != 0 || c.CommandFirst {
		t.Errorf("%+v", c)
	}
}

// TestReportedBound shows that a file which is none of Portsentry's is not told of line by line for ever.
func TestReportedBound(t *testing.T) {
	_, err := ParseConfig("f", []byte(strings.Repeat("x\n", 5000)), V2)
	if errs, ok := err.(Errors); !ok || len(errs) != maxReported {
		t.Errorf("%T of %d, want %d", err, len(errs), maxReported)
	}
}

func TestModes(t *testing.T) {
	for name, tt := range map[string]struct {
		text     string
		tcp, udp string
		line     int
		err      string
	}{
		"as installed": {"# modes\nTCP_MODE=\"tcp\"\nUDP_MODE=\"udp\"\n", "tcp", "udp", 2, ""},
		"bare":         {"TCP_MODE=atcp # fast\n export UDP_MODE='audp';\n", "atcp", "audp", 1, ""},
		"none":         {"TCP_MODE=\nUDP_MODE=\"\"\n", "", "", 1, ""},
		"last counts":  {"TCP_MODE=tcp\nTCP_MODE=stcp\nOTHER=1\n. /etc/x", "stcp", "", 2, ""},
		"no mode":      {"TCP_MODE=udp\nUDP_MODE=x\n", "", "", 0, "d:1: TCP_MODE = \"udp\": not a valid mode, with which Portsentry does not start: write \"tcp\", \"stcp\", \"atcp\" or \"\", which is none\nd:2: UDP_MODE = \"x\": not a valid mode, with which Portsentry does not start: write \"udp\", \"sudp\", \"audp\" or \"\", which is none"},
		"shell":        {"[ -f /x ] && TCP_MODE=tcp\n", "", "", 0, `d:1: TCP_MODE: this line does more than to set it: write TCP_MODE="..." alone`},
		"no text":      {"\x00", "", "", 0, "d:1: a NUL byte: this is no text, name the file that Portsentry reads"},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := ParseDefault("d", []byte(tt.text))
			if got := text(err); got != tt.err {
				t.Fatalf("error\n%s\nwant\n%s", got, tt.err)
			}
			if m.TCP.Value != tt.tcp || m.UDP.Value != tt.udp || m.TCP.Line != tt.line {
				t.Errorf("%+v, want %s in line %d and %s", m, tt.tcp, tt.line, tt.udp)
			}
		})
	}
}

// text is an error's, "" for none.
func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
