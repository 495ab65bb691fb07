package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestClientOfMistaken shows that a mistake in the configuration does not keep
// anyone from the daemon, which runs on with what it has read before.
func TestClientOfMistaken(t *testing.T) {
	var messages bytes.Buffer
	o := &options{config: filepath.Join(t.TempDir(), "nftsentry.toml"), out: &output{messages: &messages}}
	if err := os.WriteFile(o.config, []byte("mode = \"bogus\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	client, err := o.client()
	if client == nil || err != nil {
		t.Errorf("no client: %v", err)
	}
	if !strings.Contains(messages.String(), "has mistakes") {
		t.Errorf("the mistake is not told of: %q", messages.String())
	}
	o.config += ".missing"
	if _, err := o.client(); !isUsage(err) {
		t.Errorf("a file that is not there ends with %v", err)
	}
}
