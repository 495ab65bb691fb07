package hook

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"mime/quotedprintable"
	"net"
	netmail "net/mail"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
)

// A fakeServer is a mail server that does what a test says.
type fakeServer struct {
	addr string

	mu       sync.Mutex
	received []string
	commands []string
}

// behaviour is how a fakeServer differs from a good one.
type behaviour struct {
	greeting string        // "220 fake" if empty
	slow     time.Duration // between two bytes
	dropData bool
	garbage  bool // in place of the TLS handshake
	endless  bool // a line without end
	silent   bool
	tls      *tls.Config
	implicit bool
	rcpt     string // "250 ok" if empty
	refuse   string // a recipient
	quit     bool   // drop the connection after DATA
}

// serve runs a fakeServer until the test ends.
func serve(t testing.TB, b behaviour) *fakeServer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &fakeServer{addr: l.Addr().String()}
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				defer context.AfterFunc(ctx, func() { conn.Close() })()
				f.talk(conn, b)
			})
		}
	})
	t.Cleanup(func() {
		cancel()
		l.Close()
		wg.Wait()
	})
	return f
}

// talk is one conversation.
func (f *fakeServer) talk(conn net.Conn, b behaviour) {
	if b.implicit {
		conn = tls.Server(conn, b.tls)
	}
	r := bufio.NewReader(conn)
	say := func(s string) bool {
		if b.slow == 0 {
			_, err := io.WriteString(conn, s+"\r\n")
			return err == nil
		}
		for i := range s {
			time.Sleep(b.slow)
			if _, err := io.WriteString(conn, s[i:i+1]); err != nil {
				return false
			}
		}
		_, err := io.WriteString(conn, "\r\n")
		return err == nil
	}
	if b.silent {
		_, _ = io.Copy(io.Discard, conn)
	}
	if b.endless {
		for {
			if _, err := conn.Write(bytes.Repeat([]byte("x"), 4096)); err != nil {
				return
			}
		}
	}
	if !say(or(b.greeting, "220 fake")) {
		return
	}
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		f.mu.Lock()
		f.commands = append(f.commands, strings.TrimSpace(line))
		f.mu.Unlock()
		verb, _, _ := strings.Cut(strings.ToUpper(strings.TrimSpace(line)), " ")
		switch verb {
		case "EHLO":
			answer := "250-fake\r\n250 8BITMIME"
			if _, secure := conn.(*tls.Conn); b.tls != nil {
				answer = "250-fake\r\n250-AUTH PLAIN LOGIN\r\n250 STARTTLS"
				if secure {
					answer = "250-fake\r\n250 AUTH PLAIN LOGIN"
				}
			}
			if !say(answer) {
				return
			}
		case "STARTTLS":
			say("220 go ahead")
			if b.garbage {
				io.WriteString(conn, strings.Repeat("garbage ", 100))
				return
			}
			conn = tls.Server(conn, b.tls)
			r = bufio.NewReader(conn)
		case "AUTH":
			say("235 welcome")
		case "RCPT":
			if b.refuse != "" && strings.Contains(line, b.refuse) {
				say("550 no such user")
				continue
			}
			say(or(b.rcpt, "250 ok"))
		case "DATA":
			say("354 go")
			text, ok := readData(r)
			if !ok || b.dropData { // with nothing left to read, or the connection would be reset
				return
			}
			f.mu.Lock()
			f.received = append(f.received, text)
			f.mu.Unlock()
			say("250 taken")
			if b.quit {
				return
			}
		case "QUIT":
			say("221 bye")
			return
		default:
			say("250 ok")
		}
	}
}

// readData reads a mail up to its end.
func readData(r *bufio.Reader) (string, bool) {
	var b strings.Builder
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return "", false
		}
		if line == ".\r\n" {
			return b.String(), true
		}
		b.WriteString(strings.TrimPrefix(line, "."))
	}
}

func (f *fakeServer) mails() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.received)
}

// to is a Mail by a server.
func to(f *fakeServer) Mail {
	return Mail{
		Common: Common{[]On{Block, Run}, 10 * time.Second, Rate{100, time.Minute}}, From: "nftsentry@example.org",
		To: []string{"admin@example.org", "root@localhost"}, Server: f.addr, TLS: "none",
	}
}

