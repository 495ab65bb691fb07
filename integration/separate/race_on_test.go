//go:build race

package separate

const raceEnabled = true
