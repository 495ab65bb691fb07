package top

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"charm.land/lipgloss/v2"
	"github.com/charmbracelet/x/ansi"

	"nftsentry/conf"
)

// What the view needs at the least, in cells.
const (
	leastWidth  = 50
	leastHeight = 14
)

var (
	bold    = lipgloss.NewStyle().Bold(true)
	faint   = lipgloss.NewStyle().Faint(true)
	good    = lipgloss.NewStyle().Foreground(lipgloss.Green)
	bad     = lipgloss.NewStyle().Foreground(lipgloss.Red).Bold(true)
	reverse = lipgloss.NewStyle().Reverse(true)
)

// View draws everything.
func (m *model) View() tea.View {
	var lines []string
	switch {
	case m.width < leastWidth || m.height < leastHeight:
		lines = []string{fmt.Sprintf("too small: needs %dx%d", leastWidth, leastHeight), "q quits"}
	case m.help:
		lines = helpLines
	default:
		lines = m.lines()
	}
	for i, line := range lines {
		lines[i] = ansi.Truncate(line, m.width, "")
	}
	v := tea.NewView(strings.Join(lines[:min(len(lines), m.height)], "\n"))
	v.AltScreen = true
	return v
}

var helpLines = []string{
	bold.Render("nftsentry top"),
	"",
	"  up down j k        choose a block; page up and down, home and end go further",
	"  u                  let the chosen source go, after a question",
	"  s  r               sort by another column; turn the order round",
	"  /                  show only blocks that have a text in them; esc takes it away",
	"  p                  hold the picture, or go on",
	"  q                  quit",
	"",
	"  Ports, sources and networks are those of the probes of the last " + strconv.Itoa(minutes) + " minutes,",
	"  since this view has been open. Networks are /24 and /48.",
	"",
	faint.Render("any key goes back"),
}

func (m *model) lines() []string {
	lines := []string{m.headline(), m.rates(), m.health(), ""}
	lines = append(lines, m.tallies()...)
	lines = append(lines, "", m.title(), m.row(faint, " SOURCE", "LEFT", "WHY", "EVIDENCE", "ORIGIN", "STRIKES"))
	first, shown := m.window()
	for i, b := range m.rows[first : first+shown] {
		style := lipgloss.NewStyle()
		if first+i == m.selection() {
			style = reverse
		}
		lines = append(lines, m.row(style, " "+b.Source, m.left(b), b.Comment, dash(b.Evidence), b.Origin, strconv.Itoa(b.Strikes)))
	}
	for len(lines) < m.height-1 {
		lines = append(lines, "")
	}
	return append(lines, m.foot())
}

// tallyRows is how many lines the tallies have below their heading.
func (m *model) tallyRows() int { return min(max((m.height-12)/3, 2), 10) }

// room is how many blocks can be shown: what is left of the height.
func (m *model) room() int { return max(0, m.height-m.tallyRows()-9) }

// window is the part of the rows that is shown, with the selected one in it.
func (m *model) window() (first, shown int) {
	shown = min(m.room(), len(m.rows))
	first = min(max(0, m.selection()-shown/2), len(m.rows)-shown)
	return first, shown
}

func (m *model) headline() string {
	s := m.status
	if s.PID == 0 {
		return bold.Render("nftsentry") + "  asking the daemon"
	}
	left := bold.Render("nftsentry") + " " + s.Version + "  " + s.Mode + "  up " + conf.FormatDuration(m.now.Sub(s.Started))
	if m.paused {
		left += "  " + bad.Render("held")
	}
	return m.ends(left, m.now.Local().Format(time.TimeOnly))
}

func (m *model) rates() string {
	return fmt.Sprintf("blocked %d   probes %s/s   blocks %s/s   dropped %s packets/s, %s bytes/s",
		len(m.blocks), perSecond(&m.probes, m.now), perSecond(&m.made, m.now), perSecond(&m.packets, m.now), perSecond(&m.bytes, m.now))
}

