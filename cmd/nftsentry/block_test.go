package main

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"nftsentry/conf"
	"nftsentry/controller"
	"nftsentry/controller/api"
)

// TestBounds holds together what must be the same on both ends of the socket.
func TestBounds(t *testing.T) {
	if api.MinTimeout != controller.MinTimeout || api.MaxTimeout != controller.MaxTimeout {
		t.Errorf("the socket takes timeouts from %v to %v, the controller from %v to %v",
			api.MinTimeout, api.MaxTimeout, controller.MinTimeout, controller.MaxTimeout)
	}
}

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
