package tally

import (
	"cmp"
	"encoding/json"
	"net/netip"
	"slices"
)

// Kinds are the scan kinds that are told apart; the last one is for all others.
var Kinds = [...]string{"connect", "syn", "fin", "null", "xmas", "syn-fin", "udp", "other"}

// Origins are the origins of blocks that are told apart; the last one is for
// all others.
var Origins = [...]string{"decoy", "kernel", "operator", "import", "fleet", "other"}

// Counts are exact totals.
type Counts struct {
	Probes   uint64 `json:"probes,omitempty"`   // those of ignored sources and peers aside
	Ignored  uint64 `json:"ignored,omitempty"`  // probes of sources that are never blocked
	Exempted uint64 `json:"exempted,omitempty"` // probes of peers
	Repeated uint64 `json:"repeated,omitempty"` // of Probes, those of sources that were blocked already
	Blocks   uint64 `json:"blocks,omitempty"`
	Proven   uint64 `json:"proven,omitempty"`   // of Blocks, on proven evidence
	Unproven uint64 `json:"unproven,omitempty"` // of Blocks, on unproven evidence
	Again    uint64 `json:"again,omitempty"`    // of Blocks, of sources with a strike at least
	Extended uint64 `json:"extended,omitempty"` // blocks that became longer
	Ended    uint64 `json:"ended,omitempty"`    // blocks that ended
	Would    uint64 `json:"would,omitempty"`    // blocks that were only logged
	Run      uint64 `json:"run,omitempty"`      // blocks that were left to the hooks
	Heals    uint64 `json:"heals,omitempty"`
	Doubts   uint64 `json:"doubts,omitempty"`
	Packets  uint64 `json:"packets,omitempty"` // dropped from blocked sources
	Bytes    uint64 `json:"bytes,omitempty"`   // likewise

	KindProbes [len(Kinds)]uint64   `json:"kind_probes"`
	KindBlocks [len(Kinds)]uint64   `json:"kind_blocks"`
	Origins    [len(Origins)]uint64 `json:"origins"`
	// Strikes are the blocks of sources with none, one, two, and three or more.
	Strikes [4]uint64 `json:"strikes"`
}

// add adds other counts.
func (c *Counts) add(o *Counts) {
	for _, p := range []struct{ to, from *uint64 }{
		{&c.Probes, &o.Probes}, {&c.Ignored, &o.Ignored}, {&c.Exempted, &o.Exempted}, {&c.Repeated, &o.Repeated},
		{&c.Blocks, &o.Blocks}, {&c.Proven, &o.Proven}, {&c.Unproven, &o.Unproven}, {&c.Again, &o.Again},
		{&c.Extended, &o.Extended}, {&c.Ended, &o.Ended}, {&c.Would, &o.Would}, {&c.Run, &o.Run},
		{&c.Heals, &o.Heals}, {&c.Doubts, &o.Doubts}, {&c.Packets, &o.Packets}, {&c.Bytes, &o.Bytes},
	} {
		*p.to += *p.from
	}
	for _, p := range [][2][]uint64{
		{c.KindProbes[:], o.KindProbes[:]}, {c.KindBlocks[:], o.KindBlocks[:]},
		{c.Origins[:], o.Origins[:]}, {c.Strikes[:], o.Strikes[:]},
	} {
		for i := range p[0] {
			p[0][i] += p[1][i]
		}
	}
}

// place is where a word is in a list, or the last place.
func place(words []string, word string) int {
	if i := slices.Index(words, word); i >= 0 {
		return i
	}
	return len(words) - 1
}

// A Record is what was counted in an hour or a day, as it is kept: JSON, to
// which fields may be added.
type Record struct {
	Counts    Counts             `json:"counts"`
	Ports     List[Port]         `json:"ports"`
	Sources   List[netip.Prefix] `json:"sources"`   // IPv4 addresses and IPv6 /64, by their probes
	Networks  List[netip.Prefix] `json:"networks"`  // IPv4 /24 and IPv6 /48, by their probes
	Offenders List[netip.Prefix] `json:"offenders"` // what was or would have been blocked
}

// A Total adds up records. The zero value is empty.
type Total struct {
	counts                       Counts
	ports                        sum[Port]
	sources, networks, offenders sum[netip.Prefix]
}

// Add adds a record, whose memory it takes over.
func (t *Total) Add(r *Record) {
	t.counts.add(&r.Counts)
	t.ports.add(r.Ports, comparePorts)
	t.sources.add(r.Sources, netip.Prefix.Compare)
	t.networks.add(r.Networks, netip.Prefix.Compare)
	t.offenders.add(r.Offenders, netip.Prefix.Compare)
}

