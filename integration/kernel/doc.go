// Package kernel runs tests of the other packages on older kernels: it boots
// each under qemu with a root in memory that holds the test binaries and what
// they need, and nothing else.
//
// The kernels are those that integration/deps has unpacked into bin/kernels,
// one folder each. Where they, qemu or busybox are missing the test is skipped,
// or in CI fails. It is built with the tag "kernel".
package kernel
