package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"net/netip"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"nftsentry/conf"
	"nftsentry/controller"
	"nftsentry/controller/api"
)

func newBlock(o *options) *cobra.Command {
	var timeout, comment, file string
	cmd := &cobra.Command{
		Use:   "block ADDRESS|PREFIX... | --file FILE",
		Short: "Block sources now, or change how long they are blocked",
		Long: fmt.Sprintf(`Block blocks addresses and prefixes. One that is blocked already gets the new
end, sooner or later. Without --timeout a block lasts as long as one that a
decoy makes, longer with each strike.

An IPv6 address is one address here, of the many that its host has. A decoy
blocks the /64 around whoever touches it (block.prefix6): name that to block
the host.

Of several, %d at most, either all are blocked or none. Hosts for which
there is no room (block.max) take the place of blocks on unproven evidence, and of
no others; one alone takes the place of the block that ends soonest if there are
none of these.

Ignored sources are never blocked: their names are refused, and in a prefix
that lies around them they are spared.`, api.MaxBulk),
		Example: `  nftsentry block 192.0.2.7
  nftsentry block --timeout 7d --comment "abuse desk" 198.51.100.0/24 2001:db8:1::/48
  nftsentry block 2001:db8:2:3::/64
  nftsentry block --timeout 30d --file drop.txt`,
		Args: arguments(0, math.MaxInt, "addresses and prefixes, or --file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 && file == "" {
				return usagef("block takes one address or prefix or more: see \"%s --help\"", cmd.CommandPath())
			}
			request, err := blockRequest(args, file, timeout, comment)
			if err != nil {
				return err
			}
			client, err := o.client()
			if err != nil {
				return err
			}
			return o.block(cmd.Context(), client, request, file != "")
		},
	}
	cmd.Flags().StringVar(&file, "file", "", "read more of them from a `file`, one a line, or from standard input for -; # begins a comment")
	_ = cmd.RegisterFlagCompletionFunc("file", completeFile) // the flag is there
	cmd.Flags().StringVar(&timeout, "timeout", "", "how long, such as 1h30m or 7d: "+timeoutBounds())
	cmd.Flags().StringVar(&comment, "comment", "", fmt.Sprintf("why, shown by list and by nft; at most %d bytes", api.MaxComment))
	return o.asks(cmd)
}

// blockRequest reads all of the command line, and the file that it names,
// before anything is done.
func blockRequest(args []string, file, timeout, comment string) (r api.BulkRequest, err error) {
	if r.Seconds, err = parseTimeout(timeout); err != nil {
		return r, usagef("--timeout %s: %w", timeout, err)
	}
	if r.Comment, err = api.ParseComment(comment); err != nil {
		return r, usagef("--comment: %w", err)
	}
	for _, arg := range args {
		source, err := blockable(arg)
		if err != nil {
			return r, &usageError{err}
		}
		r.Sources = append(r.Sources, api.Display(source))
	}
	if file != "" {
		sources, err := readSources(file)
		if err != nil {
			return r, &usageError{err}
		}
		r.Sources = append(r.Sources, sources...)
	}
	if len(r.Sources) > api.MaxBulk {
		return r, usagef("%d sources: at most %d at once: block larger prefixes, or in parts", len(r.Sources), api.MaxBulk)
	}
	return r, nil
}

// block asks for blocks and prints a line for each, or how many there are of
// those in a file.
func (o *options) block(ctx context.Context, client *api.Client, r api.BulkRequest, file bool) error {
	if len(r.Sources) == 1 {
		return o.each(1, func(int) (string, error) {
			b, err := client.Block(ctx, api.BlockRequest{Source: r.Sources[0], Seconds: r.Seconds, Comment: r.Comment})
			return blocked(b), err
		})
	}
	var lines bytes.Buffer
	n := 0
	err := client.BlockMany(ctx, r, func(b api.Block) error {
		if n++; !file {
			lines.WriteString(blocked(b) + "\n")
		}
		return nil
	})
	if err != nil {
		return err
	}
	if file {
		lines.WriteString("blocked " + plural(n, "source") + "\n")
	}
	return o.out.raw(lines.Bytes())
}

