// Package conf reads nftsentry's configuration: a TOML file in, a Config with
// typed and validated values out. All mistakes of a file are told at once,
// each with its line, its column and what to write instead.
//
// Only keys whose feature exists are known. reference.toml, beside this file,
// has all of them with their defaults.
package conf
