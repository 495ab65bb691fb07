// Package conf reads nftsentry's configuration: TOML in, one typed and validated Config out.
//
// A Config that Load, Parse or Default gives has no mistake left that can be known without asking the kernel. A file
// with mistakes gives none at all, and an error of type Errors that has every one of them, each with its line and
// column, what is wrong and what is allowed. Keys that a file does not name keep their defaults.
//
// All keys stand in one table, the method settings of Config. A file is read in three steps: the scanner notes where
// each key and value stands, package toml says what they mean, and each value is handed to the setting of its key. What
// no setting takes is unknown. A section is a table that may be there many times or not at all, such as [[hook.exec]]: each
// begins with its own defaults and has settings of its own.
//
// The file reference.toml has all keys with their defaults and says what they do.
package conf
