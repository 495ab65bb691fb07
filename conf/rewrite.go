package conf

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
)

// Rewrite gives a configuration with other values for some keys, named in full, and without some tables. Comments are
// lost. It does not look for mistakes: Parse does.
func Rewrite(data []byte, values map[string]any, without ...string) ([]byte, error) {
	var tree map[string]any
	if err := toml.Unmarshal(data, &tree); err != nil {
		return nil, fmt.Errorf("read TOML: %w", err)
	}
	if tree == nil {
		tree = map[string]any{}
	}
	for _, table := range without {
		delete(tree, table)
	}
	for _, key := range slices.Sorted(maps.Keys(values)) {
		if err := put(tree, key, values[key]); err != nil {
			return nil, err
		}
	}
	var b bytes.Buffer
	if err := toml.NewEncoder(&b).Encode(tree); err != nil {
		return nil, fmt.Errorf("write TOML: %w", err)
	}
	return b.Bytes(), nil
}

// put sets a key in a tree, and makes its tables.
func put(tree map[string]any, key string, value any) error {
	name, rest, nested := strings.Cut(key, ".")
	if !nested {
		tree[name] = value
		return nil
	}
	if tree[name] == nil {
		tree[name] = map[string]any{}
	}
	table, ok := tree[name].(map[string]any)
	if !ok {
		return fmt.Errorf("%s is no table", name)
	}
	return put(table, rest, value)
}
