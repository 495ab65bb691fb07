package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"
	"unicode/utf8"
)

// maxTold is how many of many errors are told.
const maxTold = 20

// Complaints are the errors of many things of one kind, of which the first
// are told. The zero value has none.
type Complaints struct {
	told []error
	more int
}

// Add takes an error in; nil is none.
func (c *Complaints) Add(err error) {
	switch {
	case err == nil:
	case len(c.told) < maxTold-1:
		c.told = append(c.told, err)
	default:
		c.more++
	}
}

// Err is all of them, an error a line, in twenty lines at most; nil for none.
func (c *Complaints) Err() error {
	if c.more > 0 {
		return errors.Join(append(c.told, fmt.Errorf("and %d more like these", c.more))...)
	}
	return errors.Join(c.told...)
}

// blockMany blocks all that a request names, or nothing.
func blockMany(r request, guard Guard) (any, error) {
	req, err := readBulk(r.body)
	if err != nil {
		return nil, &RequestError{err}
	}
	sources, timeout, comment, err := req.parse()
	if err != nil {
		return nil, &RequestError{err}
	}
	all, err := guard.BlockMany(r.Context(), sources, timeout, comment)
	if err != nil {
		return nil, err
	}
	return listing(all), nil
}

// unblockMany lets all go that a request names and that are blocked.
func unblockMany(r request, guard Guard) (any, error) {
	req, err := readBulk(r.body)
	if err != nil {
		return nil, &RequestError{err}
	}
	if req.Seconds != 0 || req.Comment != "" {
		return nil, &RequestError{errors.New("request: seconds and comment are for blocks")}
	}
	sources, _, _, err := req.parse()
	if err != nil {
		return nil, &RequestError{err}
	}
	ended, missing, err := guard.UnblockMany(r.Context(), sources)
	if err != nil {
		return nil, err
	}
	answer := BulkUnblocked{Unblocked: []string{}, Problems: []string{}}
	for _, p := range ended {
		answer.Unblocked = append(answer.Unblocked, Display(p))
	}
	if missing != nil {
		answer.Problems = strings.Split(missing.Error(), "\n")
	}
	return answer, nil
}

func readBulk(body []byte) (req BulkRequest, err error) {
	if !utf8.Valid(body) {
		return req, fmt.Errorf("request: %w", errNotUTF8)
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&req); err != nil {
		return req, fmt.Errorf("request: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return req, fmt.Errorf("request: %w", errTrailing)
	}
	return req, nil
}

// parse reads what a request asks for, and says all that is wrong with it.
func (r BulkRequest) parse() (sources []netip.Prefix, timeout time.Duration, comment string, err error) {
	if len(r.Sources) == 0 || len(r.Sources) > MaxBulk {
		return nil, 0, "", fmt.Errorf("%d sources: from 1 to %d at once", len(r.Sources), MaxBulk)
	}
	var wrong Complaints
	sources = make([]netip.Prefix, 0, len(r.Sources))
	for i, text := range r.Sources {
		source, err := ParseSource(text)
		wrong.Add(err)
		if i == 0 && err == nil { // what is the same for all is looked at once
			_, timeout, comment, err = BlockRequest{text, r.Seconds, r.Comment}.parse()
			wrong.Add(err)
		}
		sources = append(sources, source)
	}
	return sources, timeout, comment, wrong.Err()
}
