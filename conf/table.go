package conf

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
)

// A section is a table that may be there many times or not at all: its keys, and what is wrong with them together.
type section[T any] interface {
	*T
	settings() settings
	check(table)
}

// A table is a place of a section in a file, such as "hook.exec[0]".
type table struct {
	doc  *document
	name string
}

// report adds a mistake in the value of a key; of one that the file does not have, at the table.
func (t table) report(key, problem string) {
	full := t.name + "." + key
	if _, there := t.doc.places[full]; !there {
		full, problem = t.name, key+": "+problem
	}
	t.doc.report(full, problem)
}

// sound says whether nothing wrong is known of some keys and their items.
func (t table) sound(keys ...string) bool {
	return !slices.ContainsFunc(t.doc.errs, func(e *Error) bool {
		key, ours := strings.CutPrefix(e.Key, t.name+".")
		key, _, _ = strings.Cut(key, "[")
		return ours && slices.Contains(keys, key)
	})
}

// requires reports a key that is not set, unless a slip in its name or value is reported already, and says whether it is.
func (t table) requires(key string, set bool, example string) bool {
	full := t.name + "." + key
	if set || !t.sound(key) || t.slipped(full) {
		return set
	}
	if _, there := t.doc.places[full]; there {
		t.doc.report(full, "must not be empty, such as "+example)
	} else {
		t.doc.report(t.name, fmt.Sprintf("%s is missing, such as %s", key, example))
	}
	return false
}

// slipped says whether a key is reported that is nearly the one with this name in full.
func (t table) slipped(full string) bool {
	return slices.ContainsFunc(t.doc.errs, func(e *Error) bool { return Nearest(e.Key, []string{full}) != "" })
}

// fill hands the keys of a table to the section's settings, and reports what is wrong with them.
func fill[T any, P section[T]](d *document, name string, into P, values map[string]any) {
	all := into.settings()
	for i := range all {
		all[i].key = name + "." + all[i].key
	}
	d.assignTable(name, values, all)
	into.check(table{d, name})
}

// tables takes an array of tables, at most maxHooks, each of which begins with its defaults.
func tables[T any, P section[T]](into *[]T, fresh func() T) func(field) {
	return func(f field) {
		items, ok := asTables(f.value)
		switch {
		case !ok:
			f.wrong(fmt.Errorf("%s, must be an array of tables: the keys of each follow a line [[%s]]", kind(f.value), f.key))
			return
		case len(items) > maxHooks:
			f.wrong(fmt.Errorf("%d of them, at most %d are allowed", len(items), maxHooks))
			return
		}
		out := make([]T, len(items))
		for i, item := range items {
			out[i] = fresh()
			fill(f.doc, fmt.Sprintf("%s[%d]", f.key, i), P(&out[i]), item)
		}
		*into = out
	}
}

// asTables gives an array of tables, whether it is written with headers or in brackets.
func asTables(value any) ([]map[string]any, bool) {
	if items, ok := value.([]map[string]any); ok {
		return items, true
	}
	items, ok := value.([]any)
	if !ok {
		return nil, false
	}
	var out []map[string]any
	for _, item := range items {
		one, ok := item.(map[string]any)
		if !ok {
			return nil, false
		}
		out = append(out, one)
	}
	return out, true
}

// optional takes a table that need not be there, which begins with its defaults.
func optional[T any, P section[T]](into **T, fresh func() T) func(field) {
	return func(f field) {
		values, ok := f.value.(map[string]any)
		if !ok {
			f.wrong(fmt.Errorf("%s, must be a table: its keys follow a line [%s]", kind(f.value), f.key))
			return
		}
		out := fresh()
		fill(f.doc, f.key, P(&out), values)
		*into = &out
	}
}

// pairs takes a table with names of the user's own choice, at most so many.
func pairs(into *map[string]string, most int, name func(string) error, read form[string]) func(field) {
	return func(f field) {
		values, ok := f.value.(map[string]any)
		switch {
		case !ok:
			f.wrong(fmt.Errorf(`%s, must be a table such as { Authorization = "Bearer ..." }`, kind(f.value)))
			return
		case len(values) > most:
			f.wrong(fmt.Errorf("%d of them, at most %d are allowed", len(values), most))
			return
		}
		out := make(map[string]string, len(values))
		for _, key := range slices.Sorted(maps.Keys(values)) {
			item := field{f.doc, f.key + "." + toml.Key{key}.String(), values[key]}
			if err := name(key); err != nil {
				f.doc.add(f.doc.places[item.key].key, item.key, err.Error())
				continue
			}
			var v string
			one(&v, read)(item)
			out[key] = v
		}
		*into = out
	}
}
