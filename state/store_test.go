package state

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	bolt "go.etcd.io/bbolt"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// equal compares blocks.
var equal = cmp.Options{
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmpopts.EquateEmpty(),
}

// block makes a block of one address that began so many seconds after the epoch of these tests.
func block(address string, seconds int) Block {
	a := netip.MustParseAddr(address)
	since := time.Unix(1795350598, 123456789).Add(time.Duration(seconds) * time.Second).UTC()
	return Block{
		Source: netip.PrefixFrom(a, a.BitLen()), Address: a,
		Since: since, Until: since.Add(10 * time.Minute),
		Port: 23, Protocol: "tcp", Kind: "connect", Evidence: "proven", Origin: OriginDecoy, Comment: "tcp/23 connect",
	}
}

func mustOpen(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(dir, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// start runs the store until the returned function is called, which gives Run's error.
func start(s *Store) (stop func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	return func() error {
		cancel()
		return <-ended
	}
}

// flushed runs the store once over what is pending.
func flushed(t testing.TB, s *Store) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Run(ctx); err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, elem ...string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(elem...))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func lines(blocks ...Block) string {
	var s strings.Builder
	for _, b := range blocks {
		s.WriteString(FormatLine(b) + "\n")
	}
	return s.String()
}

func diff(t testing.TB, what string, want, got any) {
	t.Helper()
	if d := cmp.Diff(want, got, equal); d != "" {
		t.Errorf("%s (-want +got):\n%s", what, d)
	}
}

func diffLive(t testing.TB, s *Store, want ...Block) {
	t.Helper()
	got, err := s.Live()
	if err != nil {
		t.Fatal(err)
	}
	diff(t, "live", want, got)
}

func diffLast(t testing.TB, s *Store, source netip.Prefix, want Block) {
	t.Helper()
	got, ok, err := s.Last(source)
	if err != nil {
		t.Fatal(err)
	}
	diff(t, "last", want, got)
	diff(t, "last is known", want.Source.IsValid(), ok)
}

func TestBlocksSurvive(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "state")
	six := block("2001:db8::5", 2)
	six.Source = netip.MustParsePrefix("2001:db8::/64")
	prefix := Block{
		Source: netip.MustParsePrefix("192.0.2.0/24"), Since: block("192.0.2.1", 1).Since,
		Strikes: 3, Origin: OriginOperator, Comment: "operator <&> \"x\"\n",
	}
	late := block("192.0.2.9", 3)
	late.Until = time.Date(12345, 1, 1, 0, 0, 0, 0, time.UTC)
	s := mustOpen(t, dir)
	for _, b := range []Block{late, six, prefix, block("192.0.2.7", 0)} {
		s.Save(b, nil)
	}
	flushed(t, s)
	late.Until = time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)
	want := []Block{block("192.0.2.7", 0), prefix, six, late}
	diffLive(t, s, want...)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	diffLive(t, mustOpen(t, dir), want...)
}

func TestLast(t *testing.T) {
	a := block("192.0.2.1", 0)
	over := a
	over.Until = a.Since.Add(time.Minute)
	again := block("192.0.2.1", 90)
	again.Strikes = 1

	type step = func(s *Store)
	save := func(b Block) step { return func(s *Store) { s.Save(b, nil) } }
	end := func(at time.Time) step { return func(s *Store) { s.End(a.Source, at, false, nil) } }
	forgive := func(s *Store) { s.End(a.Source, again.Until, true, nil) }
	tests := []struct {
		name  string
		steps []step
		want  Block
	}{
		{"never blocked", nil, Block{}},
		{"blocked", []step{save(a)}, Block{}},
		{"over", []step{save(a), end(over.Until)}, over},
		{"blocked again", []step{save(a), end(over.Until), save(again)}, over},
		{"replaced", []step{save(again), save(a), end(over.Until)}, over},
		{"forgiven", []step{save(a), forgive}, Block{}},
		{"the second forgiven", []step{save(a), end(over.Until), save(again), forgive}, Block{}},
		{"forgiven later", []step{save(a), end(over.Until), forgive}, Block{}},
		{"ended twice", []step{save(a), end(over.Until), end(again.Since)}, over},
		{"forgiven and blocked again", []step{save(again), forgive, save(a)}, Block{}},
		{"forgiven, blocked and over", []step{save(again), forgive, save(a), end(over.Until)}, over},
		{"over twice", []step{save(again), end(again.Until), save(a), end(over.Until)}, over},
	}
	ways := map[string]func(t *testing.T, s *Store){
		"pending":         func(*testing.T, *Store) {},
		"being committed": func(t *testing.T, s *Store) { flushedButTheLast(t, s) },
		"committed":       func(t *testing.T, s *Store) { flushed(t, s) },
		"failed": func(t *testing.T, s *Store) {
			s.putBack(s.take(), errors.New("disk full"))
		},
	}
	for _, test := range tests {
		for way, after := range ways {
			t.Run(test.name+", "+way, func(t *testing.T) {
				s := mustOpen(t, t.TempDir())
				for _, do := range test.steps {
					do(s)
					after(t, s)
				}
				diffLast(t, s, a.Source, test.want)
				if s.taken != nil {
					s.putBack(s.taken, nil)
				}
				flushed(t, s)
				diffLast(t, s, a.Source, test.want)
				want := 0
				if test.want.Source.IsValid() {
					want = 1
				}
				diff(t, "remembered", want, remembered(t, s))
			})
		}
	}
}

