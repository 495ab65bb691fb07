package remote

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"nftsentry/controller/hook"
)

// What can be asked for.
const (
	eventsPath  = "/v1/events"
	sourcesPath = "/v1/sources"
	statsPath   = "/v1/stats"
	preparePath = "/v1/prepare"
	commitPath  = "/v1/commit"
	abortPath   = "/v1/abort"
)

// Limits of what crosses the socket.
const (
	maxBatch   = 256      // events at once
	maxSources = 1 << 17  // that may be blocked
	maxRequest = 1 << 20  // bytes of a body: more than a batch can have, see TestLargest
	maxSync    = 16 << 20 // bytes of a body with sources
	maxAnswer  = 1 << 20  // bytes
	patience   = 5 * time.Second
)

// instanceHeader is in each answer, and another after a restart of the service.
const instanceHeader = "Nftsentry-Instance"

// A batch are events in their order.
type batch struct {
	Events []hook.Event `json:"events"`
}

// blocked are all sources that are blocked.
type blocked struct {
	Sources []netip.Prefix `json:"sources"`
}

// tally is what has become of events.
type tally struct {
	Hooks []hook.Stat `json:"hooks"`
}

// A draft is a configuration that was read, and waits for its commit.
type draft struct {
	ID string `json:"id"`
	// Config is the file; "" for the built-in defaults. Only an answer has it.
	Config string `json:"config,omitempty"`
}

// A problem is an answer that says what is wrong.
type problem struct {
	Error string `json:"error"`
}

// check says what is wrong with a batch.
func (b batch) check() error {
	if len(b.Events) > maxBatch {
		return fmt.Errorf("%d events: at most %d at once", len(b.Events), maxBatch)
	}
	for i, e := range b.Events {
		if err := checkEvent(e); err != nil {
			return fmt.Errorf("events[%d]: %w", i, err)
		}
	}
	return nil
}

func checkEvent(e hook.Event) error {
	switch e.On {
	case hook.Block, hook.Unblock, hook.Run, hook.Before:
	default:
		return fmt.Errorf("on %.32q: there are block, unblock, run and before", string(e.On))
	}
	if !e.Source.IsValid() && !e.Address.IsValid() {
		return errors.New("has no source and no address")
	}
	if e.Address.Zone() != "" {
		return errors.New("the address has a zone")
	}
	if e.Strikes < 0 {
		return errors.New("strikes are negative")
	}
	return nil
}

// check says what is wrong with sources.
func (b blocked) check() error {
	if len(b.Sources) > maxSources {
		return fmt.Errorf("%d sources: at most %d", len(b.Sources), maxSources)
	}
	for i, p := range b.Sources {
		if !p.IsValid() {
			return fmt.Errorf("sources[%d] is no prefix", i)
		}
	}
	return nil
}
