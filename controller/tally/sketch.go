package tally

import (
	"cmp"
	"slices"
)

// Bounds of what is counted by its key.
const (
	counted = 256  // keys that are counted at once
	kept    = 100  // of these, kept on disk
	summed  = 4096 // keys that are summed up at the least, of any number; twice as many at the most, and those of a list
	maxWhy  = 120  // bytes of a comment
)

// A Row is what is known of one key. All its numbers may be too low where the
// list is cut, and are never too high.
type Row[K comparable] struct {
	Key     K      `json:"k"`
	Weight  uint64 `json:"n"`           // probes; of offenders, the rank
	Blocks  uint64 `json:"b,omitempty"` // made
	Would   uint64 `json:"w,omitempty"` // blocks that were not made
	Strikes int    `json:"s,omitempty"` // the most that were counted at a block
	Last    int64  `json:"t,omitempty"` // last time, seconds since 1970
	Why     string `json:"y,omitempty"` // comment of the last block

	over uint64 // what Weight is too high by, while it is counted
	at   int    // place in the heap
}

// A List holds rows, and whether there were more.
type List[K comparable] struct {
	Rows []Row[K] `json:"rows,omitempty"`
	Cut  bool     `json:"cut,omitempty"` // there were others, which are not counted: the numbers may be too low
	Rest int      `json:"-"`             // others that are counted, and left out
}

// A sketch counts the keys that come most often among any number of them, by
// the space-saving algorithm (Metwally, Agrawal and El Abbadi, ICDT 2005): a new key takes the place of
// the one with the least weight, and inherits that as its error.
type sketch[K comparable] struct {
	rows map[K]*Row[K]
	heap []*Row[K] // the least weight first
	cut  bool
}

// add adds weight to a key and returns its row.
func (s *sketch[K]) add(key K, weight uint64) *Row[K] {
	if r := s.rows[key]; r != nil {
		r.Weight += weight
		s.down(r.at)
		return r
	}
	if s.rows == nil {
		s.rows = make(map[K]*Row[K])
	}
	if len(s.heap) < counted {
		r := &Row[K]{Key: key, Weight: weight, at: len(s.heap)}
		s.rows[key], s.heap = r, append(s.heap, r)
		s.up(r.at)
		return r
	}
	r := s.heap[0]
	delete(s.rows, r.Key)
	*r = Row[K]{Key: key, Weight: r.Weight + weight, over: r.Weight}
	s.rows[key], s.cut = r, true
	s.down(0)
	return r
}

// absorb adds what another has counted, which is known well enough without its errors.
func (s *sketch[K]) absorb(o *sketch[K]) {
	l := o.list()
	for i := range l.Rows {
		s.add(l.Rows[i].Key, l.Rows[i].Weight).add(&l.Rows[i])
	}
	s.cut = s.cut || l.Cut
}

// add adds another row of the same key, but for its weight.
func (r *Row[K]) add(o *Row[K]) {
	r.Blocks, r.Would, r.Strikes = r.Blocks+o.Blocks, r.Would+o.Would, max(r.Strikes, o.Strikes)
	if o.Last >= r.Last {
		r.Last, r.Why = o.Last, cmp.Or(o.Why, r.Why)
	}
}

func (s *sketch[K]) down(i int) {
	for {
		least := i
		for child := 2*i + 1; child <= 2*i+2 && child < len(s.heap); child++ {
			if s.heap[child].Weight < s.heap[least].Weight {
				least = child
			}
		}
		if least == i {
			return
		}
		s.swap(i, least)
		i = least
	}
}

func (s *sketch[K]) up(i int) {
	for i > 0 && s.heap[i].Weight < s.heap[(i-1)/2].Weight {
		s.swap(i, (i-1)/2)
		i = (i - 1) / 2
	}
}

func (s *sketch[K]) swap(i, j int) {
	s.heap[i], s.heap[j] = s.heap[j], s.heap[i]
	s.heap[i].at, s.heap[j].at = i, j
}

// list is what was counted, without the errors, in no order.
func (s *sketch[K]) list() List[K] {
	l := List[K]{Rows: make([]Row[K], len(s.heap)), Cut: s.cut}
	for i, r := range s.heap {
		l.Rows[i] = *r
		l.Rows[i].Weight -= r.over
		l.Rows[i].over, l.Rows[i].at = 0, 0
	}
	return l
}

// A sum adds up lists.
type sum[K comparable] struct {
	rows map[K]*Row[K]
	cut  bool
}

// add adds a list. Order breaks ties.
func (s *sum[K]) add(l List[K], order func(a, b K) int) {
	if s.rows == nil {
		s.rows = make(map[K]*Row[K])
	}
	s.cut = s.cut || l.Cut
	for i := range l.Rows {
		more := &l.Rows[i]
		r := s.rows[more.Key]
		if r == nil {
			s.rows[more.Key] = more
			continue
		}
		r.Weight += more.Weight
		r.add(more)
	}
	if len(s.rows) > 2*summed {
		s.thin(order)
	}
}

// thin forgets the last rows.
func (s *sum[K]) thin(order func(a, b K) int) {
	l := s.top(summed, order)
	clear(s.rows)
	for i := range l.Rows {
		s.rows[l.Rows[i].Key] = &l.Rows[i]
	}
	s.cut = true
}

// top is the sum of the lists, cut to the first rows. Order breaks ties.
func (s *sum[K]) top(most int, order func(a, b K) int) List[K] {
	l := List[K]{Cut: s.cut}
	for _, r := range s.rows {
		l.Rows = append(l.Rows, *r)
	}
	slices.SortFunc(l.Rows, func(a, b Row[K]) int {
		return cmp.Or(cmp.Compare(b.Strikes, a.Strikes), cmp.Compare(b.Weight, a.Weight), cmp.Compare(b.Blocks, a.Blocks),
			cmp.Compare(b.Last, a.Last), order(a.Key, b.Key))
	})
	if len(l.Rows) > most {
		l.Rows, l.Rest = l.Rows[:most:most], len(l.Rows)-most
	}
	return l
}

// cutText cuts a text to whole characters.
func cutText(s string) string {
	if len(s) <= maxWhy {
		return s
	}
	n := maxWhy
	for n > 0 && s[n]&0xC0 == 0x80 {
		n--
	}
	return s[:n]
}