// flushedButTheLast commits what was being committed and begins to commit what is pending.
func flushedButTheLast(t *testing.T, s *Store) {
	t.Helper()
	if _, err := s.commit(s.taken); err != nil {
		t.Fatal(err)
	}
	s.take()
}

func TestForget(t *testing.T) {
	at := func(i int) time.Time { return block("192.0.2.1", i).Since }
	tests := []struct {
		name   string
		before time.Time
		max    int
		want   []bool // which of five, ended at 0 to 4, are remembered
	}{
		{"nothing", at(0), 5, []bool{true, true, true, true, true}},
		{"old ones", at(2), 5, []bool{false, false, true, true, true}},
		{"too many", at(0), 2, []bool{false, false, false, true, true}},
		{"old ones and too many", at(4), 3, []bool{false, false, false, false, true}},
		{"all", at(9), 0, make([]bool, 5)},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := mustOpen(t, t.TempDir())
			var sources []netip.Prefix
			for i := range test.want {
				b := block(netip.AddrFrom4([4]byte{192, 0, 2, byte(9 - i)}).String(), -100)
				sources = append(sources, b.Source)
				s.Save(b, nil)
				s.End(b.Source, at(7), false, nil)
				s.Save(b, nil)
				s.End(b.Source, at(i), false, nil)
			}
			s.Save(block("192.0.2.100", 0), nil)
			s.Forget(test.before, test.max)
			flushed(t, s)
			for i, want := range test.want {
				if _, got, _ := s.Last(sources[i]); got != want {
					t.Errorf("%d: want remembered %v, got %v", i, want, got)
				}
			}
			diffLive(t, s, block("192.0.2.100", 0))
			remembered(t, s)
		})
	}
}

func TestForgetInParts(t *testing.T) {
	s := mustOpen(t, t.TempDir())
	b := block("192.0.2.1", 0)
	for i := range forgetChunk + 100 {
		b.Source = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 32)
		s.Save(b, nil)
		s.End(b.Source, b.Until, false, nil)
	}
	flushed(t, s)
	s.Forget(b.Since, 10)
	idle(t, s)
	if _, ok, _ := s.Last(b.Source); !ok {
		t.Error("the newest is forgotten")
	}
	if n := remembered(t, s); n != 10 {
		t.Errorf("want 10 remembered, got %d", n)
	}
}

// idle runs the store until it has nothing to do.
func idle(t *testing.T, s *Store) {
	t.Helper()
	for range 100 {
		flushed(t, s)
		if s.forget == nil {
			return
		}
	}
	t.Fatal("does not come to rest")
}

func remembered(t testing.TB, s *Store) (n int) {
	t.Helper()
	err := s.db.view(func(tx *bolt.Tx) error {
		n = tx.Bucket(endedBucket).Stats().KeyN
		if ends := tx.Bucket(endsBucket).Stats().KeyN; ends != n {
			t.Errorf("%d records, %d ends", n, ends)
		}
		if counted := tx.Bucket(endsBucket).Sequence(); counted != uint64(n) {
			t.Errorf("%d records, %d counted", n, counted)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestLocked(t *testing.T) {
	dir := t.TempDir()
	mustOpen(t, dir)
	synctest.Test(t, func(t *testing.T) { // the lock is waited for
		_, err := Open(dir, zap.NewNop())
		if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), "nftsentry.db: in use by another nftsentry") {
			t.Errorf("want %v, got %v", ErrLocked, err)
		}
	})
}

func TestUnreadableRecordsArePassedOver(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir)
	a, b := block("192.0.2.1", 0), block("192.0.2.2", 1)
	s.Save(a, nil)
	flushed(t, s)
	if err := s.db.update(func(tx *bolt.Tx) error {
		return errors.Join(tx.Bucket(liveBucket).Put(keyOf(b.Source), []byte("{")),
			tx.Bucket(liveBucket).Put([]byte("nonsense"), []byte("{}")))
	}); err != nil {
		t.Fatal(err)
	}
	s.Close()
	s = mustOpen(t, dir)
	diffLive(t, s, a)
	s.Save(b, nil)
	flushed(t, s)
	diffLive(t, s, a, b)
}

func TestPermissions(t *testing.T) {
	umask := unix.Umask(0o077)
	defer unix.Umask(umask)
	dir := filepath.Join(t.TempDir(), "state")
	s := mustOpen(t, dir)
	s.Save(block("192.0.2.1", 0), nil)
	flushed(t, s)
	want := map[string]os.FileMode{
		".": 0o755, storeName: 0o600, tcpName: 0o644, udpName: 0o644, historyName: 0o600,
	}
	for name, want := range want {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s: want %v, got %v", name, want, got)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 4 {
		t.Errorf("want 4 files, got %v, %v", entries, err)
	}
}

// TestLiveSeesWhatIsPending shows that a block whose end is not committed yet
// is not live, and one that is not committed yet is.
func TestLiveSeesWhatIsPending(t *testing.T) {
	s := mustOpen(t, t.TempDir())
	one, two := block("192.0.2.1", 0), block("192.0.2.2", 1)
	s.Save(one, nil)
	flushed(t, s)
	s.End(one.Source, one.Until, false, nil)
	s.Save(two, nil)
	for range 2 { // pending, and then being committed
		got, err := s.Live()
		if err != nil {
			t.Fatal(err)
		}
		diff(t, "live", []Block{two}, got)
		s.take()
	}
}
