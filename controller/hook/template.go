package hook

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"text/template"
	"time"
)

// A Row is what templates can say of an event, and what a webhook sends. All texts are on one line.
type Row struct {
	Event    string    `json:"event"`
	Target   string    `json:"target"`
	Source   string    `json:"source"`
	Port     int       `json:"port"`
	Protocol string    `json:"protocol"`
	Kind     string    `json:"kind"`
	Evidence string    `json:"evidence"`
	Mode     string    `json:"mode"`
	Origin   string    `json:"origin"`
	Comment  string    `json:"comment"`
	Reason   string    `json:"reason"`
	Host     string    `json:"host"`
	Strikes  int       `json:"strikes"`
	Since    time.Time `json:"since,omitzero"`
	Until    time.Time `json:"until,omitzero"`
}

// row makes a Row of an event.
func row(e Event, host string) Row {
	return Row{
		Event: string(e.On), Target: e.Target(), Source: e.sourceText(), Port: int(e.Port), Protocol: e.Protocol, Kind: e.Kind,
		Evidence: e.Evidence, Mode: e.Mode, Origin: e.Origin, Comment: e.Comment, Reason: e.Reason, Host: host,
		Strikes: e.Strikes, Since: e.Since, Until: e.Until,
	}
}

// A Letter is what templates can say in a mail.
type Letter struct {
	Host   string
	Events []Row
	// More is how many events the mail counts and does not have; Total is with them, Others is all but the first.
	More, Total, Others int
}

// funcs are what templates have besides the functions of text/template.
var funcs = template.FuncMap{
	"json": func(v any) (string, error) {
		b, err := json.Marshal(v)
		return string(b), err
	},
}

// parse reads a template and tries it.
func parse(name, text string, sample any) (*template.Template, error) {
	t, err := template.New(name).Funcs(funcs).Option("missingkey=error").Parse(text)
	if err != nil {
		return nil, err
	}
	if _, err = expand(t, sample, maxBody); err != nil {
		return nil, err
	}
	return t, nil
}

// expand executes a template. What is more than so many bytes is cut off.
func expand(t *template.Template, data any, most int) (string, error) {
	b := &bounded{most: most}
	err := t.Execute(b, data)
	if b.full {
		return cut(b.String(), most), nil
	}
	if err != nil {
		return "", fmt.Errorf("template: %w", err)
	}
	return b.String(), nil
}

// A bounded takes so many bytes and one more, and then an error.
type bounded struct {
	bytes.Buffer
	most int
	full bool
}

func (b *bounded) Write(p []byte) (int, error) {
	n, _ := b.Buffer.Write(p[:min(len(p), b.most+1-b.Len())])
	if n < len(p) {
		b.full = true
		return n, fmt.Errorf("more than %d bytes", b.most)
	}
	return n, nil
}

// sampleRow and sampleLetter are what templates are tried with.
func sampleRow() Row {
	now := time.Now()
	return row(Event{
		On: Block, Source: netip.MustParsePrefix("192.0.2.7/32"), Address: netip.MustParseAddr("192.0.2.7"), Port: 23, Protocol: "tcp",
		Kind: "connect", Evidence: "proven", Mode: "stcp", Origin: "decoy", Strikes: 1, Since: now, Until: now.Add(time.Hour),
	}, "host.example.org")
}

func sampleLetter() Letter {
	return Letter{Host: "host.example.org", Events: []Row{sampleRow(), sampleRow()}, More: 3, Total: 5, Others: 4}
}
