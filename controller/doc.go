// Package controller is the one loop that decides: it takes events from the
// listeners and commands from the operator, and makes, changes and ends
// blocks.
//
// One goroutine, Run, owns all state that changes. A block goes to the kernel
// first and to the store next; a command is answered when it is in both.
package controller
