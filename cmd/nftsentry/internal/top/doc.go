// Package top is the live view of the daemon that fills a terminal. It knows
// the daemon by its control socket alone.
package top
