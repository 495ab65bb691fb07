package listener

import (
	"maps"
	"slices"
	"testing"
	"time"
)

// BenchmarkFlood is what the reader does of each packet that the kernel tells
// of, as many in a message of the kernel as fit.
func BenchmarkFlood(b *testing.B) {
	const burst = 512
	server, client := logging(b)
	n, events := openLog(b, server), make(chan Event, burst)
	waiting := 0
	b.ReportAllocs()
	for b.Loop() {
		for len(events) == 0 {
			if waiting < 2*batch { // the kernel keeps the last ones for a while
				b.StopTimer()
				flood(b, client, burst)
				waiting += burst
				b.StartTimer()
			}
			if err := n.receive(events); err != nil {
				b.Fatal(err)
			}
		}
		<-events
		waiting--
	}
	if got := n.Stats(); got.Lost > 0 || got.Overruns > 0 || got.Malformed > 0 {
		b.Errorf("stats %+v", got)
	}
}

// BenchmarkDatagram is the way from a datagram as the kernel sends it to its
// events; the batch has six of them.
func BenchmarkDatagram(b *testing.B) {
	all := datagrams(b)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		b.Run("datagram="+name, func(b *testing.B) {
			n, events, now := &NFLOG{}, make(chan Event, batch), time.Now()
			b.ReportAllocs()
			for b.Loop() {
				n.tell(all[name], now, events)
				for len(events) > 0 {
					<-events
				}
			}
			if got := n.Stats(); got.Lost > 0 || got.Malformed > 0 {
				b.Errorf("stats %+v", got)
			}
		})
	}
}
