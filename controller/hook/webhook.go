package hook

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"text/template"
	"time"
)

const (
	// maxResponse is how much of a response is read, to be thrown away, in bytes.
	maxResponse = 64 << 10
	// maxRetryAfter bounds what a server may ask for.
	maxRetryAfter = 5 * time.Minute
	// maxRedirects is how many redirects on the same host are followed.
	maxRedirects = 3
	// schema is the version of what a webhook sends.
	schema = 1
)

// A poster is a sink that sends HTTP requests.
type poster struct {
	url     *url.URL
	method  string
	headers map[string]string
	body    *template.Template // nil for JSON
	client  *http.Client
	host    string
}

var _ sink = (*poster)(nil)

func newPoster(c Webhook) (*poster, error) {
	u, err := url.Parse(c.URL)
	if err != nil {
		return nil, err
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, errors.New("url must be absolute, of http or https")
	}
	p := &poster{url: u, method: c.Method, headers: c.Headers, client: newClient(), host: hostname()}
	if c.Body != "" {
		p.body, err = parse("body", c.Body, sampleRow())
	}
	if err != nil {
		return nil, err
	}
	if _, err := p.request(context.Background(), nil); err != nil {
		return nil, err
	}
	return p, nil
}

// newClient makes a client that goes nowhere but where it is sent: by no proxy, and by no redirect to another host. Servers
// have to prove who they are.
func newClient() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			DialContext: (&net.Dialer{}).DialContext, MaxIdleConns: 2, IdleConnTimeout: 30 * time.Second,
			MaxResponseHeaderBytes: 16 << 10, ForceAttemptHTTP2: true,
		},
		CheckRedirect: checkRedirect,
	}
}

var errRedirect = errors.New("a redirect is not followed")

// checkRedirect follows redirects on the same host that keep the request as it is.
func checkRedirect(req *http.Request, via []*http.Request) error {
	first := via[0]
	switch {
	case len(via) > maxRedirects:
		return fmt.Errorf("%w: too many of them", errRedirect)
	case req.URL.Host != first.URL.Host || req.URL.Scheme != first.URL.Scheme:
		return fmt.Errorf("%w: it leads to %s://%s; set url to where it should go", errRedirect, req.URL.Scheme, printable(req.URL.Host, maxText))
	case req.Method != first.Method:
		return fmt.Errorf("%w: it would lose the body; set url to where it leads", errRedirect)
	}
	return nil
}

// place is where requests go, without what may be secret.
func (p *poster) place() string { return p.url.Scheme + "://" + p.url.Host }

// request makes a request with a body.
func (p *poster) request(ctx context.Context, body []byte) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, p.method, p.url.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	if p.body != nil {
		req.Header.Set("Content-Type", "text/plain; charset=utf-8")
	}
	req.Header.Set("User-Agent", "nftsentry")
	for name, value := range p.headers {
		req.Header.Set(name, value)
	}
	return req, nil
}

// A payload is what is sent where no template says otherwise.
type payload struct {
	Version int `json:"version"`
	Row
}

// content is the body for an event.
func (p *poster) content(e Event) ([]byte, error) {
	r := row(e, p.host)
	if p.body == nil {
		return json.Marshal(payload{schema, r})
	}
	s, err := expand(p.body, r, maxBody)
	return []byte(s), err
}

// do sends the one event of a job.
func (p *poster) do(ctx context.Context, j *job) error {
	body, err := p.content(j.events[0])
	if err != nil {
		return &permanentError{err}
	}
	req, err := p.request(ctx, body)
	if err != nil {
		return &permanentError{err}
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return p.failure(err)
	}
	_, err = io.CopyN(io.Discard, resp.Body, maxResponse)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	_ = resp.Body.Close()
	return errors.Join(verdict(resp), err)
}

// failure makes an error of one of net/http, which would tell all of the URL.
func (p *poster) failure(err error) error {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	err = fmt.Errorf("%s %s: %w", p.method, p.place(), err)
	if errors.Is(err, errRedirect) {
		return &permanentError{err}
	}
	return err
}

// verdict makes an error of a response that is not a success.
func verdict(resp *http.Response) error {
	if resp.StatusCode < 300 {
		return nil
	}
	err := fmt.Errorf("the server answers %d %s", resp.StatusCode, http.StatusText(resp.StatusCode))
	if resp.StatusCode < 500 && resp.StatusCode != http.StatusTooManyRequests && resp.StatusCode != http.StatusRequestTimeout {
		return &permanentError{err}
	}
	if after := retryAfter(resp.Header.Get("Retry-After"), time.Now()); after > 0 {
		return &laterError{err, after}
	}
	return err
}

// retryAfter reads a number of seconds or a date, RFC 9110 section 10.2.3; 0 if it is neither.
func retryAfter(s string, now time.Time) time.Duration {
	if n, err := strconv.ParseUint(s, 10, 31); err == nil {
		return min(time.Duration(n)*time.Second, maxRetryAfter)
	}
	if at, err := http.ParseTime(s); err == nil {
		return min(max(at.Sub(now), 0), maxRetryAfter)
	}
	return 0
}

// hostname is the name of this host as it calls itself.
func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return "localhost"
	}
	return printable(name, maxText)
}
