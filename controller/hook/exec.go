package hook

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"
)

// A runs is a sink that runs a program.
type runs struct {
	trust   trust
	command []string
	ran     func(Event, string) // nil for nobody
	log     *zap.Logger
}

var _ sink = (*runs)(nil)

// do runs the program for the one event of a job. An error that has an output is a programError.
func (r *runs) do(ctx context.Context, j *job) error {
	e := j.events[0]
	began := time.Now()
	args := arguments(r.command[1:], e)
	out, err := r.trust.run(ctx, command{path: r.command[0], args: args, env: environment(e)})
	if err != nil {
		return &programError{fmt.Errorf("run %s: %w", r.command[0], err), string(out)}
	}
	r.log.Debug("hook program has run", zap.String("command", r.command[0]), zap.String("event", string(e.On)),
		zap.String("target", e.Target()), zap.Duration("took", time.Since(began)), zap.String("output", strconv.Quote(string(out))))
	if r.ran != nil {
		r.ran(e, strings.Join(append([]string{r.command[0]}, args...), " "))
	}
	return nil
}

// A programError is the error of a program that has printed something, perhaps.
type programError struct {
	err    error
	output string
}

func (p *programError) Error() string { return p.err.Error() }
func (p *programError) Unwrap() error { return p.err }

// arguments replaces the tokens in arguments, all in one pass, so that no value is looked at again.
func arguments(args []string, e Event) []string {
	replace := strings.NewReplacer("$TARGET$", e.Target(), "$PORT$", strconv.Itoa(int(e.Port)), "$MODE$", e.Mode,
		"$PROTOCOL$", e.Protocol, "$KIND$", e.Kind)
	out := make([]string, len(args))
	for i, arg := range args {
		out[i] = replace.Replace(arg)
	}
	return out
}

// environment is what a program learns of an event, besides its arguments.
func environment(e Event) []string {
	return []string{
		"NFTSENTRY_EVENT=" + string(e.On),
		"NFTSENTRY_TARGET=" + e.Target(),
		"NFTSENTRY_SOURCE=" + e.sourceText(),
		"NFTSENTRY_PORT=" + strconv.Itoa(int(e.Port)),
		"NFTSENTRY_MODE=" + e.Mode,
		"NFTSENTRY_PROTOCOL=" + e.Protocol,
		"NFTSENTRY_KIND=" + e.Kind,
		"NFTSENTRY_EVIDENCE=" + e.Evidence,
		"NFTSENTRY_STRIKES=" + strconv.Itoa(e.Strikes),
		"NFTSENTRY_SINCE=" + stamp(e.Since),
		"NFTSENTRY_UNTIL=" + stamp(e.Until),
		"NFTSENTRY_COMMENT=" + e.Comment,
	}
}

// stamp writes a time as RFC 3339 in UTC, "" if it is zero.
func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}
