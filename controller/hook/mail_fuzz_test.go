package hook

import (
	"bytes"
	"fmt"
	"mime"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// FuzzMail looks for values that make a header, or a mail that cannot be read.
func FuzzMail(f *testing.F) {
	f.Add("a comment", "connect", "admin", uint16(23), 1)
	f.Add("a\r\nBcc: victim@example.org\r\n\r\n", "x\nSubject: y", "\x00\x1b\u2028\u0085", uint16(0), 256)
	f.Add(strings.Repeat("ä", 1000), ".\r\n.\r\n", "=?utf-8?q?=0AX:_y?=", uint16(65535), 3)
	f.Add("\xff\xfe", "\v\f", "{{.Host}}", uint16(1), 2)
	c := to(&fakeServer{addr: "127.0.0.1:25"})
	c.Subject = "{{with index .Events 0}}{{.Comment}} {{.Kind}} {{.Reason}}{{end}}"
	c.Body = "{{range .Events}}{{.Comment}}\n{{.Reason}}\t{{.Kind}}\n{{end}}"
	m, err := newMailer(c, trust{})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, comment, kind, reason string, port uint16, n int) {
		e := Event{
			On: Block, Address: netip.MustParseAddr("192.0.2.7"), Port: port, Kind: kind, Comment: comment, Reason: reason,
		}.Clean()
		msg, err := m.message(&job{events: slices.Repeat([]Event{e}, 1+(n&0xff))}, c.To)
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if _, err := msg.WriteTo(&b); err != nil {
			t.Fatal(err)
		}
		header, body := read(t, b.String())
		for name, values := range header {
			if !slices.Contains(headers, name) || len(values) != 1 {
				t.Errorf("header %s: %q", name, values)
			}
		}
		subject, err := new(mime.WordDecoder).DecodeHeader(header.Get("Subject"))
		if err != nil || strings.ContainsAny(subject, "\r\n\x00\x1b") {
			t.Errorf("subject %q: %v", subject, err)
		}
		if len(b.Bytes()) > 100<<10 || strings.ContainsAny(body, "\x00\x1b\r") {
			t.Errorf("%d bytes: %q", b.Len(), body)
		}
		if want := fmt.Sprint(e.Comment, "\n"); len(body) > len(want) && !strings.HasPrefix(body, strings.TrimRight(want, " \n")) {
			t.Errorf("text %q, want %q first", body, want)
		}
		for line := range strings.Lines(b.String()) {
			if len(line) > 1000 || !strings.HasSuffix(line, "\r\n") && strings.Contains(line, "\n") {
				t.Errorf("line %q", line)
			}
		}
	})
}

// FuzzTemplate looks for a template that panics or makes more than it may.
func FuzzTemplate(f *testing.F) {
	for _, s := range []string{defaultSubject, defaultBody, "{{json .}}", "{{range .Events}}{{end}}", "{{.Host | printf \"%99s\"}}", "{{define \"a\"}}{{end}}"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Count(text, "range") > 1 || strings.Contains(text, "range") && strings.ContainsAny(text, "0123456789") ||
			strings.Contains(text, "template") || strings.Contains(text, "block") || strings.Count(text, "printf") > 1 {
			return // could take long, which the configuration refuses
		}
		tmpl, err := parse("fuzz", text, sampleLetter())
		if err != nil {
			return
		}
		out, err := expand(tmpl, Letter{Host: "h", Events: []Row{row(probe(), "h")}, Total: 1}, maxBody)
		if len(out) > maxBody {
			t.Errorf("%d bytes, %v", len(out), err)
		}
	})
}
