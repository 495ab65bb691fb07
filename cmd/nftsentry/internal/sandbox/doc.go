// Package sandbox takes from this process, for good, what a daemon does not need: the files of all others, by Landlock,
// and the rights of root. What is taken cannot be had back, not even by who takes the process over.
package sandbox
