package main

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nftsentry/conf"
	"nftsentry/controller"
	"nftsentry/controller/api"
)

func TestParseTimeout(t *testing.T) {
	for text, want := range map[string]time.Duration{"": 0, "1s": time.Second, "1h30m": 90 * time.Minute, "3650d": controller.MaxTimeout} {
		if got, err := parseTimeout(text); got != int64(want/time.Second) || err != nil {
			t.Errorf("parseTimeout(%q) = %d, %v, want %v", text, got, err, want)
		}
	}
	for text, want := range map[string]string{
		"0s": "from 1s to 3650d", "3650d1s": "from 1s to 3650d", "106751d23h47m16s": "from 1s to 3650d",
		"99999999999999999999d": "from 1s to 3650d", "9w999999999999h": "from 1s to 3650d",
		"10": `a duration needs a unit, such as "10s"`,
	} {
		if got, err := parseTimeout(text); err == nil || err.Error() != want {
			t.Errorf("parseTimeout(%q) = %d, %v, want %q", text, got, err, want)
		}
	}
	if bound := conf.FormatDuration(controller.MaxTimeout); bound != "3650d" {
		t.Errorf("the longest timeout is written %s", bound)
	}
}

// TestEach shows what is said of many things of which some fail.
func TestEach(t *testing.T) {
	no, nor, wrong := errors.New("no"), errors.New("nor that"), &api.RequestError{Err: errors.New("how")}
	for name, tt := range map[string]struct {
		errs     []error
		code     int
		messages string
		data     string
	}{
		"all done":      {[]error{nil, nil}, 0, "", "did\ndid\n"},
		"one fails":     {[]error{no, nil}, 1, "nftsentry: no\n", "did\n"},
		"each its way":  {[]error{no, nor, no}, 1, "nftsentry: no\nnftsentry: nor that\n", ""},
		"wrong":         {[]error{wrong, wrong, wrong}, 2, "nftsentry: how\n", ""},
		"wrong, failed": {[]error{wrong, no, nil}, 2, "nftsentry: how\nnftsentry: no\n", "did\n"},
	} {
		var data, messages bytes.Buffer
		o := &options{out: &output{data: &data, messages: &messages}}
		code := o.out.finish(o.each(len(tt.errs), func(i int) (string, error) { return "did", tt.errs[i] }))
		if code != tt.code || messages.String() != tt.messages || data.String() != tt.data {
			t.Errorf("%s: exit status %d, %q, %q, want %d, %q, %q", name, code, messages.String(), data.String(), tt.code, tt.messages, tt.data)
		}
	}
}

// TestBounds holds the bounds that the api names to those of the controller,
// which may not know of each other.
func TestBounds(t *testing.T) {
	if api.MaxComment != controller.MaxComment || api.MinTimeout != controller.MinTimeout || api.MaxTimeout != controller.MaxTimeout {
		t.Errorf("comments of %d and %d bytes, timeouts from %v and %v to %v and %v: want the same",
			api.MaxComment, controller.MaxComment, api.MinTimeout, controller.MinTimeout, api.MaxTimeout, controller.MaxTimeout)
	}
}

// TestExitStatus has the ends that a service manager tells from others.
func TestExitStatus(t *testing.T) {
	for name, tt := range map[string]struct {
		err  error
		want int
	}{
		"done":   {nil, 0},
		"failed": {errors.New("no"), 1},
		"usage":  {usagef("how"), 2},
		"denied": {fmt.Errorf("%w: %w", controller.ErrDenied, unix.EPERM), 3},
	} {
		var messages bytes.Buffer
		if got := (&output{messages: &messages}).finish(tt.err); got != tt.want {
			t.Errorf("%s: exit status %d, want %d", name, got, tt.want)
		}
	}
}

// TestScanSources reads lists, good and bad.
func TestScanSources(t *testing.T) {
	bad := strings.Repeat("x\n", 100)
	for _, tt := range []struct {
		name, text string
		want       []string
		wrong      []string // how the lines of the error begin
	}{
		{"hosts and prefixes", "192.0.2.7\n2001:db8::/48\n::ffff:192.0.2.8\n", []string{"192.0.2.7", "2001:db8::/48", "192.0.2.8"}, nil},
		{"comments, blanks and no end", "# all of it\n\n \t192.0.2.7 # one\r\n192.0.2.8", []string{"192.0.2.7", "192.0.2.8"}, nil},
		{"nothing", "# none\n", nil, []string{"list: no address or prefix in it"}},
		{"two bad lines", "192.0.2.7\nlocalhost\n\n10.0.0.1/8 # bits", nil, []string{"list:2: \"localhost\"", "list:4: \"10.0.0.1/8\""}},
		{"many bad lines", bad, nil, append(slices.Repeat([]string{"list:"}, 19), "and 81 more like these")},
		{"a line without end", strings.Repeat("1", 1<<17), nil, []string{"list: bufio.Scanner: token too long: name a file with one address"}},
		{"not text", "\x7fELF\x00\n\x00\n", nil, []string{"list:1: not text: name a file with one address"}},
		{"a comment of another kind", "; none\n192.0.2.7 twice", nil, []string{`list:1: "; none" is not a source: write one address or prefix a line, with a #`, `list:2: "192.0.2.7 twice" is`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := scanSources(strings.NewReader(tt.text), "list")
			if tt.wrong == nil && (err != nil || !slices.Equal(got, tt.want)) {
				t.Errorf("scanSources = %q, %v, want %q", got, err, tt.want)
			}
			var lines []string
			if err != nil {
				lines = strings.Split(err.Error(), "\n")
			}
			if !slices.EqualFunc(lines, tt.wrong, strings.HasPrefix) {
				t.Errorf("wrong are %q, want %q", lines, tt.wrong)
			}
		})
	}
}