// Record is the total, with so many rows of each list at the most.
func (t *Total) Record(most int) Record {
	return Record{
		Counts: t.counts, Ports: t.ports.top(most, comparePorts),
		Sources: t.sources.top(most, netip.Prefix.Compare), Networks: t.networks.top(most, netip.Prefix.Compare),
		Offenders: t.offenders.top(most, netip.Prefix.Compare),
	}
}

func comparePorts(a, b Port) int {
	return cmp.Or(cmp.Compare(a.Number, b.Number), cmp.Compare(a.Protocol, b.Protocol))
}

// encode is the record as it is kept.
func (t *Total) encode() ([]byte, error) {
	r := t.Record(kept)
	r.Ports.Cut = r.Ports.Cut || r.Ports.Rest > 0
	for _, l := range []*List[netip.Prefix]{&r.Sources, &r.Networks, &r.Offenders} {
		l.Cut = l.Cut || l.Rest > 0
	}
	return json.Marshal(r)
}

// addEncoded adds a record that was kept.
func (t *Total) addEncoded(value []byte) error {
	var r Record
	if err := json.Unmarshal(value, &r); err != nil {
		return err
	}
	t.Add(&r)
	return nil
}

// An hour counts what happens.
type hour struct {
	counts                       Counts
	ports                        sketch[Port]
	sources, networks, offenders sketch[netip.Prefix]
}

// add counts an event.
func (h *hour) add(e *Event) {
	c := &h.counts
	switch e.What {
	case Ignore:
		c.Ignored++
		return
	case Exempt:
		c.Exempted++
		return
	case Doubt:
		c.Doubts++
		return
	case Heal:
		c.Heals++
		return
	case Unblock:
		c.Ended++
		return
	case Repeat:
		c.Repeated++
	case Extend:
		c.Extended++
	}
	made, would := h.sentence(e)
	h.probe(e, made, would)
}

// sentence counts a block, or one that was not made.
func (h *hour) sentence(e *Event) (made, would uint64) {
	c := &h.counts
	switch e.What {
	case Block:
		made = 1
		c.Blocks++
		if e.Kind != "" {
			c.KindBlocks[place(Kinds[:], e.Kind)]++
		}
		c.Origins[place(Origins[:], e.Origin)]++
		c.Strikes[min(max(e.Strikes, 0), len(c.Strikes)-1)]++
		c.Proven += one(e.Evidence == "proven")
		c.Unproven += one(e.Evidence == "unproven")
		c.Again += one(e.Strikes > 0)
	case Would:
		would = 1
		c.Would++
	case Run:
		would = 1
		c.Run++
	default:
		return 0, 0
	}
	if e.Blocked.IsValid() {
		r := h.offenders.add(e.Blocked, uint64(1+max(e.Strikes, 0)))
		r.Blocks, r.Would = r.Blocks+made, r.Would+would
		r.Strikes, r.Last, r.Why = max(r.Strikes, e.Strikes), e.Time.Unix(), cutText(e.Comment)
	}
	return made, would
}

func one(is bool) uint64 {
	if is {
		return 1
	}
	return 0
}

// probe counts a probe, which a block by an operator has none of.
func (h *hour) probe(e *Event, made, would uint64) {
	if !e.Source.IsValid() {
		return
	}
	h.counts.Probes++
	h.counts.KindProbes[place(Kinds[:], e.Kind)]++
	note(h.ports.add(e.Port, 1), made, would, e)
	note(h.sources.add(within(e.Source, source4, source6), 1), made, would, e)
	note(h.networks.add(within(e.Source, network4, network6), 1), made, would, e)
}

func note[K comparable](r *Row[K], made, would uint64, e *Event) {
	r.Blocks, r.Would, r.Last = r.Blocks+made, r.Would+would, e.Time.Unix()
}

// absorb adds what another has counted.
func (h *hour) absorb(o *hour) {
	h.counts.add(&o.counts)
	h.ports.absorb(&o.ports)
	h.sources.absorb(&o.sources)
	h.networks.absorb(&o.networks)
	h.offenders.absorb(&o.offenders)
}

// record is what was counted, without the errors of counting.
func (h *hour) record() *Record {
	return &Record{h.counts, h.ports.list(), h.sources.list(), h.networks.list(), h.offenders.list()}
}
