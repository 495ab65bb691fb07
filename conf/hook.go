package conf

import (
	"slices"
	"time"
)

// maxHooks is how many hooks of a kind a file may have.
const maxHooks = 32

// Hook says who is told of blocks, and how.
type Hook struct {
	// ModeTCP and ModeUDP are what hooks are told as Portsentry's mode: one of tcp, stcp and atcp, and one of udp, sudp and
	// audp.
	ModeTCP, ModeUDP string
	// Exec, Mail and Webhook have at most 32 hooks each.
	Exec    []HookExec
	Mail    []HookMail
	Webhook []HookWebhook
	// HostsDeny is nil if the file has no such table.
	HostsDeny *HookHostsDeny
}

// A HookOn is what a hook may be told of.
type HookOn string

// What hooks may be told of.
const (
	OnBlock   HookOn = "block"   // a source is blocked
	OnRun     HookOn = "run"     // the trigger was reached where the response is "run"
	OnUnblock HookOn = "unblock" // a block has ended
)

// HookCommon is what exec, mail and webhook have in common.
type HookCommon struct {
	// On has one at least, none of them twice.
	On []HookOn
	// Timeout is how long a run, or an attempt to deliver, may take: 1s to 10m in whole seconds.
	Timeout time.Duration
	// Limit is how many runs, mails or requests there may be, over all sources.
	Limit Rate
}

// A HookExec runs a program.
type HookExec struct {
	HookCommon
	// Command is an absolute path and arguments, 1 to 64 of at most 4096 bytes.
	Command []string
	// Before has the program run before the source is blocked, not after.
	Before bool
}

// A HookMail sends mails.
type HookMail struct {
	HookCommon
	// From and To, of which there are 1 to 32, are addresses without names.
	From string
	To   []string
	// Server is a host and a port, or "" to send by the program Sendmail, an absolute path.
	Server, Sendmail string
	// TLS is how the connection to the server is protected.
	TLS HookTLS
	// User and PasswordFile, an absolute path, are both empty or neither.
	User, PasswordFile string
	// Digest is how long events are collected for a mail, 0 to 1d in whole seconds.
	Digest time.Duration
	// Subject and Body are templates that work; the built-in ones if empty.
	Subject, Body string
}

// A HookTLS is how a connection to a mail server is protected.
type HookTLS string

// The protections.
const (
	TLSNone     HookTLS = "none"     // not at all
	TLSStartTLS HookTLS = "starttls" // TLS is asked for, and a must
	TLSImplicit HookTLS = "tls"      // TLS from the first byte
)

// A HookWebhook sends HTTP requests.
type HookWebhook struct {
	HookCommon
	// URL is absolute, of http or https, without user, password and fragment.
	URL string
	// Method is POST, PUT or PATCH.
	Method string
	// Headers has at most 32 names and values that may stand in a request.
	Headers map[string]string
	// Body is a template that works; JSON with all of the event if empty.
	Body string
}

// HookHostsDeny keeps lines in hosts.deny, hosts_access(5).
type HookHostsDeny struct {
	// Line has $TARGET$ in it, and is one line that is no comment.
	Line string
	// File is an absolute path.
	File string
}

// defaultCommon are the defaults of a hook with a limit.
func defaultCommon(limit Rate) HookCommon {
	return HookCommon{On: []HookOn{OnBlock, OnRun}, Timeout: 10 * time.Second, Limit: limit}
}

func defaultExec() HookExec {
	return HookExec{HookCommon: defaultCommon(Rate{60, time.Minute})}
}

func defaultMail() HookMail {
	return HookMail{
		HookCommon: defaultCommon(Rate{10, time.Hour}), Sendmail: "/usr/sbin/sendmail", TLS: TLSStartTLS, Digest: time.Minute,
	}
}

func defaultWebhook() HookWebhook {
	return HookWebhook{HookCommon: defaultCommon(Rate{60, time.Minute}), Method: "POST"}
}

func defaultHostsDeny() HookHostsDeny {
	return HookHostsDeny{Line: "ALL: $TARGET$ : DENY", File: "/etc/hosts.deny"}
}