func blocked(b api.Block) string {
	return fmt.Sprintf("blocked %s until %s", b.Source, b.Until.Format(time.RFC3339))
}

// readSources reads addresses and prefixes from a file, or from standard input
// for "-". The error says all that is wrong, each with its line.
func readSources(file string) (sources []string, err error) {
	in := os.Stdin
	if file != "-" {
		if in, err = os.Open(file); err != nil {
			return nil, notList(file, err)
		}
		defer in.Close()
	}
	return scanSources(in, file)
}

func scanSources(in io.Reader, name string) (sources []string, err error) {
	var wrong api.Complaints
	scan := bufio.NewScanner(in)
	for line := 1; scan.Scan(); line++ {
		text, _, _ := strings.Cut(scan.Text(), "#")
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		if !utf8.ValidString(text) || strings.ContainsRune(text, 0) {
			return nil, notList(fmt.Sprintf("%s:%d", name, line), errors.New("not text"))
		}
		source, err := blockable(text)
		if strings.ContainsAny(text, " \t;,") {
			err = &api.SourceError{Got: text, Want: "one address or prefix a line, with a # before a comment"}
		}
		if err != nil {
			wrong.Add(fmt.Errorf("%s:%d: %w", name, line, err))
			continue
		}
		sources = append(sources, api.Display(source))
	}
	if err := scan.Err(); err != nil {
		return nil, notList(name, err)
	}
	if wrong.Err() == nil && len(sources) == 0 {
		return nil, fmt.Errorf("%s: no address or prefix in it: write one a line, with a # before a comment", name)
	}
	return sources, wrong.Err()
}

// notList says what cannot be read as a list of sources, and what can.
func notList(name string, err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		err = path.Err
	}
	return fmt.Errorf("%s: %w: name a file with one address or prefix a line, or - for standard input", name, err)
}

// parseTimeout reads a timeout in seconds; "" is 0.
func parseTimeout(s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	d, err := conf.ParseDuration(s)
	if err != nil && !errors.Is(err, conf.ErrTooLong) {
		return 0, err
	}
	if err != nil || d < controller.MinTimeout || d > controller.MaxTimeout {
		return 0, errors.New(timeoutBounds())
	}
	return int64(d / time.Second), nil
}

func timeoutBounds() string {
	return fmt.Sprintf("from %s to %s", conf.FormatDuration(controller.MinTimeout), conf.FormatDuration(controller.MaxTimeout))
}

// each does something n times, prints what came of it, goes on after a
// failure and fails in the end. What went wrong in the same way each time is
// said once.
func (o *options) each(n int, do func(i int) (string, error)) error {
	var end error
	said := make(map[string]bool)
	for i := range n {
		line, err := do(i)
		if err != nil {
			if text := err.Error(); !said[text] {
				o.out.message(err)
				said[text] = true
			}
			end = worse(end, err)
			continue
		}
		if _, err := fmt.Fprintln(o.out.data, line); err != nil {
			return fmt.Errorf("write to standard output: %w", err)
		}
	}
	return end
}

// worse is how a command ends that has said what went wrong: as one that was
// asked in a wrong way, if any of its errors is of that kind.
func worse(end, err error) error {
	if isUsage(end) || isUsage(err) {
		return &usageError{errSilent}
	}
	return errSilent
}

// blockable reads a source that is not everybody: a slip of a digit is no
// reason to cut the host off.
func blockable(text string) (netip.Prefix, error) {
	source, err := api.ParseSource(text)
	if err == nil && source.Bits() == 0 {
		err = fmt.Errorf("%s is everybody, you too: name narrower prefixes", source)
	}
	return source, err
}
