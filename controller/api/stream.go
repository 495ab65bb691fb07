package api

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/netip"
	"strconv"
	"time"

	"nftsentry/state"
)

// streamPart is how many bytes of a list are sent at once.
const streamPart = 64 << 10

// A listing is a list of blocks that is written one by one, since all of it
// takes 30 MiB with 131,072 of them.
type listing iter.Seq[state.Block]

// writeTo writes the list as a JSON array, a block a line.
func (l listing) writeTo(out io.Writer) error {
	w := bufio.NewWriterSize(out, streamPart)
	separator, line := "[", make([]byte, 0, 512)
	for b := range l {
		line = appendBlock(append(line[:0], separator...), b)
		if _, err := w.Write(line); err != nil {
			return err // the client has gone
		}
		separator = ",\n"
	}
	if separator == "[" {
		w.WriteString("[") // an error stays in the writer
	}
	w.WriteString("]\n")
	return w.Flush()
}

// appendBlock appends a block as encoding/json writes BlockOf(b), in a tenth
// of the time.
func appendBlock(line []byte, b state.Block) []byte {
	line = appendSource(append(line, `{"source":"`...), b.Source)
	line = appendTime(append(line, `","since":"`...), b.Since)
	line = appendTime(append(line, `","until":"`...), b.Until)
	line = strconv.AppendUint(append(line, `","port":`...), uint64(b.Port), 10)
	line = appendText(append(line, `,"protocol":`...), b.Protocol)
	line = appendText(append(line, `,"kind":`...), b.Kind)
	line = appendText(append(line, `,"evidence":`...), b.Evidence)
	line = strconv.AppendInt(append(line, `,"strikes":`...), int64(b.Strikes), 10)
	line = appendText(append(line, `,"origin":`...), string(b.Origin))
	line = appendText(append(line, `,"comment":`...), b.Comment)
	return append(line, '}')
}

// appendSource appends a source as Display writes it.
func appendSource(line []byte, p netip.Prefix) []byte {
	if p.IsSingleIP() {
		return p.Addr().AppendTo(line)
	}
	return p.AppendTo(line)
}

func appendTime(line []byte, t time.Time) []byte {
	return t.UTC().Truncate(time.Second).AppendFormat(line, time.RFC3339Nano)
}

// appendText appends a string. One that has anything that might have to be
// escaped is left to encoding/json.
func appendText(line []byte, s string) []byte {
	for i := range len(s) {
		switch c := s[i]; {
		case c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&':
			quoted, _ := json.Marshal(s) // a string always can be
			return append(line, quoted...)
		}
	}
	return append(append(append(line, '"'), s...), '"')
}

// errNoList says that an answer is no list.
var errNoList = errors.New("not a list of blocks: are the command and the daemon of one version?")

// readList calls f with each block of a list, until it fails.
func readList(r io.Reader, f func(Block) error) error {
	dec := json.NewDecoder(bufio.NewReaderSize(r, streamPart))
	if begin, err := dec.Token(); err != nil || begin != json.Delim('[') {
		return errors.Join(errNoList, err)
	}
	for dec.More() {
		var b Block
		if err := dec.Decode(&b); err != nil {
			return fmt.Errorf("block of a list: %w", err)
		}
		if err := f(b); err != nil {
			return err
		}
	}
	if _, err := dec.Token(); err != nil { // the end of what was cut short
		return fmt.Errorf("end of a list: %w", err)
	}
	return nil
}
