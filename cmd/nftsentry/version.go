package main

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"
)

func newVersion(o *options) *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		Example: "  nftsentry version",
		Args:    arguments(0, 0, "no arguments"),
		RunE: func(*cobra.Command, []string) error {
			built := fmt.Sprintf("%s, %s/%s", runtime.Version(), runtime.GOOS, runtime.GOARCH)
			if commit != "" {
				built += ", commit " + commit
			}
			_, err := fmt.Fprintf(o.out.data, "nftsentry %s (%s)\n", version, built)
			return err
		},
	}
}
