package integration

import (
	"bytes"
	"fmt"
	"image"
	"image/png"
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// screenshotsEnv names a folder where to leave the screenshots, for people to look at.
const screenshotsEnv = "NFTSENTRY_SCREENSHOTS"

// reportPages are written by the tests of the command.
var reportPages = []string{"report-day.html", "report-week.html", "report-month.html", "report-crowded.html"}

// TestReportPage looks at reports with a real browser: on a screen, on a phone, in the dark, and printed.
func TestReportPage(t *testing.T) {
	b := newBrowser(t)
	for _, name := range reportPages {
		file, err := filepath.Abs(filepath.Join("..", "cmd", "nftsentry", "testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.ReadFile(file); err != nil { // also tells the test cache what it depends on
			t.Fatal(err)
		}
		shades := make(map[string]float64)
		for _, screen := range []struct {
			name, scheme  string
			width, height int
		}{{"light", "light", 1100, 1200}, {"dark", "dark", 1100, 1200}, {"phone", "light", 390, 844}, {"small", "dark", 320, 640}} {
			if screen.name == "small" && name == "report-crowded.html" {
				shades["small"] = 0 // its tables are scrolled there
				continue
			}
			what := name + " " + screen.name
			b.open(file, screen.width, screen.height, screen.scheme)
			b.checkFit(what, screen.width)
			b.checkCharts(what)
			b.checkContrast(what)
			shades[screen.name] = b.shade(what)
			if got := b.complaints(file); len(got) != 0 {
				t.Errorf("%s: the browser complains: %q", what, got)
			}
		}
		if shades["light"] < 0.8 || shades["phone"] < 0.8 || shades["dark"] > 0.3 || shades["small"] > 0.3 {
			t.Errorf("%s: brightness %v, where light is bright and dark is not", name, shades)
		}
		b.checkPrint(name)
	}
}

// checkFit checks that nothing is beyond the side of the screen.
func (b *browser) checkFit(what string, width int) {
	b.t.Helper()
	var beyond []string
	// On a phone innerWidth grows with what is too wide.
	b.evaluate(fmt.Sprintf(`(() => {
		const out = [], width = %d;
		for (const e of document.querySelectorAll("body *")) {
			const r = e.getBoundingClientRect();
			if (!e.checkVisibility() || e.closest("svg") && e.tagName !== "svg") continue; // in what is folded up, or cut off
			if (r.width > 0 && getComputedStyle(e).clipPath === "none" && (r.right > width + 0.5 || r.left < -0.5)) {
				out.push(e.tagName + "." + e.className + " " + e.textContent.slice(0, 30) + " " + r.left + " to " + r.right);
			}
		}
		if (document.documentElement.scrollWidth > width) {
			out.push("the page is " + document.documentElement.scrollWidth + " wide on " + width);
		}
		return out;
	})()`, width), &beyond)
	if len(beyond) != 0 {
		b.t.Errorf("%s: beyond the screen: %q", what, beyond)
	}
}

// checkCharts checks that each chart has data that can be seen, names for who cannot, and a table.
func (b *browser) checkCharts(what string) {
	b.t.Helper()
	var charts []struct {
		ID, Title, Desc  string
		Bars, Rows, Tips int
	}
	b.evaluate(`[...document.querySelectorAll("section.chart")].map(s => ({
		ID: s.id,
		Title: document.getElementById(s.querySelector("svg").getAttribute("aria-labelledby").split(" ")[0]).textContent,
		Desc: document.getElementById(s.querySelector("svg").getAttribute("aria-labelledby").split(" ")[1]).textContent,
		Bars: [...s.querySelectorAll(".plot rect")].filter(r => { const b = r.getBoundingClientRect(); return b.width >= 2 && b.height > 0.3; }).length,
		Tips: s.querySelectorAll(".plot rect > title").length,
		Rows: s.querySelectorAll("details tbody tr").length,
	}))`, &charts)
	if len(charts) != 3 {
		b.t.Errorf("%s: %d charts, want 3", what, len(charts))
	}
	for _, c := range charts {
		if c.Title == "" || c.Desc == "" || c.Bars < 20 || c.Bars != c.Tips || c.Rows < 20 {
			b.t.Errorf("%s: %+v", what, c)
		}
	}
}

// checkContrast checks text by WCAG 2.2, 1.4.3 (4.5 to 1), and colours that mean something by 1.4.11 (3 to 1).
func (b *browser) checkContrast(what string) {
	b.t.Helper()
	var faint []string
	b.evaluate(`(() => {
		const rgb = c => c.match(/[\d.]+/g).map(Number);
		const lum = c => rgb(c).slice(0, 3).map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
			.reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
		const ratio = (a, b) => { const [x, y] = [lum(a), lum(b)].sort((p, q) => q - p); return (x + 0.05) / (y + 0.05); };
		const behind = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor; if (rgb(c)[3] !== 0) return c; } return "rgb(255, 255, 255)"; };
		const out = new Set();
		for (const e of document.querySelectorAll("body *")) {
			const s = getComputedStyle(e);
			if ([...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()) && ratio(s.color, behind(e)) < 4.5) out.add(e.tagName + " " + s.color + " on " + behind(e));
			if (e.tagName === "rect" && ratio(s.fill, behind(e)) < 3) out.add("rect " + s.fill + " on " + behind(e));
		}
		return [...out];
	})()`, &faint)
	if len(faint) != 0 {
		b.t.Errorf("%s: hard to see: %q", what, faint)
	}
}

// shade takes a screenshot of all of the page, and returns its brightness, from 0 to 1. A blank one is an error.
func (b *browser) shade(what string) float64 {
	b.t.Helper()
	data := b.data("Page.captureScreenshot", map[string]any{"format": "png", "captureBeyondViewport": true})
	if dir := os.Getenv(screenshotsEnv); dir != "" {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%s.png", regexp.MustCompile(`\W+`).ReplaceAllString(what, "-"))), data, 0o644); err != nil {
			b.t.Fatal(err)
		}
	}
	picture, err := png.Decode(bytes.NewReader(data))
	if err != nil {
		b.t.Fatal(err)
	}
	sum, colours := brightness(picture)
	if colours < 16 {
		b.t.Errorf("%s: a picture of %d colours", what, colours)
	}
	return sum
}

// brightness is the mean of a picture, from 0 to 1, and how many colours it has.
func brightness(picture image.Image) (mean float64, colours int) {
	seen := make(map[[3]uint32]bool)
	bounds, n := picture.Bounds(), 0
	for y := bounds.Min.Y; y < bounds.Max.Y; y += 2 {
		for x := bounds.Min.X; x < bounds.Max.X; x += 2 {
			r, g, b, _ := picture.At(x, y).RGBA()
			mean += float64(r+g+b) / (3 * 0xFFFF)
			seen[[3]uint32{r, g, b}] = true
			n++
		}
	}
	return mean / float64(n), len(seen)
}

// pdfPage is how each page of a PDF begins.
var pdfPage = regexp.MustCompile(`/Type\s*/Page\b`)

// checkPrint checks that a printed report is a few pages of A4.
func (b *browser) checkPrint(what string) {
	b.t.Helper()
	data := b.data("Page.printToPDF", map[string]any{"preferCSSPageSize": true, "printBackground": true})
	if dir := os.Getenv(screenshotsEnv); dir != "" {
		if err := os.WriteFile(filepath.Join(dir, what+".pdf"), data, 0o644); err != nil {
			b.t.Fatal(err)
		}
	}
	pages := len(pdfPage.FindAll(data, -1))
	if pages < 1 || pages > 3 || !bytes.Contains(data, []byte("/MediaBox [0 0 59")) {
		b.t.Errorf("%s: printed on %d pages, want 3 of A4 at the most", what, pages)
	}
}
