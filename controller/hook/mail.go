package hook

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	netmail "net/mail"
	"path/filepath"
	"strings"
	"text/template"

	"github.com/wneessen/go-mail"
)

const (
	// maxBody is how long the text of a mail and the body of a request may be, in bytes. The encoding of a mail makes at
	// most 3 bytes and a line break of one, so that a mail stays below 100 KiB.
	maxBody = 28000
	// maxSubject is how long the subject of a mail may be, in bytes.
	maxSubject = 200
	// maxReply is how much of a server's replies is read, in bytes.
	maxReply = 64 << 10
)

const defaultSubject = `nftsentry on {{.Host}}: {{with index .Events 0}}{{.Event}} {{.Target}}{{end}}{{if .Others}} and {{.Others}} more{{end}}`

const defaultBody = `{{.Total}} event{{if gt .Total 1}}s{{end}} on {{.Host}}{{if .More}}, of which {{.More}} are not listed{{end}}:

{{range .Events -}}
{{printf "%-8s %-24s %5d/%-3s %-8s %-8s" .Event .Target .Port .Protocol .Kind .Evidence}}
{{- if .Strikes}} strikes {{.Strikes}}{{end}}
{{- if not .Until.IsZero}} until {{.Until.UTC.Format "2006-01-02 15:04:05"}} UTC{{end}}
{{end}}`

// A mailer is a sink that sends mails.
type mailer struct {
	Mail
	trust   trust
	host    string
	subject *template.Template
	body    *template.Template
	smtp    smtpServer
}

var _ sink = (*mailer)(nil)

func newMailer(c Mail, t trust) (*mailer, error) {
	m := &mailer{Mail: c, trust: t, host: hostname()}
	if err := m.checkAddresses(); err != nil {
		return nil, err
	}
	if err := m.checkWay(); err != nil {
		return nil, err
	}
	var err, errBody error
	if m.subject, err = parse("subject", or(c.Subject, defaultSubject), sampleLetter()); err != nil {
		err = fmt.Errorf("subject: %w", err)
	}
	if m.body, errBody = parse("body", or(c.Body, defaultBody), sampleLetter()); errBody != nil {
		errBody = fmt.Errorf("body: %w", errBody)
	}
	return m, errors.Join(err, errBody)
}

func or(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

func (m *mailer) checkAddresses() error {
	if len(m.To) == 0 {
		return errors.New("to is empty: nobody would get the mails")
	}
	for _, s := range append([]string{m.From}, m.To...) {
		a, err := netmail.ParseAddress(s)
		if err != nil || a.Address != s || strings.HasPrefix(s, "-") || strings.ContainsAny(s, "\r\n") {
			return fmt.Errorf("%q is no mail address", s)
		}
	}
	return nil
}

// checkWay looks at how mails leave: sendmail and the password are opened to see that they can be.
func (m *mailer) checkWay() error {
	if m.Server == "" {
		if !filepath.IsAbs(m.Sendmail) {
			return errors.New("sendmail must be the absolute path of a program")
		}
		f, err := m.trust.program(m.Sendmail)
		if err != nil {
			return fmt.Errorf("sendmail: %w; or name a server", err)
		}
		return f.Close()
	}
	host, port, err := net.SplitHostPort(m.Server)
	if err != nil {
		return fmt.Errorf("server: %w", err)
	}
	m.smtp = smtpServer{host: host, port: port, tls: m.TLS, user: m.User}
	switch {
	case m.TLS != "none" && m.TLS != "starttls" && m.TLS != "tls":
		return errors.New(`tls must be "none", "starttls" or "tls"`)
	case m.User != "" && m.TLS == "none":
		return errors.New(`the password would be sent in the clear: set tls = "starttls" or "tls"`)
	case m.User == "":
		return nil
	}
	if _, err = m.trust.secret(m.PasswordFile); err != nil {
		return fmt.Errorf("password_file: %w", err)
	}
	return nil
}

// do sends one mail with all events of a job. If the server wants no mail for one of the recipients, each of them gets a mail
// of its own, and the error is of those who get none.
func (m *mailer) do(ctx context.Context, j *job) error {
	err := m.send(ctx, j, m.To)
	var refused *permanentError
	if m.Server == "" || len(m.To) == 1 || !errors.As(err, &refused) {
		return err
	}
	var errs []error
	for _, to := range m.To {
		errs = append(errs, m.send(ctx, j, []string{to}))
	}
	if err := errors.Join(errs...); err != nil {
		return &permanentError{err}
	}
	return nil
}

// send sends one mail with all events of a job to some recipients.
func (m *mailer) send(ctx context.Context, j *job, to []string) error {
	msg, err := m.message(j, to)
	if err != nil {
		return &permanentError{err}
	}
	if m.Server == "" {
		return m.hand(ctx, msg)
	}
	server := m.smtp
	if server.user != "" {
		if server.password, err = m.trust.secret(m.PasswordFile); err != nil {
			return err
		}
	}
	return server.send(ctx, msg)
}

// message makes the mail of a job.
func (m *mailer) message(j *job, to []string) (*mail.Msg, error) {
	l := Letter{Host: m.host, More: j.more, Total: len(j.events) + j.more}
	l.Others = l.Total - 1
	for _, e := range j.events {
		l.Events = append(l.Events, row(e, m.host))
	}
	subject, err := expand(m.subject, l, maxBody)
	if err != nil {
		return nil, err
	}
	body, err := expand(m.body, l, maxBody)
	if err != nil {
		return nil, err
	}
	msg := mail.NewMsg(mail.WithNoDefaultUserAgent())
	if err := errors.Join(msg.From(m.From), msg.To(to...)); err != nil {
		return nil, fmt.Errorf("address a mail: %w", err)
	}
	msg.Subject(printable(subject, maxSubject))
	msg.SetDate()
	msg.SetMessageID()
	msg.SetGenHeader("Auto-Submitted", "auto-generated") // RFC 3834: nobody is to answer
	msg.SetBodyString(mail.TypeTextPlain, legible(body))
	return msg, nil
}

// legible makes a text of lines that print, which UTF-8 is.
func legible(s string) string {
	lines := strings.Split(strings.ToValidUTF8(s, "?"), "\n")
	for i, line := range lines {
		lines[i] = printable(strings.ReplaceAll(strings.TrimSuffix(line, "\r"), "\t", "    "), maxBody)
	}
	return strings.Join(lines, "\n")
}

// hand gives a mail to sendmail.
func (m *mailer) hand(ctx context.Context, msg *mail.Msg) error {
	var b bytes.Buffer
	if _, err := msg.WriteTo(&b); err != nil {
		return &permanentError{fmt.Errorf("write a mail: %w", err)}
	}
	text := bytes.ReplaceAll(b.Bytes(), []byte("\r\n"), []byte("\n")) // as all local programs write lines
	out, err := m.trust.run(ctx, command{path: m.Sendmail, args: []string{"-i", "-f", m.From, "-t"}, stdin: text})
	if err != nil {
		return fmt.Errorf("%s: %w: %q", m.Sendmail, err, cut(string(out), maxText))
	}
	return nil
}
