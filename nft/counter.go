package nft

import (
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// A Counter is what a rule has counted since the table was made.
type Counter struct {
	Packets, Bytes uint64
}

// Counters are all counters of the table.
type Counters struct {
	Dropped Counter // from blocked sources
	Flooded Counter // probes dropped unseen, because there were too many at once
	Spent   Counter // probes that would have made a block if the budget had not been spent
	Crowded Counter // probes not counted because a set was full
}

// Counters reads the counters. The error is unix.ENOENT if somebody has deleted the table.
func (t *Table) Counters() (Counters, error) {
	conn, err := t.connection()
	if err != nil {
		return Counters{}, err
	}
	var c Counters
	for name, into := range map[string]*Counter{
		counterDropped: &c.Dropped, counterFlooded: &c.Flooded, counterSpent: &c.Spent, counterCrowded: &c.Crowded,
	} {
		if *into, err = t.counter(conn, name); err != nil {
			return Counters{}, fmt.Errorf("read counter %s: %w", name, err)
		}
	}
	return c, nil
}

func (t *Table) counter(conn *nftables.Conn, name string) (Counter, error) {
	obj, err := conn.GetObject(&nftables.NamedObj{
		Table: newBuilder(nil, TableName, t.cfg).table, Name: name, Type: nftables.ObjTypeCounter,
	})
	if err != nil {
		return Counter{}, err
	}
	named, ok := obj.(*nftables.NamedObj)
	if !ok {
		return Counter{}, fmt.Errorf("unexpected object %T", obj)
	}
	counter, ok := named.Obj.(*expr.Counter)
	if !ok {
		return Counter{}, fmt.Errorf("unexpected data %T", named.Obj)
	}
	return Counter{counter.Packets, counter.Bytes}, nil
}