// read takes a mail apart: its headers and its text.
func read(t testing.TB, raw string) (netmail.Header, string) {
	t.Helper()
	msg, err := netmail.ReadMessage(strings.NewReader(raw))
	if err != nil {
		t.Fatalf("%v in %q", err, raw)
	}
	body := msg.Body
	if msg.Header.Get("Content-Transfer-Encoding") == "quoted-printable" {
		body = quotedprintable.NewReader(body)
	}
	text, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	return msg.Header, strings.ReplaceAll(string(text), "\r\n", "\n")
}

// headers are those that a mail has, and no others.
var headers = []string{
	"Auto-Submitted", "Content-Transfer-Encoding", "Content-Type", "Date", "From", "Message-Id", "Mime-Version", "Subject", "To",
}

func TestMail(t *testing.T) {
	server := serve(t, behaviour{})
	m, err := newMailer(to(server), trust{})
	if err != nil {
		t.Fatal(err)
	}
	m.host = "host.example.org"
	if err := m.do(t.Context(), &job{events: []Event{probe(), block(1)}, more: 3}); err != nil {
		t.Fatal(err)
	}
	header, body := read(t, server.mails()[0])
	var got []string
	for name := range header {
		got = append(got, name)
	}
	slices.Sort(got)
	if diff := cmp.Diff(headers, got); diff != "" {
		t.Errorf("headers (-want +got):\n%s", diff)
	}
	if got, want := header.Get("Subject"), "nftsentry on host.example.org: block 2001:db8:1:2::7 and 4 more"; got != want {
		t.Errorf("subject %q, want %q", got, want)
	}
	want := `5 events on host.example.org, of which 3 are not listed:

block    2001:db8:1:2::7             23/tcp connect  proven   strikes 2 until 2026-01-02 04:04:05 UTC
block    10.0.0.1                    23/tcp connect          
`
	if diff := cmp.Diff(want, body); diff != "" {
		t.Errorf("text (-want +got):\n%s", diff)
	}
	if got := header.Get("To"); got != "<admin@example.org>, <root@localhost>" {
		t.Errorf("to %q", got)
	}
	if _, err := header.Date(); err != nil {
		t.Error(err)
	}
}

// TestMailLarge keeps the largest mail below 100 KiB.
func TestMailLarge(t *testing.T) {
	server := serve(t, behaviour{})
	c := to(server)
	c.Body = "{{range .Events}}{{.Comment}}{{end}}"
	c.Subject = "{{range .Events}}{{.Comment}}{{end}}"
	for range 30 {
		c.To = append(c.To, strings.Repeat("a", 60)+"@"+strings.Repeat("b.", 90)+"example.org")
	}
	m, err := newMailer(c, trust{})
	if err != nil {
		t.Fatal(err)
	}
	e := block(1)
	e.Comment = strings.Repeat("ä", 126)
	if err := m.do(t.Context(), &job{events: slices.Repeat([]Event{e.Clean()}, maxQueue)}); err != nil {
		t.Fatal(err)
	}
	raw := server.mails()[0]
	if len(raw) > 100<<10 || len(raw) < 50<<10 {
		t.Errorf("the mail has %d bytes", len(raw))
	}
	for line := range strings.Lines(raw) {
		if len(line) > 1000 {
			t.Errorf("a line of %d bytes", len(line))
		}
	}
	read(t, raw)
}

