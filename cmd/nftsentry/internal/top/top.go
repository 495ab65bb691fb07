package top

import (
	"context"
	"errors"
	"io"
	"time"

	tea "charm.land/bubbletea/v2"
	"golang.org/x/sync/errgroup"

	"nftsentry/controller/api"
)

// Run shows what the daemon does until a key, ctx or the daemon ends it, and
// leaves the terminal as it was. The terminal is in and out; signals are the
// caller's, to end ctx by.
//
// Errors: those of the daemon; nil when a person or ctx has ended it.
func Run(ctx context.Context, daemon Daemon, in io.Reader, out io.Writer) error {
	if _, err := daemon.Status(ctx); err != nil {
		return err // before the screen is taken
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	m := newModel(ctx, daemon, time.Now())
	// Neither its context nor its signals: after these the library closes its
	// reader while that still reads. Quit waits for the reader.
	program := tea.NewProgram(m, tea.WithoutSignalHandler(), tea.WithInput(in), tea.WithOutput(out))
	defer context.AfterFunc(ctx, program.Quit)()
	var watching errgroup.Group
	watching.Go(func() error { return follow(ctx, daemon, program.Send) })
	_, err := program.Run()
	cancel()
	_ = watching.Wait() // its error was sent
	return errors.Join(err, m.err)
}

const (
	gatherFor = 100 * time.Millisecond // events, before they are shown
	gathered  = 4096                   // at most
)

// follow sends events in bundles, so that a flood of them costs no more than a
// few pictures a second, and in the end why there are no more.
func follow(ctx context.Context, daemon Daemon, send func(tea.Msg)) error {
	all := make(chan api.Event, gathered)
	g, inner := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(all)
		return daemon.Watch(inner, api.EventFilter{}, func(e api.Event) error {
			select {
			case all <- e:
				return nil
			case <-inner.Done():
				return inner.Err()
			}
		})
	})
	g.Go(func() error {
		for bundle := range bundles(all) {
			send(bundle)
		}
		return nil
	})
	err := g.Wait()
	send(ended{err})
	return err
}

// bundles gathers events until there are none.
func bundles(all <-chan api.Event) func(yield func(events) bool) {
	return func(yield func(events) bool) {
		for first := range all {
			time.Sleep(gatherFor)
			bundle := events{first}
			for len(all) > 0 && len(bundle) < gathered {
				bundle = append(bundle, <-all)
			}
			if !yield(bundle) {
				return
			}
		}
	}
}
