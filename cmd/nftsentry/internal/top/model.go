package top

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"charm.land/bubbles/v2/textinput"
	tea "charm.land/bubbletea/v2"

	"nftsentry/controller/api"
)

// A Daemon is what the view shows. *api.Client is one.
type Daemon interface {
	Status(ctx context.Context) (api.Status, error)
	List(ctx context.Context) ([]api.Block, error)
	Unblock(ctx context.Context, source string) (api.Block, error)
	Watch(ctx context.Context, filter api.EventFilter, f func(api.Event) error) error
}

var _ Daemon = (*api.Client)(nil)

// How often things are asked for. Between two lists the events tell what has
// become of them.
const (
	tickEvery   = time.Second
	statusEvery = 2 * time.Second
	listEvery   = time.Minute
	firstList   = 5 * time.Second // to the second list: the first may be older than the first event
	mostLater   = 16384           // events that are kept for later; where there are more, a list is asked for
)

// What the model is told, besides the keys.
type (
	tick     time.Time
	events   []api.Event
	statusOf struct {
		status api.Status
		err    error
	}
	listOf struct {
		blocks []api.Block
		err    error
	}
	unblocked struct {
		source string
		err    error
	}
	ended struct{ err error } // nothing comes any more
)

// A row is a block, and what it is sorted by.
type row struct {
	api.Block
	address netip.Addr // the first that it is about
}

// A model is all that the view shows, and what the keys have made of it. Like
// all models of bubbletea it belongs to one goroutine.
type model struct {
	ctx    context.Context // of the program, for what its commands ask
	daemon Daemon

	now           time.Time
	width, height int // of the terminal, in cells

	status           api.Status
	statusAt, listAt time.Time // when they were last asked for
	problem          string    // why the last of these was not answered

	blocks  map[string]row // by source
	rows    []row          // those that pass the filter, in order
	listing bool           // a list was asked for, and has not come
	since   events         // what has happened after that, which it may lack
	later   events         // what has happened while the picture is held

	probes, made           rate
	packets, bytes         rate
	ports, sources, netsBy tally

	order     int // of the rows, an index of orders
	reversed  bool
	filter    textinput.Model
	filtering bool   // keys go to the filter
	selected  string // source of a row; "" for the first
	asking    string // source that is let go if the answer is yes
	message   string // what became of the last key
	paused    bool
	help      bool

	err error // why it has ended
}

func newModel(ctx context.Context, daemon Daemon, now time.Time) *model {
	m := &model{ctx: ctx, daemon: daemon, now: now, width: 80, height: 24, blocks: make(map[string]row), filter: textinput.New()}
	m.filter.Prompt = "/"
	m.filter.CharLimit = 64
	m.statusAt, m.listAt, m.listing = now, now.Add(firstList-listEvery), true
	return m
}

// Init asks for everything.
func (m *model) Init() tea.Cmd { return tea.Batch(m.askStatus, m.askList, nextTick()) }

func nextTick() tea.Cmd { return tea.Tick(tickEvery, func(at time.Time) tea.Msg { return tick(at) }) }

func (m *model) askStatus() tea.Msg {
	s, err := m.daemon.Status(m.ctx)
	return statusOf{s, err}
}

func (m *model) askList() tea.Msg {
	all, err := m.daemon.List(m.ctx)
	return listOf{all, err}
}

// Update takes over what the model is told.
func (m *model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
	case tea.KeyPressMsg:
		return m, m.key(msg)
	case tick:
		return m, m.tick(time.Time(msg))
	case events:
		if m.paused {
			m.later = m.keep(m.later, msg)
			break
		}
		m.happened(msg)
	case statusOf:
		m.takeStatus(msg)
	case listOf:
		m.takeList(msg)
	case unblocked:
		m.message = "let go " + msg.source
		if msg.err != nil {
			m.message = msg.err.Error()
		}
	case ended:
		m.err = msg.err
		return m, tea.Quit
	}
	return m, nil
}

