package remote

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"go.uber.org/zap"

	"nftsentry/controller/hook"
)

// advice is what a person can do about a service that does not answer.
const advice = "see \"systemctl status nftsentry-hook.service\""

// An AwayError is that of a hook service that does not answer.
type AwayError struct {
	Socket string
	Err    error
}

// Error says which socket, why, and what to do.
func (e *AwayError) Error() string {
	return fmt.Sprintf("the hook service does not answer on %s (%v): %s", e.Socket, e.Err, advice)
}

// Unwrap gives the error inside.
func (e *AwayError) Unwrap() error { return e.Err }

// A refusalError is what the service has to say against a request.
type refusalError struct{ text string }

func (e *refusalError) Error() string { return e.text }

func isRefusal(err error) bool {
	var r *refusalError
	return errors.As(err, &r)
}

// ask sends a request, and reads the answer unless it is nil. The error is a refusalError or an AwayError.
func (c *Client) ask(ctx context.Context, most time.Duration, method, path string, question, answer any) error {
	within, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	instance, err := c.request(within, method, path, question, answer)
	if err != nil && !isRefusal(err) {
		err = &AwayError{c.Socket, plain(err)}
		hasty := most < patience && within.Err() != nil // a service that is slow may still be there
		if !hasty && !errors.Is(ctx.Err(), context.Canceled) {
			c.away(err)
		}
		return err
	}
	c.answered(instance)
	return err
}

// plain leaves out of an error the address that only we know of.
func plain(err error) error {
	var u *url.Error
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return errors.New("no answer in time")
	case errors.As(err, &u):
		return u.Err
	}
	return err
}

func (c *Client) request(ctx context.Context, method, path string, question, answer any) (instance string, err error) {
	var body []byte
	if question != nil {
		if body, err = json.Marshal(question); err != nil {
			return "", &refusalError{err.Error()}
		}
	}
	r, err := http.NewRequestWithContext(ctx, method, "http://hook"+path, bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	resp, err := c.http.Do(r)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return "", err
	}
	if resp.StatusCode == http.StatusOK && answer != nil {
		err = json.Unmarshal(data, answer)
	} else if resp.StatusCode != http.StatusOK {
		err = failure(resp.StatusCode, data)
	}
	return resp.Header.Get(instanceHeader), err
}

// failure is the error of an answer that is one. It is the request's only if the service says so.
func failure(code int, data []byte) error {
	p := problem{Error: http.StatusText(code)}
	_ = json.Unmarshal(data, &p) // else the text of the code stands
	switch code {
	case http.StatusBadRequest, http.StatusConflict, http.StatusUnprocessableEntity:
		return &refusalError{p.Error}
	}
	return errors.New(p.Error)
}

// away notes that the service does not answer, and tells of it once.
func (c *Client) away(err error) {
	c.mu.Lock()
	first := c.health.Away == nil
	if first {
		c.health.Since = time.Now()
	}
	c.health.Away = err
	waiting := len(c.queue.events)
	c.mu.Unlock()
	if first {
		c.log.Warn("hooks are not told: blocks go on, and events wait", zap.String("socket", c.Socket), zap.Int("waiting", waiting),
			zap.Int("room", maxQueue), zap.Error(err))
	}
}

// answered notes that the service has answered. One that was restarted has missed something.
func (c *Client) answered(instance string) {
	c.mu.Lock()
	was, since := c.health.Away, c.health.Since
	c.health.Away, c.health.Since = nil, time.Time{}
	anew := c.instance != instance || was != nil
	c.instance = instance
	waiting, dropped := len(c.queue.events), c.health.Dropped
	c.mu.Unlock()
	if was != nil {
		c.log.Info("hooks are told again", zap.String("socket", c.Socket), zap.Duration("after", time.Since(since).Round(time.Second)),
			zap.Int("waiting", waiting), zap.Uint64("dropped", dropped))
	}
	if anew {
		poke(c.back)
	}
}

// Prepare has the service read its configuration, whatever cfg says, and look at it. The error has all that is wrong. If
// the service is away the error comes with the commit.
func (c *Client) Prepare(ctx context.Context, _ hook.Config) (hook.Prepared, error) {
	var d draft
	err := c.ask(ctx, patience, http.MethodPost, preparePath, nil, &d)
	if isRefusal(err) {
		return nil, err
	}
	return &change{c, d, err}, nil
}

// A change is a configuration that the service holds, or an error why it does not.
type change struct {
	client *Client
	draft  draft
	away   error
}

var (
	_ hook.Prepared = (*change)(nil)
	_ error         = (*AwayError)(nil)
)

// Commit has the service take it over. After an error the service will, by itself, once it is back.
func (p *change) Commit(ctx context.Context) error {
	c, err := p.client, p.away
	if err == nil {
		err = c.ask(ctx, patience, http.MethodPost, commitPath, draft{ID: p.draft.ID}, nil)
	}
	if err == nil {
		return nil
	}
	c.mu.Lock()
	c.owed = true
	c.mu.Unlock()
	if isRefusal(err) { // it was restarted meanwhile, or has waited for too long
		poke(c.back)
	}
	return fmt.Errorf("hooks keep their old configuration for now, and read it again when they can: %w", err)
}

// Abort gives it up. A service that does not hear of it forgets it.
func (p *change) Abort() {
	if p.away == nil {
		_ = p.client.ask(context.Background(), patience, http.MethodPost, abortPath, draft{ID: p.draft.ID}, nil)
	}
}

// redeem has the service read its configuration if it could not when it should have.
func (c *Client) redeem(ctx context.Context) {
	c.mu.Lock()
	owed := c.owed
	c.owed = false
	c.mu.Unlock()
	if !owed {
		return
	}
	p, err := c.Prepare(ctx, hook.Config{})
	if err != nil {
		c.log.Error("hooks keep their old configuration: mend it and reload", zap.Error(err))
		return
	}
	if err := p.Commit(ctx); err != nil { // and is owed again
		c.log.Warn("hooks have yet to read their configuration", zap.Error(err))
		return
	}
	c.log.Info("hooks have read their configuration")
}
