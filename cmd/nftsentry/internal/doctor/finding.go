package doctor

import "fmt"

// A Status says how good a finding is.
type Status string

// The statuses.
const (
	OK      Status = "ok"
	Warning Status = "warning" // blocks work, but there is something to do
	Failure Status = "failure" // blocks do not work, or are lost at a restart
)

// A Finding is what a check has found.
type Finding struct {
	Check  string `json:"check"`
	Status Status `json:"status"`
	Text   string `json:"text"`   // what is so
	Advice string `json:"advice"` // what to do; "" if nothing
}

// A check gives its name to what it finds.
type check string

func (c check) ok(format string, args ...any) Finding {
	return Finding{Check: string(c), Status: OK, Text: fmt.Sprintf(format, args...)}
}

// warn has the advice first, which is to be there.
func (c check) warn(advice, format string, args ...any) Finding {
	return Finding{Check: string(c), Status: Warning, Text: fmt.Sprintf(format, args...), Advice: advice}
}

func (c check) fail(advice, format string, args ...any) Finding {
	return Finding{Check: string(c), Status: Failure, Text: fmt.Sprintf(format, args...), Advice: advice}
}

// Worst is the worst status of some findings.
func Worst(all []Finding) Status {
	worst := OK
	for _, f := range all {
		if f.Status == Failure {
			return Failure
		}
		if f.Status == Warning {
			worst = Warning
		}
	}
	return worst
}

// plural is "1 thing" or "3 things".
func plural(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
