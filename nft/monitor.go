package nft

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/mdlayher/netlink"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// A Monitor notices what others do to our table, by the events that the
// kernel sends after each transaction. What a Table does itself never reaches
// it: the kernel drops those events at its socket, see ownPorts.
type Monitor struct {
	log     *zap.Logger
	conn    *netlink.Conn
	own     *ownPorts
	changes chan Change // of size 1; filled by Run alone, which joins what nobody has taken yet; never closed
	found   gatherer    // belongs to Run
}

// OpenMonitor subscribes to the changes that anybody but t makes to the
// table, in the network namespace of t. They wait in the Monitor until Run;
// the caller closes it. It may be opened before or after Load.
func OpenMonitor(t *Table, log *zap.Logger) (*Monitor, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: t.netns})
	if err != nil {
		return nil, fmt.Errorf("open nf_tables events: %w", err)
	}
	m := &Monitor{log: log, conn: conn, own: &t.ports, changes: make(chan Change, 1)}
	if err := m.subscribe(); err != nil {
		return nil, fmt.Errorf("open nf_tables events: %w", errors.Join(err, m.Close()))
	}
	return m, nil
}

// eventBuffer is what the socket asks for, in bytes: room for the events of
// some 50,000 elements that others add to sets of theirs at once.
const eventBuffer = 8 << 20

// subscribe joins the group last, so that there is never an event of our own.
func (m *Monitor) subscribe() error {
	if err := m.conn.SetReadBuffer(eventBuffer); err != nil {
		return err
	}
	if err := m.own.watch(m); err != nil {
		return err
	}
	return m.conn.JoinGroup(unix.NFNLGRP_NFTABLES)
}

// Close ends the subscription, and Run with an error.
func (m *Monitor) Close() error {
	m.own.unwatch(m)
	return m.conn.Close()
}

// Changes tells what others have done. A change comes once its transaction is
// in force and all its events are read; those that come before somebody looks
// are joined into one.
func (m *Monitor) Changes() <-chan Change { return m.changes }

// tell never waits: nobody else puts anything into the channel.
func (m *Monitor) tell(c Change) {
	select {
	case waiting := <-m.changes:
		c = waiting.join(c)
	default:
	}
	m.changes <- c
}

// Run reads events until ctx ends, and then returns nil. It is called once.
func (m *Monitor) Run(ctx context.Context) error {
	wake := context.AfterFunc(ctx, func() { _ = m.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer wake()
	for {
		messages, err := m.conn.Receive()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS):
			err = m.overrun(ctx)
		}
		if err != nil {
			return fmt.Errorf("read nf_tables events: %w", err)
		}
		for _, msg := range messages {
			if c, ended := m.found.message(msg); ended && c.touched() {
				m.tell(c)
			}
		}
	}
}

// How long an overrun socket has to be silent to be taken for empty, and how
// long it may take until then before that is told all the same.
const (
	silence    = 10 * time.Millisecond
	longestRun = 100 * time.Millisecond
)

// overrun reads on until nothing is left, and tells that anything may have
// happened. The kernel says ENOBUFS once and goes on dropping events until the
// socket has been empty (netlink_overrun in net/netlink/af_netlink.c): what is
// told before that would not cover what is dropped after it.
func (m *Monitor) overrun(ctx context.Context) error {
	m.log.Debug("nf_tables events were lost")
	for empty := false; !empty && ctx.Err() == nil; {
		var err error
		if empty, err = m.drain(ctx); err != nil {
			return err
		}
		m.found = gatherer{}
		m.tell(Change{Shape: true, All: true})
	}
	return m.deadline(ctx, time.Time{})
}

func (m *Monitor) drain(ctx context.Context) (empty bool, err error) {
	for began := time.Now(); time.Since(began) < longestRun; {
		if err := m.deadline(ctx, time.Now().Add(silence)); err != nil {
			return false, err
		}
		_, err := m.conn.Receive()
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return true, nil
		case err != nil && !errors.Is(err, unix.ENOBUFS):
			return false, err
		}
	}
	return false, nil
}

// deadline sets a deadline for reading, but not over that of an ended ctx.
func (m *Monitor) deadline(ctx context.Context, at time.Time) error {
	err := m.conn.SetReadDeadline(at)
	if ctx.Err() != nil {
		return m.conn.SetReadDeadline(time.Unix(1, 0))
	}
	return err
}
