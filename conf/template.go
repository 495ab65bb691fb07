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

// templateFuncs are what templates have besides the functions of text/template, and those of them that make texts: none of
// them makes more than maxMade bytes, or one could be made twice as long again and again.
var templateFuncs = tt.FuncMap{
	"json": func(v any) (string, error) {
		b, err := json.Marshal(v)
		return string(b), err
	},
	"print":    func(v ...any) (string, error) { return short(fmt.Sprint(v...)) },
	"println":  func(v ...any) (string, error) { return short(fmt.Sprintln(v...)) },
	"printf":   func(format string, v ...any) (string, error) { return short(fmt.Sprintf(format, v...)) },
	"html":     func(v ...any) (string, error) { return short(tt.HTMLEscaper(v...)) },
	"js":       func(v ...any) (string, error) { return short(tt.JSEscaper(v...)) },
	"urlquery": func(v ...any) (string, error) { return short(tt.URLQueryEscaper(v...)) },
}

// short is a text that is not longer than a template may make.
func short(s string) (string, error) {
	if len(s) > maxMade {
		return "", errMade
	}
	return s, nil
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
	if len(t.Templates()) > 1 {
		return errDefine
	}
	if t.Tree != nil {
		if err := brief(t.Root, false); err != nil {
			return err
		}
	}
	if err := t.Execute(&bounded{left: maxMade}, sample); err != nil {
		return templateError(err)
	}
	return nil
}

var (
	errMade   = fmt.Errorf("it makes more than %d KiB", maxMade>>10)
	errDefine = errors.New("a template within a template is not allowed")
	errRange  = errors.New("a range is allowed over .Events only, and not within another")
)

// brief reports what could keep a template busy for long: a range over a number, ranges and templates in each other.
func brief(node parse.Node, ranged bool) error {
	switch n := node.(type) {
	case *parse.ListNode:
		if n == nil {
			return nil
		}
		for _, one := range n.Nodes {
			if err := brief(one, ranged); err != nil {
				return err
			}
		}
	case *parse.RangeNode:
		if ranged || !overEvents(n.Pipe) {
			return errRange
		}
		return errors.Join(brief(n.List, true), brief(n.ElseList, ranged))
	case *parse.IfNode:
		return errors.Join(brief(n.List, ranged), brief(n.ElseList, ranged))
	case *parse.WithNode:
		return errors.Join(brief(n.List, ranged), brief(n.ElseList, ranged))
	case *parse.TemplateNode:
		return errDefine
	}
	return nil
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
		return 0, errMade
	}
	return len(p), nil
}
