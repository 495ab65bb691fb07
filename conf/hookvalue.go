package conf

import (
	"errors"
	"fmt"
	"net"
	"net/mail"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// many takes an array of at most so many.
func many[T any](into *[]T, most int, read form[T]) func(field) {
	return func(f field) {
		if items, ok := f.value.([]any); ok && len(items) > most {
			f.wrong(fmt.Errorf("%d of them, at most %d are allowed", len(items), most))
			return
		}
		each(into, read)(f)
	}
}

// unique is an array of one at least, where none is twice.
func unique[T comparable](read form[T]) form[[]T] {
	return func(value any) ([]T, error) {
		items, ok := value.([]any)
		if !ok {
			return nil, fmt.Errorf("%s, must be an array, which is in brackets", kind(value))
		}
		if len(items) == 0 {
			return nil, errors.New("empty: it would never run; leave the whole table out instead")
		}
		var out []T
		for _, item := range items {
			v, err := read(item)
			if err != nil {
				return nil, err
			}
			if slices.Contains(out, v) {
				return nil, fmt.Errorf(`has "%v" twice`, v)
			}
			out = append(out, v)
		}
		return out, nil
	}
}

// limit is a rate such as "60/m".
func limit(value any) (Rate, error) {
	r, err := rate(value)
	if errors.Is(err, errZeroRate) {
		err = errors.New("must be 1 or more: to switch a hook off, leave its table out")
	}
	return r, err
}

// orNone is a form, or "" for none.
func orNone[T any](read form[T]) form[T] {
	return func(value any) (none T, err error) {
		if s, ok := value.(string); ok && s == "" {
			return none, nil
		}
		return read(value)
	}
}

// words is a string of so many bytes, on one line and without what does not print.
func words(most int) form[string] {
	return func(value any) (string, error) {
		s, err := text(most)(value)
		if err == nil && strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
			err = errors.New("has characters that do not print, such as line breaks")
		}
		return s, err
	}
}

// before says when a program runs.
func before(value any) (bool, error) {
	when, err := oneOf("after", "before")(value)
	return when == "before", err
}

// tokens are what is replaced in the arguments of a command.
var tokens = []string{"$TARGET$", "$PORT$", "$MODE$", "$PROTOCOL$", "$KIND$"}

var aToken = regexp.MustCompile(`\$[A-Z_]+\$`)

// argument is an argument of a command, or the command itself.
func argument(value any) (string, error) {
	s, err := text(maxPath + 1)(value)
	if err != nil {
		return "", err
	}
	if strings.ContainsRune(s, 0) {
		return "", errors.New("an argument has no NUL in it")
	}
	return s, checkTokens(s, tokens)
}

func checkTokens(s string, allowed []string) error {
	for _, token := range aToken.FindAllString(s, -1) {
		if !slices.Contains(allowed, token) {
			return fmt.Errorf("nothing stands for %s: there is %s", cut(token), strings.Join(allowed, ", "))
		}
	}
	return nil
}

// program reports what cannot be the path of a program.
func program(s string) error {
	if aToken.MatchString(s) {
		return errors.New("which program runs must not depend on who is blocked")
	}
	if !filepath.IsAbs(s) {
		return errors.New(`must be an absolute path, which begins with "/"; no shell looks for it`)
	}
	return nil
}

// mailbox is an address without a name.
func mailbox(value any) (string, error) {
	s, err := words(254)(value) // RFC 5321 section 4.5.3.1.3
	if err != nil {
		return "", err
	}
	a, err := mail.ParseAddress(s)
	if err != nil || a.Address != s || strings.HasPrefix(s, "-") || strings.ContainsAny(s, " \"") || !ascii(s) {
		return "", errors.New(`not a mail address such as "admin@example.org", without a name`)
	}
	return s, nil
}

func ascii(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r >= utf8.RuneSelf })
}

// server is a host and a port, or "".
func server(value any) (string, error) {
	s, err := words(300)(value)
	if err != nil || s == "" {
		return "", err
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil || host == "" {
		return "", errors.New(`not a host and a port such as "mail.example.org:587" or "[2001:db8::25]:25"`)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", errors.New("the port, what follows the last colon, must be a number from 1 to 65535")
	}
	return s, nil
}

// webURL is an absolute URL of the web.
func webURL(value any) (string, error) {
	s, err := words(4096)(value)
	if err != nil {
		return "", err
	}
	u, err := url.Parse(s)
	switch {
	case err != nil, u.Scheme != "http" && u.Scheme != "https", u.Hostname() == "":
		return "", errors.New(`not a URL such as "https://ntfy.example.org/scans"`)
	case u.User != nil:
		return "", errors.New("has a user or password: put them into headers, as Authorization")
	case u.Fragment != "":
		return "", errors.New(`has a fragment, what follows "#", which no server is told`)
	}
	return s, nil
}

// ownHeaders are those that the program itself has to set.
var ownHeaders = []string{"host", "content-length", "transfer-encoding", "connection", "te", "trailer", "upgrade"}

// headerName reports what is no name of a header, RFC 9110 section 5.6.2.
func headerName(s string) error {
	if s == "" || strings.ContainsFunc(s, func(r rune) bool {
		return !isLetter(r) && !isDigit(r) && !strings.ContainsRune("!#$%&'*+-.^_`|~", r)
	}) {
		return errors.New("not the name of a header")
	}
	if slices.Contains(ownHeaders, strings.ToLower(s)) {
		return errors.New("this header is the program's own to set")
	}
	return nil
}

// headerValue is the value of a header.
func headerValue(value any) (string, error) {
	s, err := words(4096)(value)
	if err == nil && !ascii(s) {
		err = errors.New("a header has ASCII characters only")
	}
	return s, err
}

// denyLine is a line of hosts.deny, hosts_access(5).
func denyLine(value any) (string, error) {
	s, err := words(1024)(value)
	switch {
	case err != nil:
		return "", err
	case !strings.Contains(s, "$TARGET$"):
		return "", errors.New(`needs $TARGET$, which stands for the source, such as "ALL: $TARGET$ : DENY"`)
	case strings.HasPrefix(strings.TrimSpace(s), "#"):
		return "", errors.New("is a comment, which denies nobody anything")
	case strings.HasSuffix(s, `\`):
		return "", errors.New("must not end with a backslash, which would join the next line to it")
	}
	return s, checkTokens(s, []string{"$TARGET$"})
}
