package nft

import (
	"os"
	"regexp"
	"slices"
	"testing"
)

// TestModules holds that packages have the modules loaded at boot which the
// table needs: a host may lock its modules by then.
func TestModules(t *testing.T) {
	const file = "../contrib/modules-load.d/nftsentry.conf"
	list, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	loaded := regexp.MustCompile(`(?m)^[a-z_0-9]+$`).FindAllString(string(list), -1)
	const builtIn = "nft_objref" // of older kernels; to name one that is not there makes the boot report a failure
	for _, f := range features {
		if f.module != builtIn && !slices.Contains(loaded, f.module) {
			t.Errorf("%s lacks %s, for %s", file, f.module, f.name)
		}
	}
}
