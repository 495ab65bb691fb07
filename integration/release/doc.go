// Package release tests what is published: the archives, the list of what is
// in the program, the checksums, and the files for containers.
package release
