package hook

import (
	"net/netip"
	"time"

	"golang.org/x/time/rate"
)

const (
	// perSource is how long a hook is not told of the same again.
	perSource = time.Minute
	// maxSources is how many sources a hook keeps in mind; of more, the older ones are forgotten.
	maxSources = 8192
)

// A sourceKey is what a hook is told of at most once in perSource.
type sourceKey struct {
	on     On
	source netip.Prefix
}

// recent remembers what was told in the last minute at least, if there was not too much of it.
type recent struct {
	began    time.Time
	new, old map[sourceKey]time.Time
}

// told says whether a key was told within perSource.
func (r *recent) told(key sourceKey, now time.Time) bool {
	for _, m := range []map[sourceKey]time.Time{r.new, r.old} {
		if at, ok := m[key]; ok && now.Sub(at) < perSource {
			return true
		}
	}
	return false
}

// tell notes that a key is told now.
func (r *recent) tell(key sourceKey, now time.Time) {
	if r.new == nil || now.Sub(r.began) >= perSource || len(r.new) >= maxSources {
		r.old, r.new, r.began = r.new, make(map[sourceKey]time.Time), now
	}
	r.new[key] = now
}

// limiter lets a rate pass, as many at once as it counts.
func limiter(r Rate) *rate.Limiter {
	return rate.NewLimiter(rate.Limit(float64(r.Count)/r.Per.Seconds()), r.Count)
}

// untilToken is how long it takes until a limiter lets one more pass.
func untilToken(l *rate.Limiter, now time.Time) time.Duration {
	missing := 1 - l.TokensAt(now)
	if missing <= 0 {
		return 0
	}
	return time.Duration(missing/float64(l.Limit())*float64(time.Second)) + time.Millisecond
}
