package conf

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// everyHook is what testdata/good/everything.toml has.
func everyHook() Hook {
	plain := defaultExec()
	plain.Command = []string{"/bin/true"}
	mail := defaultMail()
	mail.From, mail.To = "nftsentry@example.org", []string{"root@localhost", "a.b+c@example.org"}
	mail.Server, mail.Sendmail, mail.TLS = "[2001:db8::25]:465", "/usr/lib/sendmail", TLSImplicit
	mail.User, mail.PasswordFile, mail.Digest = "me", "/etc/nftsentry/password", 0
	mail.Subject = "{{.Total}} scans of {{.Host}}"
	mail.Body = "{{range $i, $e := .Events}}{{$e.Target}} {{.Until.Format \"15:04\"}}\n{{end}}{{if .More}}and {{.More}} more{{end}}"
	web := defaultWebhook()
	web.URL, web.Method, web.Body = "http://localhost:8080/a?b=c", "PUT", `{"text": {{json .Target}}}`
	web.Headers = map[string]string{"Authorization": "Bearer x", "X-Tags": "a, b"}
	return Hook{
		ModeTCP: "atcp", ModeUDP: "audp",
		Exec: []HookExec{{
			HookCommon: HookCommon{On: []HookOn{OnUnblock, OnBlock}, Timeout: time.Second, Limit: Rate{1, day}},
			Command:    []string{"/etc/nftsentry/notify.sh", "$TARGET$", "--port=$PORT$/$PROTOCOL$", "$MODE$ $KIND$"},
			Before:     true,
		}, plain},
		Mail:      []HookMail{mail},
		Webhook:   []HookWebhook{web},
		HostsDeny: &HookHostsDeny{Line: "sshd: $TARGET$", File: "/srv/hosts.deny"},
	}
}

var commented = regexp.MustCompile(`(?m)^#(\S)`)

// TestReferenceHooks takes the hooks of the reference file out of their comments: all keys are there, with their defaults.
func TestReferenceHooks(t *testing.T) {
	text := string(contents(t, "reference.toml"))
	text = commented.ReplaceAllString(text, "$1")
	got, err := Parse("reference.toml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	exec, mail, web, deny := defaultExec(), defaultMail(), defaultWebhook(), defaultHostsDeny()
	exec.Command = []string{"/etc/nftsentry/notify", "$TARGET$", "$PORT$", "$MODE$"}
	mail.From, mail.To = "nftsentry@example.org", []string{"admin@example.org"}
	web.URL, web.Headers = "https://ntfy.example.org/scans", map[string]string{}
	want := Default()
	want.Hook.Exec, want.Hook.Mail, want.Hook.Webhook, want.Hook.HostsDeny = []HookExec{exec}, []HookMail{mail}, []HookWebhook{web}, &deny
	if diff := cmp.Diff(want, got, prefixes); diff != "" {
		t.Errorf("hooks (-default +reference):\n%s", diff)
	}
	places := scan(text).places
	for prefix, keys := range map[string]settings{
		"hook.exec[0].": exec.settings(), "hook.mail[0].": mail.settings(), "hook.webhook[0].": web.settings(), "hook.hosts_deny.": deny.settings(),
	} {
		for _, key := range keys.keys() {
			if _, ok := places[prefix+key]; !ok {
				t.Errorf("reference.toml has no %s%s", prefix, key)
			}
		}
	}
}

// TestTemplateBounds shows that no template keeps the reader busy.
func TestTemplateBounds(t *testing.T) {
	for _, body := range []string{
		"{{range 9999999999}}{{end}}", "{{$n := 9999999999}}{{range $n}}{{end}}", "{{if true}}{{range 1}}{{end}}{{end}}",
		"{{with 9}}{{range .}}{{end}}{{end}}", `{{define "a"}}{{template "a"}}{{end}}{{template "a"}}`,
		`{{define "a"}}{{end}}`, `{{block "a" .}}{{end}}`, "{{range .Events}}{{range $.Events}}{{end}}{{end}}",
		"{{range .Events}}{{if true}}{{else}}{{range $.Events}}{{end}}{{end}}{{end}}", "{{with $}}{{range .Host}}{{end}}{{end}}",
		"{{$a := .Host}}" + strings.Repeat("{{$a = printf \"%s%s\" $a $a}}", 40), "{{$a := \"<\"}}" + strings.Repeat("{{$a = html $a}}{{$a = js $a}}", 40), `{{printf "%99999d" 1}}`, "{{.Host.Name}}", "{{.Events", "{{nosuch}}",
		strings.Repeat("x", maxTemplate+1),
	} {
		if v, err := template(maxTemplate, sampleMail)(body); err == nil {
			t.Errorf("%q is taken as %q", cut(body), cut(v))
		}
	}
}
