package conf

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	tt "text/template"
	"text/template/parse"
	"time"
)

// Lengths of templates in bytes.
const (
	maxSubject  = 1024
	maxTemplate = 16 << 10
)

// maxMade is how much a template may make of the sample, in bytes.
const maxMade = 64 << 10

// An eventSample has what a template can say of an event.
type eventSample struct {
	Event, Target, Source                  string
	Port                                   int
	Protocol, Kind, Evidence, Mode, Origin string
	Comment, Reason, Host                  string
	Strikes                                int
	Since, Until                           time.Time
}

// A mailSample has what a template can say in a mail.
type mailSample struct {
	Host                string
	Events              []eventSample
	More, Total, Others int
}

func sampleEvent() any { return someEvent() }

func someEvent() eventSample {
	now := time.Now()
	return eventSample{
		Event: "block", Target: "192.0.2.7", Source: "192.0.2.7/32", Port: 23, Protocol: "tcp", Kind: "connect", Evidence: "proven",
		Mode: "stcp", Origin: "decoy", Host: "host.example.org", Strikes: 1, Since: now, Until: now.Add(time.Hour),
	}
}

func sampleMail() any {
	return mailSample{Host: "host.example.org", Events: []eventSample{someEvent(), someEvent()}, More: 3, Total: 5, Others: 4}
}

// templateFuncs are what templates have besides the functions of text/template.
var templateFuncs = tt.FuncMap{
	"json": func(v any) (string, error) { b, err := json.Marshal(v); return string(b), err },
}

// template is a text/template of so many bytes that works with a sample.
func template(most int, sample func() any) form[string] {
	return func(value any) (string, error) {
		s, err := asString(value, "a template")
		if err != nil {
			return "", err
		}
		if len(s) > most {
			return "", fmt.Errorf("%d bytes long, at most %d are allowed", len(s), most)
		}
		return s, tryTemplate(s, sample())
	}
}

// tryTemplate executes a template.
func tryTemplate(s string, sample any) error {
	t, err := tt.New("").Funcs(templateFuncs).Option("missingkey=error").Parse(s)
	if err != nil {
		return templateError(err)
	}
	for _, one := range t.Templates() {
		if one.Tree != nil && counts(one.Root) {
			return errors.New("a range over a number is not allowed: range over .Events")
		}
	}
	if err := t.Execute(&bounded{left: maxMade}, sample); err != nil {
		return templateError(err)
	}
	return nil
}

// counts says whether a template ranges over a number that it names, which could keep it busy for ever.
func counts(node parse.Node) bool {
	switch n := node.(type) {
	case *parse.ListNode:
		if n == nil {
			return false
		}
		for _, one := range n.Nodes {
			if counts(one) {
				return true
			}
		}
	case *parse.RangeNode:
		return n.Pipe == nil || !overEvents(n.Pipe) || counts(n.List) || counts(n.ElseList)
	case *parse.IfNode:
		return counts(n.List) || counts(n.ElseList)
	case *parse.WithNode:
		return counts(n.List) || counts(n.ElseList)
	}
	return false
}

// overEvents says whether a range goes over .Events, or $.Events.
func overEvents(pipe *parse.PipeNode) bool {
	return len(pipe.Cmds) == 1 && len(pipe.Cmds[0].Args) == 1 && strings.HasSuffix(pipe.Cmds[0].Args[0].String(), ".Events")
}

// templateError says what text/template has found, without its prefixes.
func templateError(err error) error {
	s := strings.TrimPrefix(err.Error(), "template: ")
	if i := strings.Index(s, ": executing "); i >= 0 {
		s = s[i+2:]
	}
	return fmt.Errorf("not a template that works: %s", cutTo(line(strings.TrimPrefix(s, ":")), 4*maxShown))
}

// A bounded takes so many bytes, and then an error.
type bounded struct{ left int }

func (b *bounded) Write(p []byte) (int, error) {
	if b.left -= len(p); b.left < 0 {
		return 0, fmt.Errorf("it makes more than %d KiB", maxMade>>10)
	}
	return len(p), nil
}