// tick moves the clock on, and asks for what has become old.
func (m *model) tick(now time.Time) tea.Cmd {
	cmds := []tea.Cmd{nextTick()}
	if !m.paused {
		m.now = now
		m.arrange()
	}
	if now.Sub(m.statusAt) >= statusEvery {
		m.statusAt = now
		cmds = append(cmds, m.askStatus)
	}
	if !m.paused && !m.listing && now.Sub(m.listAt) >= listEvery {
		m.listAt, m.listing = now, true
		cmds = append(cmds, m.askList)
	}
	return tea.Batch(cmds...)
}

func (m *model) takeStatus(msg statusOf) {
	m.problem = ""
	if msg.err != nil {
		m.problem = msg.err.Error()
		return
	}
	if m.paused { // what is dropped meanwhile counts for no second
		m.status.Dropped = msg.status.Dropped
		return
	}
	if old := m.status; old.PID == msg.status.PID { // else the first, or another daemon
		m.packets.add(since(old.Dropped.Packets, msg.status.Dropped.Packets), time.Now())
		m.bytes.add(since(old.Dropped.Bytes, msg.status.Dropped.Bytes), time.Now())
	}
	m.status = msg.status
}

// since is how far a counter has come, which begins anew with its table.
func since(old, now uint64) uint64 {
	if now < old {
		return now
	}
	return now - old
}

func (m *model) takeList(msg listOf) {
	since := m.since
	m.listing, m.since = false, nil
	if msg.err != nil {
		m.problem = msg.err.Error()
		return
	}
	if m.paused {
		m.listAt = time.Time{} // it would be old by then
		return
	}
	clear(m.blocks)
	for _, b := range msg.blocks {
		m.put(b)
	}
	for _, e := range since {
		m.changed(e)
	}
	m.arrange()
}

// keep adds events to those that are kept for later.
func (m *model) keep(kept, more events) events {
	if len(kept)+len(more) > mostLater {
		m.listAt = time.Time{}
		return kept
	}
	return append(kept, more...)
}

// happened takes over what the daemon tells.
func (m *model) happened(all events) {
	if m.listing {
		m.since = m.keep(m.since, all)
	}
	changed := false
	for _, e := range all {
		switch e.Event {
		case "block":
			m.made.add(1, e.Time)
		case "lost", "panic", "resume", "reload":
			m.listAt = time.Time{} // some of what was lost may have been blocks
		case "probe", "exempted", "ignored", "repeated", "sentence", "would-block", "run":
			m.probed(e)
		}
		changed = m.changed(e) || changed
	}
	if changed {
		m.arrange()
	}
}

// changed does to the blocks what an event tells, if that changes any.
func (m *model) changed(e api.Event) bool {
	switch {
	case e.Event == "unblock":
		delete(m.blocks, e.Source)
	case e.Block != nil && (e.Event == "block" || e.Event == "extend"):
		m.put(*e.Block)
	default:
		return false
	}
	return true
}

func (m *model) put(b api.Block) {
	r := row{Block: b}
	if p, err := api.ParseSource(b.Source); err == nil {
		r.address = p.Addr()
	}
	m.blocks[b.Source] = r
}

// hold holds the picture, or goes on with what has happened meanwhile.
func (m *model) hold() {
	if m.paused = !m.paused; !m.paused {
		later := m.later
		m.later, m.statusAt = nil, time.Time{}
		m.happened(later)
	}
}

func (m *model) probed(e api.Event) {
	m.probes.add(1, e.Time)
	if e.Protocol != "" {
		m.ports.add(fmt.Sprintf("%s/%d", e.Protocol, e.Port), e.Time)
	}
	m.sources.add(e.Source, e.Time)
	if a, err := netip.ParseAddr(e.Source); err == nil {
		m.netsBy.add(network(a).String(), e.Time)
	}
}

// network is what an address is counted in: what one owner commonly has.
func network(a netip.Addr) netip.Prefix {
	bits := 48
	if a.Is4() {
		bits = 24
	}
	return netip.PrefixFrom(a, bits).Masked()
}

// selection is the index of the selected row, 0 if there is none.
func (m *model) selection() int {
	return max(0, slices.IndexFunc(m.rows, func(b row) bool { return b.Source == m.selected }))
}
