package integration

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"nftsentry/integration/netns"
)

// A browser is a Chromium without a window, in a network of its own, which is
// told what to do by its DevTools protocol over a pipe:
// https://chromedevtools.github.io/devtools-protocol/
type browser struct {
	t       testing.TB
	out     *os.File
	answers *bufio.Reader
	session string // of the page
	id      int
	events  []cdpMessage // that came meanwhile
	log     *lockedBuffer
}

// A cdpMessage is an answer or an event.
type cdpMessage struct {
	ID     int             `json:"id"`
	Method string          `json:"method"`
	Params json.RawMessage `json:"params"`
	Result json.RawMessage `json:"result"`
	Error  *struct {
		Message string `json:"message"`
	} `json:"error"`
}

// browserPatience is how long a browser may take for anything.
const browserPatience = 90 * time.Second

// newBrowser starts a browser with an empty page. It ends with the test.
func newBrowser(t testing.TB) *browser {
	t.Helper()
	host := netns.New(t, "browser")
	path := netns.Tool(t, "chromium")
	profile, err := os.MkdirTemp("", "nftsentry-chromium-") // not t.TempDir, to which it may write while that is removed
	if err != nil {
		t.Fatal(err)
	}
	inRead, inWrite, err := os.Pipe()
	outRead, outWrite, err2 := os.Pipe()
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	cmd := host.Command(path, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--no-default-browser-check",
		"--disable-extensions", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--user-data-dir="+profile,
		"--remote-debugging-pipe", "about:blank")
	cmd.Env = append(os.Environ(), "HOME="+profile, "XDG_CONFIG_HOME="+profile, "XDG_CACHE_HOME="+profile)
	cmd.ExtraFiles = []*os.File{inRead, outWrite} // 3 and 4
	b := &browser{t: t, out: inWrite, answers: bufio.NewReaderSize(outRead, 1<<20), log: &lockedBuffer{}}
	cmd.Stderr = b.log
	host.Start(t, cmd)
	_, _ = inRead.Close(), outWrite.Close()
	if err := outRead.SetReadDeadline(time.Now().Add(3 * browserPatience)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		b.end(cmd)
		_, _ = inWrite.Close(), outRead.Close()
		_ = os.RemoveAll(profile)
		if t.Failed() {
			t.Logf("log of the browser:\n%s", b.log)
		}
	})
	b.attach()
	return b
}

// end has the browser end, by force if it will not.
func (b *browser) end(cmd *exec.Cmd) {
	var ended errgroup.Group
	ended.Go(cmd.Wait)
	_, _ = b.out.WriteString(`{"id":0,"method":"Browser.close"}` + "\x00")
	timer := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	_ = ended.Wait() // how it ended is of no interest
}

// attach takes hold of the page.
func (b *browser) attach() {
	b.t.Helper()
	var target struct {
		TargetID string `json:"targetId"`
	}
	b.call("Target.createTarget", map[string]any{"url": "about:blank"}, &target)
	var session struct {
		SessionID string `json:"sessionId"`
	}
	b.call("Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &session)
	b.session = session.SessionID
	for _, domain := range []string{"Page", "Runtime", "Log", "Network"} {
		b.call(domain+".enable", nil, nil)
	}
}

// call tells the browser to do something, and waits for its answer.
func (b *browser) call(method string, params map[string]any, result any) {
	b.t.Helper()
	b.id++
	message := map[string]any{"id": b.id, "method": method}
	if params != nil {
		message["params"] = params
	}
	if b.session != "" {
		message["sessionId"] = b.session
	}
	data, err := json.Marshal(message)
	if err == nil {
		_, err = b.out.Write(append(data, 0))
	}
	if err != nil {
		b.t.Fatalf("%s: %v", method, err)
	}
	m := b.await(func(m cdpMessage) bool { return m.ID == b.id })
	if m.Error != nil {
		b.t.Fatalf("%s: %s", method, m.Error.Message)
	}
	if result != nil {
		if err := json.Unmarshal(m.Result, result); err != nil {
			b.t.Fatalf("%s: %v", method, err)
		}
	}
}

// await reads until a message is the right one, and keeps the others.
func (b *browser) await(right func(cdpMessage) bool) cdpMessage {
	b.t.Helper()
	for {
		data, err := b.answers.ReadBytes(0)
		if err != nil {
			b.t.Fatalf("the browser does not answer: %v", err)
		}
		var m cdpMessage
		if err := json.Unmarshal(bytes.TrimSuffix(data, []byte{0}), &m); err != nil {
			b.t.Fatal(err)
		}
		if right(m) {
			return m
		}
		b.events = append(b.events, m)
	}
}

// open shows a file in a window of some size, with a colour scheme.
func (b *browser) open(file string, width, height int, scheme string) {
	b.t.Helper()
	b.call("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}, nil)
	b.call("Emulation.setEmulatedMedia", map[string]any{"features": []map[string]string{{"name": "prefers-color-scheme", "value": scheme}}}, nil)
	b.events = nil
	b.call("Page.navigate", map[string]any{"url": "file://" + file}, nil)
	b.settled()
}

// settled waits until the page is there.
func (b *browser) settled() {
	b.t.Helper()
	for _, m := range b.events {
		if m.Method == "Page.loadEventFired" {
			return
		}
	}
	b.events = append(b.events, b.await(func(m cdpMessage) bool { return m.Method == "Page.loadEventFired" }))
}

// evaluate gives the value of an expression on the page.
func (b *browser) evaluate(expression string, value any) {
	b.t.Helper()
	var out struct {
		Result struct {
			Value json.RawMessage `json:"value"`
		} `json:"result"`
		Exception *json.RawMessage `json:"exceptionDetails"`
	}
	b.call("Runtime.evaluate", map[string]any{"expression": expression, "returnByValue": true}, &out)
	if out.Exception != nil {
		b.t.Fatalf("%s: %s", expression, *out.Exception)
	}
	if err := json.Unmarshal(out.Result.Value, value); err != nil {
		b.t.Fatalf("%s: %q: %v", expression, out.Result.Value, err)
	}
}

// data gives what a method answers in the field data.
func (b *browser) data(method string, params map[string]any) []byte {
	b.t.Helper()
	var out struct {
		Data string `json:"data"`
	}
	b.call(method, params, &out)
	data, err := base64.StdEncoding.DecodeString(out.Data)
	if err != nil {
		b.t.Fatal(err)
	}
	return data
}

// complaints are what the browser did not like of the page, and what the page has asked for besides itself.
func (b *browser) complaints(file string) (out []string) {
	for _, m := range b.events {
		switch m.Method {
		case "Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded", "Network.loadingFailed":
			out = append(out, fmt.Sprintf("%s %s", m.Method, m.Params))
		case "Network.requestWillBeSent":
			var p struct {
				Request struct {
					URL string `json:"url"`
				} `json:"request"`
			}
			if err := json.Unmarshal(m.Params, &p); err != nil || p.Request.URL != "file://"+file {
				out = append(out, "request "+p.Request.URL)
			}
		}
	}
	return out
}