// settings are the keys of [hook]; those of its tables are their own.
func (h *Hook) settings() settings {
	return settings{
		{"hook.mode_tcp", one(&h.ModeTCP, oneOf("tcp", "stcp", "atcp"))},
		{"hook.mode_udp", one(&h.ModeUDP, oneOf("udp", "sudp", "audp"))},
		{"hook.exec", tables(&h.Exec, defaultExec)},
		{"hook.mail", tables(&h.Mail, defaultMail)},
		{"hook.webhook", tables(&h.Webhook, defaultWebhook)},
		{"hook.hosts_deny", optional(&h.HostsDeny, defaultHostsDeny)},
	}
}

func (c *HookCommon) settings() settings {
	return settings{
		{"on", one(&c.On, unique(oneOf(OnBlock, OnRun, OnUnblock)))},
		{"timeout", one(&c.Timeout, duration(time.Second, 10*time.Minute))},
		{"limit", one(&c.Limit, limit)},
	}
}

func (e *HookExec) settings() settings {
	return append(e.HookCommon.settings(), settings{
		{"command", many(&e.Command, 64, argument)},
		{"when", one(&e.Before, before)},
	}...)
}

// check reports what a command lacks.
func (e *HookExec) check(t table) {
	if t.requires("command", len(e.Command) > 0, `command = ["/etc/nftsentry/notify", "$TARGET$"]`) && t.sound("command") {
		if err := program(e.Command[0]); err != nil {
			t.report("command[0]", err.Error())
		}
	}
	if e.Before && t.sound("on", "when") && !slices.Contains(e.On, OnBlock) {
		t.report("when", `"before" is before a block, and on has no "block"`)
	}
}

func (m *HookMail) settings() settings {
	return append(m.HookCommon.settings(), settings{
		{"from", one(&m.From, mailbox)},
		{"to", many(&m.To, 32, mailbox)},
		{"server", one(&m.Server, server)},
		{"sendmail", one(&m.Sendmail, path(maxPath))},
		{"tls", one(&m.TLS, oneOf(TLSNone, TLSStartTLS, TLSImplicit))},
		{"user", one(&m.User, words(256))},
		{"password_file", one(&m.PasswordFile, orNone(path(maxPath)))},
		{"digest", one(&m.Digest, duration(0, day))},
		{"subject", one(&m.Subject, template(maxSubject, sampleMail))},
		{"body", one(&m.Body, template(maxTemplate, sampleMail))},
	}...)
}

// check reports what a mail lacks, and how a password would be given away.
func (m *HookMail) check(t table) {
	t.requires("from", m.From != "", `from = "nftsentry@example.org"`)
	t.requires("to", len(m.To) > 0, `to = ["admin@example.org"]`)
	if !t.sound("user", "password_file", "server", "tls") {
		return
	}
	switch {
	case m.User != "" && m.PasswordFile == "":
		t.report("user", "needs password_file, the path of a file with the password")
	case m.User == "" && m.PasswordFile != "":
		t.report("password_file", "needs user, the name that goes with the password")
	case m.User != "" && m.Server == "":
		t.report("user", "sendmail takes none: name the server, or leave user and password_file out")
	case m.User != "" && m.TLS == TLSNone:
		t.report("user", `the password would be sent in the clear: set tls = "starttls" or "tls"`)
	}
}

func (w *HookWebhook) settings() settings {
	return append(w.HookCommon.settings(), settings{
		{"url", one(&w.URL, webURL)},
		{"method", one(&w.Method, oneOf("POST", "PUT", "PATCH"))},
		{"headers", pairs(&w.Headers, maxHooks, headerName, headerValue)},
		{"body", one(&w.Body, template(maxTemplate, sampleEvent))},
	}...)
}

// check reports what a webhook lacks.
func (w *HookWebhook) check(t table) {
	t.requires("url", w.URL != "", `url = "https://ntfy.example.org/scans"`)
}

func (h *HookHostsDeny) settings() settings {
	return settings{
		{"line", one(&h.Line, denyLine)},
		{"file", one(&h.File, path(maxPath))},
	}
}

func (h *HookHostsDeny) check(table) {}
