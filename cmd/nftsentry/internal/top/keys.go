package top

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	tea "charm.land/bubbletea/v2"
)

// An order is a way to sort the blocks.
type order struct {
	name    string
	compare func(a, b row) int
}

var orders = []order{
	{"left", func(a, b row) int { return a.Until.Compare(b.Until) }},
	{"newest", func(a, b row) int { return b.Since.Compare(a.Since) }},
	{"source", func(a, b row) int { return a.address.Compare(b.address) }},
	{"strikes", func(a, b row) int { return b.Strikes - a.Strikes }},
}

// arrange makes the rows anew.
func (m *model) arrange() {
	m.rows = m.rows[:0]
	text := strings.ToLower(m.filter.Value())
	for _, b := range m.blocks {
		if passes(b, text) && b.Until.After(m.now) {
			m.rows = append(m.rows, b)
		}
	}
	compare := orders[m.order].compare
	slices.SortFunc(m.rows, func(a, b row) int {
		c := compare(a, b)
		if m.reversed {
			c = -c
		}
		return cmp.Or(c, cmp.Compare(a.Source, b.Source))
	})
}

// passes tells whether a block has the filter's text in what is shown of it.
func passes(b row, text string) bool {
	return text == "" || strings.Contains(strings.ToLower(strings.Join([]string{b.Source, b.Comment, b.Evidence, b.Origin}, " ")), text)
}

// key does what a key asks for.
func (m *model) key(k tea.KeyPressMsg) tea.Cmd {
	m.message = ""
	switch {
	case k.String() == "ctrl+c":
		return tea.Quit
	case m.asking != "":
		return m.answer(k)
	case m.filtering:
		return m.edit(k)
	case m.help:
		m.help = false
		return nil
	}
	return m.command(k)
}

func (m *model) command(k tea.KeyPressMsg) tea.Cmd {
	page := max(1, m.room())
	switch k.String() {
	case "q", "esc":
		return tea.Quit
	case "?", "h":
		m.help = true
	case "s":
		m.order = (m.order + 1) % len(orders)
	case "r":
		m.reversed = !m.reversed
	case "p", "space":
		m.hold()
	case "/":
		m.filtering = true
		return m.filter.Focus()
	case "u", "delete":
		if len(m.rows) > 0 {
			m.asking = m.rows[m.selection()].Source
		}
	case "up", "k":
		m.move(-1)
	case "down", "j":
		m.move(1)
	case "pgup":
		m.move(-page)
	case "pgdown":
		m.move(page)
	case "home", "g":
		m.move(-len(m.rows))
	case "end", "G":
		m.move(len(m.rows))
	default:
		m.message = fmt.Sprintf("%q does nothing: ? shows the keys", k.String())
	}
	m.arrange()
	return nil
}

func (m *model) move(by int) {
	if len(m.rows) > 0 {
		m.selected = m.rows[min(max(m.selection()+by, 0), len(m.rows)-1)].Source
	}
}

// answer is for the question whether to let a source go.
func (m *model) answer(k tea.KeyPressMsg) tea.Cmd {
	source := m.asking
	m.asking = ""
	if k.String() != "y" {
		m.message = source + " stays blocked"
		return nil
	}
	return func() tea.Msg {
		_, err := m.daemon.Unblock(m.ctx, source)
		return unblocked{source, err}
	}
}

// edit is for keys of the filter.
func (m *model) edit(k tea.KeyPressMsg) (cmd tea.Cmd) {
	switch k.String() {
	case "esc":
		m.filter.SetValue("")
		fallthrough
	case "enter":
		m.filtering = false
		m.filter.Blur()
	default:
		m.filter, cmd = m.filter.Update(k)
	}
	m.arrange()
	return cmd
}