func perSecond(r *rate, now time.Time) string {
	n := r.perSecond(now)
	if n != 0 && n < 10 {
		return strconv.FormatFloat(n, 'f', 1, 64)
	}
	return strconv.FormatFloat(n, 'f', 0, 64)
}

// health is the first problem, or that there is none.
func (m *model) health() string {
	switch n := len(m.status.Problems); {
	case m.problem != "":
		return bad.Render(printable(m.problem))
	case n == 1:
		return bad.Render(printable(m.status.Problems[0]))
	case n > 1:
		return bad.Render(fmt.Sprintf("%d problems, see \"nftsentry status\": %s", n, printable(m.status.Problems[0])))
	case m.status.PID == 0:
		return ""
	}
	return good.Render("no problems")
}

// tallies are three columns side by side.
func (m *model) tallies() []string {
	n := m.tallyRows()
	width := m.width / 3
	columns := [][]string{
		column("PORTS", m.ports.most(m.now, n), n, width),
		column("SOURCES", m.sources.most(m.now, n), n, width),
		column("NETWORKS", m.netsBy.most(m.now, n), n, width),
	}
	var lines []string
	for i := range n + 1 {
		lines = append(lines, columns[0][i]+columns[1][i]+columns[2][i])
	}
	return lines
}

func column(title string, counts []count, n, width int) []string {
	lines := []string{faint.Render(pad(" "+title, width))}
	for i := range n {
		text := ""
		if i < len(counts) {
			number := strconv.Itoa(counts[i].n)
			text = " " + pad(counts[i].key, width-len(number)-4) + " " + number
		}
		lines = append(lines, pad(text, width))
	}
	return lines
}

func (m *model) title() string {
	by := orders[m.order].name
	if m.reversed {
		by += ", reversed"
	}
	text := bold.Render(" BLOCKS") + faint.Render("  by "+by)
	if m.filtering {
		text += "  " + m.filter.View()
	} else if f := m.filter.Value(); f != "" {
		text += "  /" + printable(f) + faint.Render(fmt.Sprintf("  %d of %d", len(m.rows), len(m.blocks)))
	}
	return text
}

// row is a line of the table of blocks. What is too long for its column is cut,
// and the columns behind WHY go first where there is no room.
func (m *model) row(style lipgloss.Style, source, left, why, evidence, origin, strikes string) string {
	line := pad(source, min(40, max(17, m.width/3))) + " " + pad(left, 8) + " "
	rest := []string{pad(evidence, 9), pad(origin, 9), pad(strikes, 7)}
	for len(rest) > 0 && m.width-len(line)-len(strings.Join(rest, " "))-1 < 12 {
		rest = rest[:len(rest)-1]
	}
	tail := strings.Join(rest, " ")
	line += pad(printable(why), max(0, m.width-ansi.StringWidth(line)-len(tail)-1)) + " " + tail
	return style.Render(pad(line, m.width))
}

// left is a countdown of eight cells at the most: what is long has no seconds,
// and then no minutes.
func (m *model) left(b row) string {
	d := b.Until.Sub(m.now) + time.Second - 1
	switch {
	case d >= 24*time.Hour:
		d = d.Truncate(time.Hour)
	case d >= 10*time.Hour:
		d = d.Truncate(time.Minute)
	}
	return conf.FormatDuration(d)
}

func (m *model) foot() string {
	switch {
	case m.asking != "":
		return bold.Render("let " + m.asking + " go, and forget its strikes? y/n")
	case m.message != "":
		return printable(m.message)
	}
	return faint.Render("q quit  u let go  s sort  r reverse  / filter  p hold  ? help")
}

// ends puts one text at the left and one at the right.
func (m *model) ends(left, right string) string {
	return left + strings.Repeat(" ", max(1, m.width-lipgloss.Width(left)-lipgloss.Width(right))) + right
}

// pad cuts or fills a text to a width.
func pad(s string, width int) string {
	width = max(0, width)
	s = ansi.Truncate(s, width, "~")
	return s + strings.Repeat(" ", max(0, width-ansi.StringWidth(s)))
}

// printable takes out what a terminal would take for a command.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !strconv.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
