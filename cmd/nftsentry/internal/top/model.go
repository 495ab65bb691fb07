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

	blocks map[string]api.Block // by source
	rows   []api.Block          // those that pass the filter, in order

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
	m := &model{ctx: ctx, daemon: daemon, now: now, width: 80, height: 24, blocks: make(map[string]api.Block), filter: textinput.New()}
	m.filter.Prompt = "/"
	m.filter.CharLimit = 64
	m.statusAt, m.listAt = now, now
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
	if now.Sub(m.listAt) >= listEvery {
		m.listAt = now
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
	if msg.err != nil {
		m.problem = msg.err.Error()
		return
	}
	clear(m.blocks)
	for _, b := range msg.blocks {
		m.blocks[b.Source] = b
	}
	m.arrange()
}

// happened takes over what the daemon tells.
func (m *model) happened(all events) {
	for _, e := range all {
		switch e.Event {
		case "block", "extend":
			if e.Block != nil {
				m.blocks[e.Block.Source] = *e.Block
			}
			if e.Event == "block" {
				m.made.add(1, e.Time)
			}
		case "unblock":
			delete(m.blocks, e.Source)
		case "lost":
			m.listAt = time.Time{} // some of what was lost may have been blocks
		case "probe", "exempted", "ignored", "repeated", "sentence", "would-block", "run":
			m.probed(e)
		}
	}
	m.arrange()
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
	return max(0, slices.IndexFunc(m.rows, func(b api.Block) bool { return b.Source == m.selected }))
}