// TestMailFails shows servers that do wrong, and how soon and as what that is known.
func TestMailFails(t *testing.T) {
	const limit = 600 * time.Millisecond
	good := certificate(t)
	for name, tt := range map[string]struct {
		behaviour
		tls       string
		want      string
		permanent bool
		late      bool
	}{
		"a byte at a time":       {behaviour{slow: 30 * time.Millisecond}, "none", "", false, true},
		"busy":                   {behaviour{greeting: "421 too busy"}, "none", "421", false, false},
		"drops in DATA":          {behaviour{dropData: true}, "none", "EOF", false, false},
		"no such user":           {behaviour{rcpt: "550 no such user\x1b[2J"}, "none", `550 "no such user\x1b[2J"`, true, false},
		"greylisted":             {behaviour{rcpt: "450 later"}, "none", `450 "later"`, false, false},
		"garbage for TLS":        {behaviour{tls: good.server, garbage: true}, "starttls", "dial failed", false, false},
		"garbage for TLS at all": {behaviour{}, "tls", "tls: first record does not look like a TLS handshake", false, false},
		"no STARTTLS":            {behaviour{}, "starttls", "does not support STARTTLS", false, false},
		"unknown certificate":    {behaviour{tls: good.server}, "starttls", "certificate", false, false},
		"the same at once":       {behaviour{tls: good.server, implicit: true}, "tls", "certificate", false, false},
		"talks without end":      {behaviour{endless: true}, "none", "too much", false, false},
		"silent":                 {behaviour{silent: true}, "none", "", false, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := to(serve(t, tt.behaviour))
			c.TLS = tt.tls
			m, err := newMailer(c, trust{})
			if err != nil {
				t.Fatal(err)
			}
			timeout := slow
			if tt.late {
				timeout = limit
			}
			ctx, cancel := context.WithTimeout(t.Context(), timeout)
			defer cancel()
			began := time.Now()
			err = m.do(ctx, &job{events: []Event{probe()}})
			var permanent *permanentError
			switch {
			case err == nil:
				t.Fatal("no error")
			case tt.late != errors.Is(err, context.DeadlineExceeded), !strings.Contains(err.Error(), tt.want), errors.As(err, &permanent) != tt.permanent:
				t.Errorf("%v", err)
			case strings.ContainsAny(err.Error(), "\x1b\r"):
				t.Errorf("the server's words are not made fit to print: %q", err)
			case tt.late && time.Since(began) > slow/2:
				t.Errorf("after %v", time.Since(began))
			}
		})
	}
}

// TestMailTaken does not send a mail again that a server has taken before it went away.
func TestMailTaken(t *testing.T) {
	m, err := newMailer(to(serve(t, behaviour{quit: true})), trust{})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.do(t.Context(), &job{events: []Event{probe()}}); err != nil {
		t.Error(err)
	}
}

// TestMailSomeRefused sends a mail to those who get mail though others do not.
func TestMailSomeRefused(t *testing.T) {
	server := serve(t, behaviour{refuse: "root@"})
	m, err := newMailer(to(server), trust{})
	if err != nil {
		t.Fatal(err)
	}
	err = m.do(t.Context(), &job{events: []Event{probe()}})
	var permanent *permanentError
	if !errors.As(err, &permanent) || !strings.Contains(err.Error(), "<root@localhost>") || strings.Contains(err.Error(), "<admin@") {
		t.Errorf("error %v", err)
	}
	if n := len(server.mails()); n != 1 {
		t.Fatalf("%d mails", n)
	}
	if header, _ := read(t, server.mails()[0]); header.Get("To") != "<admin@example.org>" {
		t.Errorf("to %q", header.Get("To"))
	}
}

// TestMailTLS logs in under the protection of TLS, of both kinds.
func TestMailTLS(t *testing.T) {
	cert := certificate(t)
	tr, dir := trusting(t)
	for kind, implicit := range map[string]bool{"starttls": false, "tls": true} {
		server := serve(t, behaviour{tls: cert.server, implicit: implicit})
		c := to(server)
		c.TLS, c.User, c.PasswordFile = kind, "me", put(t, filepath.Join(dir, "password"), "geheim\n", 0o600)
		m, err := newMailer(c, tr)
		if err != nil {
			t.Fatal(err)
		}
		m.smtp.roots = cert.roots
		if err := m.do(t.Context(), &job{events: []Event{probe()}}); err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		if len(server.mails()) != 1 || !strings.Contains(strings.Join(server.commands, "\n"), "AUTH PLAIN AG1lAGdlaGVpbQ==") {
			t.Errorf("%s: %d mails after %q", kind, len(server.mails()), server.commands)
		}
		put(t, c.PasswordFile, "geheim\n", 0o644)
		if err := m.do(t.Context(), &job{events: []Event{probe()}}); err == nil || !strings.Contains(err.Error(), "everybody may read") {
			t.Errorf("%s: a password that everybody may read: %v", kind, err)
		}
	}
}

