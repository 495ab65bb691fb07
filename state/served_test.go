package state

import (
	"testing"
	"time"
)

// TestServed shows that services outlive the process, and that the newest
// list is the one that counts.
func TestServed(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir)
	if got, err := s.Served(); len(got) != 0 || err != nil {
		t.Errorf("Served of a new store = %v, %v, want none", got, err)
	}
	until := time.Unix(1795350598, 0).UTC()
	stop := start(s)
	for n := range 3 {
		list := []Service{}
		for port := range n {
			list = append(list, Service{"tcp", uint16(port + 1), until.Local()})
		}
		s.SaveServed(list)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	got, err := mustOpen(t, dir).Served()
	if err != nil {
		t.Fatal(err)
	}
	diff(t, "services", []Service{{"tcp", 1, until}, {"tcp", 2, until}}, got)
}

// TestServedStaysPending shows that services which cannot be written are not
// taken for written.
func TestServedStaysPending(t *testing.T) {
	s := mustOpen(t, t.TempDir())
	s.SaveServed([]Service{{"udp", 53, time.Unix(1795350598, 0)}})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.writeServed(); err == nil || s.served == nil {
		t.Errorf("writeServed into a closed store: %v, pending %v", err, s.served)
	}
}
