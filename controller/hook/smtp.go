package hook

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/wneessen/go-mail"
)

// An smtpServer is a mail server and how to speak to it.
type smtpServer struct {
	host, port     string
	tls            string // none, starttls or tls
	user, password string
	roots          *x509.CertPool // nil for those of the system
}

// send delivers a mail. It ends with ctx, whatever the server does.
func (s smtpServer) send(ctx context.Context, msg *mail.Msg) error {
	conn, err := s.dial(ctx)
	if err != nil {
		return fmt.Errorf("connect to %s: %w", net.JoinHostPort(s.host, s.port), err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	client, err := s.client(conn)
	if err != nil {
		return &permanentError{err}
	}
	err = client.DialAndSendWithContext(ctx, msg)
	if err == nil || msg.IsDelivered() { // what goes wrong with the farewell does not matter
		return nil
	}
	return s.failure(ctx, err)
}

// failure makes an error of one of package mail, which hides what ended it, and has the words of the server in it.
func (s smtpServer) failure(ctx context.Context, err error) error {
	var send *mail.SendError
	permanent := errors.As(err, &send) && !send.IsTemp() && send.ErrorCode() >= 500
	out := fmt.Errorf("mail server %s: %s", net.JoinHostPort(s.host, s.port), printable(err.Error(), 2*maxText))
	deadline, ok := ctx.Deadline()
	switch {
	case ctx.Err() != nil:
		return errors.Join(out, ctx.Err())
	case ok && time.Until(deadline) <= 0, errors.Is(err, context.DeadlineExceeded):
		return errors.Join(out, context.DeadlineExceeded)
	case permanent:
		return &permanentError{out}
	}
	return out
}

// dial connects, with TLS if it comes first.
func (s smtpServer) dial(ctx context.Context) (net.Conn, error) {
	plain, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(s.host, s.port))
	if err != nil {
		return nil, err
	}
	var conn net.Conn = &strict{Conn: plain, left: maxReply}
	deadline, _ := ctx.Deadline()
	if err := plain.SetDeadline(deadline); err != nil {
		return nil, errors.Join(err, plain.Close())
	}
	if s.tls != "tls" {
		return conn, nil
	}
	secure := tls.Client(conn, s.config())
	if err := secure.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(err, plain.Close())
	}
	return secure, nil
}

func (s smtpServer) config() *tls.Config {
	return &tls.Config{ServerName: s.host, MinVersion: tls.VersionTLS12, RootCAs: s.roots}
}

// client makes a client of package mail that uses a connection which there is.
func (s smtpServer) client(conn net.Conn) (*mail.Client, error) {
	port, err := strconv.ParseUint(s.port, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("port: %w", err)
	}
	policy := map[string]mail.TLSPolicy{
		"none": mail.NoTLS, "starttls": mail.TLSMandatory,
		"tls": mail.TLSOpportunistic, // package mail looks only so whether the connection is encrypted already
	}[s.tls]
	options := []mail.Option{
		mail.WithPort(int(port)), mail.WithTLSPolicy(policy), mail.WithTLSConfig(s.config()), mail.WithoutNoop(), mail.WithoutRset(),
		mail.WithDialContextFunc(func(context.Context, string, string) (net.Conn, error) { return conn, nil }),
	}
	if s.user != "" {
		options = append(options, mail.WithSMTPAuth(mail.SMTPAuthAutoDiscover), mail.WithUsername(s.user), mail.WithPassword(s.password))
	}
	return mail.NewClient(s.host, options...)
}

// errTooMuch is the error of a server that does not stop talking.
var errTooMuch = errors.New("the server sends too much")

// A strict connection keeps the deadline that was set first and reads so many bytes at most, so that nobody can lengthen a
// delivery, nor have a line without end kept in memory.
type strict struct {
	net.Conn
	left int
}

func (s *strict) Read(p []byte) (int, error) {
	if s.left <= 0 {
		return 0, errTooMuch
	}
	n, err := s.Conn.Read(p[:min(len(p), s.left)])
	s.left -= n
	return n, err
}

func (*strict) SetDeadline(time.Time) error      { return nil }
func (*strict) SetReadDeadline(time.Time) error  { return nil }
func (*strict) SetWriteDeadline(time.Time) error { return nil }
