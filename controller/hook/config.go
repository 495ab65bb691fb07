package hook

import "time"

// A Config says which hooks there are. New, Configure and Prepare check it.
type Config struct {
	// ModeTCP and ModeUDP are the Mode of events that have none.
	ModeTCP, ModeUDP string
	Exec             []Exec
	Mail             []Mail
	Webhook          []Webhook
	// HostsDeny is nil if there is none.
	HostsDeny *HostsDeny
	// Ran is told of each program that has run well, with its arguments; by several goroutines at once, which must not wait.
	// Nil is nobody.
	Ran func(e Event, command string)
}

// A Rate is how many of something there may be in a time: 1 at least, and more than no time.
type Rate struct {
	Count int
	Per   time.Duration
}

// Common is what Exec, Mail and Webhook have in common.
type Common struct {
	// On is what the hook is told of: Block, Run and Unblock.
	On []On
	// Timeout is how long a run or an attempt may take, more than 0.
	Timeout time.Duration
	// Limit is how many runs, requests or mails there may be.
	Limit Rate
}

// An Exec runs a program.
type Exec struct {
	Common
	// Command is an absolute path and arguments, in which tokens are replaced.
	Command []string
	// Before has the program run at Before in place of Block.
	Before bool
}

// A Mail sends mails.
type Mail struct {
	Common
	// From and To are addresses without names.
	From string
	To   []string
	// Server is a host and a port; if it is "", mails are handed to the program Sendmail, an absolute path.
	Server, Sendmail string
	// TLS is "none", "starttls" or "tls".
	TLS string
	// User and PasswordFile, an absolute path, are how to log in; both "" for not at all.
	User, PasswordFile string
	// Digest is how long events are collected, 0 or more.
	Digest time.Duration
	// Subject and Body are templates; the built-in ones if empty.
	Subject, Body string
}

// A Webhook sends HTTP requests.
type Webhook struct {
	Common
	URL, Method string
	Headers     map[string]string
	// Body is a template; JSON with all of the event if empty.
	Body string
}

// HostsDeny keeps lines in hosts.deny.
type HostsDeny struct {
	// Line has $TARGET$ in it and is one line.
	Line string
	// File is an absolute path.
	File string
	// Owner is the user, besides root, whose the file and its folders may be; 0 for root alone.
	Owner uint32
}
