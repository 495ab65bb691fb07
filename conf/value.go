package conf

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// A field is a value of the file on its way to its setting.
type field struct {
	doc   *document
	key   string // in full; of an item of an array, "ignore.sources[0]"
	value any    // as package toml gives it
}

// wrong reports all that an error has to say about the value.
func (f field) wrong(err error) {
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		for _, err := range many.Unwrap() {
			f.wrong(err)
		}
		return
	}
	f.doc.report(f.key, err.Error())
}

// A form is a way to write a T in a file. Its errors say what is wrong and what is allowed.
type form[T any] func(value any) (T, error)

// one takes a single value.
func one[T any](into *T, read form[T]) func(field) {
	return func(f field) {
		v, err := read(f.value)
		if err != nil {
			f.wrong(err)
			return
		}
		*into = v
	}
}

// each takes an array. One that is empty is nil.
func each[T any](into *[]T, read form[T]) func(field) {
	return func(f field) {
		items, ok := f.value.([]any)
		if !ok {
			f.wrong(fmt.Errorf("%s, must be an array, which is in brackets", kind(f.value)))
			return
		}
		var out []T
		for i, item := range items {
			var v T
			one(&v, read)(field{f.doc, fmt.Sprintf("%s[%d]", f.key, i), item})
			out = append(out, v)
		}
		*into = out
	}
}

// text is any string of so many bytes.
func text(most int) form[string] {
	return func(value any) (string, error) {
		s, err := asString(value, "text")
		if err == nil && len(s) > most {
			err = fmt.Errorf("%d bytes long, at most %d are allowed", len(s), most)
		}
		return s, err
	}
}

// oneOf is a string that names one of a few values.
func oneOf[T comparable](allowed ...T) form[T] {
	var names []string
	for _, v := range allowed {
		names = append(names, fmt.Sprintf("%q", fmt.Sprint(v)))
	}
	last := len(names) - 1
	want := strings.Join(names[:last], ", ") + " or " + names[last]
	return func(value any) (none T, err error) {
		s, err := asString(value, want)
		if err != nil {
			return none, err
		}
		for _, v := range allowed {
			if fmt.Sprint(v) == s {
				return v, nil
			}
		}
		return none, errors.New("allowed is " + want)
	}
}

// integer is a number from least to most.
func integer[T int | uint16](least, most T) form[T] {
	return func(value any) (T, error) {
		n, ok := value.(int64)
		if !ok {
			return 0, fmt.Errorf("%s, must be an integer from %d to %d", kind(value), least, most)
		}
		if n < int64(least) || n > int64(most) {
			return 0, fmt.Errorf("allowed is %d to %d", least, most)
		}
		return T(n), nil
	}
}

// because adds a reason to what is wrong.
func because[T any](read form[T], why string) form[T] {
	return func(value any) (T, error) {
		v, err := read(value)
		if err != nil {
			err = fmt.Errorf("%w: %s", err, why)
		}
		return v, err
	}
}

// boolean is true or false.
func boolean(value any) (bool, error) {
	b, ok := value.(bool)
	if !ok {
		return false, fmt.Errorf("%s, must be true or false without quotes", kind(value))
	}
	return b, nil
}

// duration is a string such as "1h30m", from least to most.
func duration(least, most time.Duration) form[time.Duration] {
	return func(value any) (time.Duration, error) {
		if n, ok := value.(int64); ok {
			return 0, needsUnit(fmt.Sprint(n))
		}
		s, err := asString(value, `a duration such as "10m"`)
		if err != nil {
			return 0, err
		}
		d, err := ParseDuration(s)
		if err == nil && (d < least || d > most) {
			err = fmt.Errorf("allowed is %q to %q", FormatDuration(least), FormatDuration(most))
		}
		return d, err
	}
}

// rate is a string such as "120/m".
func rate(value any) (Rate, error) {
	if n, ok := value.(int64); ok {
		return parseRate(fmt.Sprint(n))
	}
	s, err := asString(value, `a rate such as "120/m"`)
	if err != nil {
		return Rate{}, err
	}
	return parseRate(s)
}

// portList is a string such as "1,11,12345-12346".
func portList(value any) ([]PortRange, error) {
	s, err := asString(value, `ports such as "23,79,12345-12346"`)
	if err != nil {
		return nil, err
	}
	return parsePorts(s)
}

// asString gives a value that is a string, or an error that says what to write.
func asString(value any, want string) (string, error) {
	s, ok := value.(string)
	if !ok {
		return "", fmt.Errorf("%s, must be a string in quotes: %s", kind(value), want)
	}
	return s, nil
}

// kind names the type of a value as package toml gives it.
func kind(value any) string {
	switch value.(type) {
	case string:
		return "a string"
	case int64:
		return "an integer"
	case float64:
		return "a float"
	case bool:
		return "a boolean"
	case time.Time:
		return "a date or time"
	case []any:
		return "an array"
	case []map[string]any:
		return "an array of tables"
	}
	return "a table"
}
