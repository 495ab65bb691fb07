package hook

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"nftsentry/conf"
)

// TestTemplatesAgree holds that the configuration takes the templates that work here: the built-in ones, and one for each
// thing that there is to say.
func TestTemplatesAgree(t *testing.T) {
	mail := []string{defaultSubject, defaultBody, "{{json .}}"}
	for _, field := range reflect.VisibleFields(reflect.TypeFor[Letter]()) {
		mail = append(mail, "{{."+field.Name+"}}")
	}
	web := []string{"{{json .}}"}
	for _, field := range reflect.VisibleFields(reflect.TypeFor[Row]()) {
		web = append(web, "{{."+field.Name+"}}")
		mail = append(mail, "{{range .Events}}{{."+field.Name+"}}{{end}}")
	}
	for _, s := range mail {
		check(t, "[[hook.mail]]\nfrom = \"a@example.org\"\nto = [\"a@example.org\"]\nbody = '''\n%s'''\n", s)
	}
	for _, s := range web {
		check(t, "[[hook.webhook]]\nurl = \"https://example.org\"\nbody = '''\n%s'''\n", s)
	}
}

func check(t *testing.T, format, template string) {
	t.Helper()
	if _, err := conf.Parse("hooks.toml", fmt.Appendf(nil, format, template)); err != nil {
		t.Errorf("%q: %v", template, err)
	}
}

// TestContrib reads the webhooks of contrib/webhook, and makes requests of them.
func TestContrib(t *testing.T) {
	files, err := filepath.Glob("../../contrib/webhook/*.toml")
	if err != nil || len(files) < 3 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		cfg, err := conf.Parse(filepath.Base(file), data)
		if err != nil {
			t.Error(err)
			continue
		}
		for _, w := range cfg.Hook.Webhook {
			p, err := newPoster(Webhook{URL: w.URL, Method: w.Method, Headers: w.Headers, Body: w.Body})
			if err != nil {
				t.Errorf("%s: %v", file, err)
				continue
			}
			for _, e := range []Event{probe(), unblock(1), {On: Run, Comment: "\"\\"}} {
				body, err := p.content(e)
				if err != nil || len(body) == 0 {
					t.Errorf("%s: %v: %s, %v", file, e.On, body, err)
				}
				if p.headers["Content-Type"] == "application/json" && !json.Valid(body) {
					t.Errorf("%s: no JSON: %s", file, body)
				}
			}
		}
	}
}