// A pair is a certificate of 127.0.0.1, and who trusts it.
type pair struct {
	server *tls.Config
	roots  *x509.CertPool
}

func certificate(t testing.TB) pair {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	of := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, of, of, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	return pair{&tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, roots}
}

// TestSendmail hands a mail to a program.
func TestSendmail(t *testing.T) {
	tr, dir := trusting(t)
	path := shell(t, dir, `echo "$@" >`+dir+`/args; cat >`+dir+`/mail; [ ! -e `+dir+`/fail ] || { echo "cannot: full"; exit 75; }`)
	c := to(&fakeServer{})
	c.Server, c.Sendmail = "", path
	m, err := newMailer(c, tr)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.do(t.Context(), &job{events: []Event{probe()}}); err != nil {
		t.Fatal(err)
	}
	if got := contents(t, dir+"/args"); got != "-i -f nftsentry@example.org -t\n" {
		t.Errorf("arguments %q", got)
	}
	raw := contents(t, dir+"/mail")
	if header, _ := read(t, raw); strings.Contains(raw, "\r") || header.Get("To") != "<admin@example.org>, <root@localhost>" {
		t.Errorf("mail %q", raw)
	}
	put(t, dir+"/fail", "", 0o600)
	if err := m.do(t.Context(), &job{events: []Event{probe()}}); err == nil || !strings.Contains(err.Error(), `exit status 75: "cannot: full\n"`) {
		t.Errorf("error %v", err)
	}
}

// TestMailRefused shows what New says of mails that cannot be.
func TestMailRefused(t *testing.T) {
	tr, dir := trusting(t)
	for name, change := range map[string]func(*Mail){
		"from":        func(c *Mail) { c.From = "a@example.org\r\nBcc: b@example.org" },
		"nobody":      func(c *Mail) { c.To = nil },
		"an option":   func(c *Mail) { c.To = []string{"-bs@example.org"} },
		"server":      func(c *Mail) { c.Server = "localhost" },
		"TLS":         func(c *Mail) { c.TLS = "" },
		"in clear":    func(c *Mail) { c.User = "me" },
		"no password": func(c *Mail) { c.User, c.TLS, c.PasswordFile = "me", "tls", filepath.Join(dir, "none") },
		"sendmail":    func(c *Mail) { c.Server, c.Sendmail = "", filepath.Join(dir, "none") },
		"subject":     func(c *Mail) { c.Subject = "{{.Nothing}}" },
		"body":        func(c *Mail) { c.Body = "{{range .Events}}" },
		"timeout":     func(c *Mail) { c.Timeout = 0 },
		"limit":       func(c *Mail) { c.Limit = Rate{} },
		"on":          func(c *Mail) { c.On = nil },
	} {
		c := to(&fakeServer{addr: "127.0.0.1:25"})
		if _, err := newRunner(Config{Mail: []Mail{c}}, zap.NewNop(), tr); err != nil {
			t.Fatal(err)
		}
		change(&c)
		_, err := newRunner(Config{Mail: []Mail{c}}, zap.NewNop(), tr)
		if err == nil || !strings.HasPrefix(err.Error(), "hook.mail[0]: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestReload keeps what waits, and the counts, of hooks that stay.
func TestReload(t *testing.T) {
	server := serve(t, behaviour{})
	c := to(server)
	c.Digest = time.Hour
	r, err := New(Config{Mail: []Mail{c}}, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	stop := running(t, r)
	for n := range 300 {
		r.Tell(block(n))
	}
	wrong := c
	wrong.To = nil
	if err := r.Configure(Config{Mail: []Mail{wrong}}); err == nil {
		t.Error("a wrong configuration is taken")
	}
	other := c
	other.To = []string{"b@example.org"}
	c.Digest, c.Subject = 0, "now"
	if err := r.Configure(Config{Mail: []Mail{other, c}}); err != nil {
		t.Fatal(err)
	}
	until(t, "the mail is there", func() bool { return len(server.mails()) == 1 })
	header, _ := read(t, server.mails()[0])
	if s := r.Stats(); header.Get("Subject") != "now" || s[1].Dropped != 44 || s[1].Name != "mail[1]" || s[0].Waiting != 0 {
		t.Errorf("subject %q, %+v", header.Get("Subject"), s)
	}
	stop()
}
