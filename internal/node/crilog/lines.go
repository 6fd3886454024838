package crilog

import (
	"bytes"
	"errors"
	"io"
	"math"
	"time"
)

const (
	// maxLine bounds how many bytes of one line are buffered. A longer line is written in parts. By default, runtimes cut lines
	// at 16 KiB.
	maxLine = 256 << 10

	// timestampFormat is the format of kubectl logs --timestamps, with a fixed width.
	timestampFormat = "2006-01-02T15:04:05.000000000Z07:00"
)

// errLimitReached ends the reading when LimitBytes have been written.
var errLimitReached = errors.New("the limit is reached")

// header is the beginning of a line: TIMESTAMP STREAM TAGS, each followed by a space.
type header struct {
	at     time.Time
	stderr bool
	// partial is set if the container's line goes on in the next line of the log.
	partial bool
}

// parseHeader splits a line into header and content. ok is false if the line does not have the format of CRI.
func parseHeader(line []byte) (h header, content []byte, ok bool) {
	stamp, rest, ok := bytes.Cut(line, []byte(" "))
	if !ok {
		return header{}, nil, false
	}
	at, err := time.Parse(time.RFC3339Nano, string(stamp))
	if err != nil {
		return header{}, nil, false
	}
	stream, rest, ok := bytes.Cut(rest, []byte(" "))
	if !ok || string(stream) != "stdout" && string(stream) != "stderr" {
		return header{}, nil, false
	}
	tags, content, ok := bytes.Cut(rest, []byte(" "))
	if !ok {
		return header{}, nil, false
	}
	first, _, _ := bytes.Cut(tags, []byte(":"))
	return header{at: at, stderr: string(stream) == "stderr", partial: string(first) == "P"}, content, true
}

// lines assembles lines from the data that is read, and writes those that the Options select.
type lines struct {
	Options
	remaining int64 // bytes that may still be written
	pending   []byte
	// current is the header of the line of which a part has been read, nil at the start of a line. skip is set if that line is
	// not written.
	current *header
	skip    bool
	// midLine is set if the last content that was written did not end with a newline.
	midLine bool
}

func newLines(o Options) *lines {
	l := &lines{Options: o, remaining: math.MaxInt64}
	if o.LimitBytes != nil {
		l.remaining = *o.LimitBytes
	}
	return l
}

// add adds data that was read. It returns errLimitReached, or the error of a writer.
func (l *lines) add(data []byte) error {
	for len(data) > 0 {
		end := bytes.IndexByte(data, '\n')
		if end < 0 {
			end = min(len(data), maxLine) - 1
		} else {
			end = min(end, maxLine-1)
		}
		part := data[:end+1]
		data = data[end+1:]
		l.pending = append(l.pending, part...)
		ended := part[len(part)-1] == '\n'
		if !ended && len(l.pending) < maxLine {
			continue
		}
		if err := l.emit(ended); err != nil {
			return err
		}
	}
	return nil
}

// flush writes a last line that has no newline.
func (l *lines) flush() error {
	if len(l.pending) == 0 {
		return nil
	}
	return l.emit(true)
}

// emit writes the pending data: a line, or a part of one. ended reports whether it is the end of the line.
func (l *lines) emit(ended bool) error {
	content := l.pending
	defer func() { l.pending = l.pending[:0] }()
	if l.current == nil && !l.skip {
		h, rest, ok := parseHeader(content)
		if ok {
			l.current, content = &h, rest
		}
		l.skip = !ok || h.at.Before(l.Since)
	}
	h, skip := l.current, l.skip
	if ended {
		l.current, l.skip = nil, false
	}
	if skip {
		return nil
	}
	if h.partial {
		content = bytes.TrimSuffix(content, []byte("\n"))
	}
	return l.write(h, content)
}

func (l *lines) write(h *header, content []byte) error {
	to := l.Stdout
	if h.stderr {
		to = l.Stderr
	}
	if l.Timestamps && !l.midLine {
		content = append(append(h.at.AppendFormat(nil, timestampFormat), ' '), content...)
	}
	l.midLine = len(content) > 0 && content[len(content)-1] != '\n'
	if to == nil {
		return nil
	}
	content = content[:min(int64(len(content)), l.remaining)]
	count, err := to.Write(content)
	l.remaining -= int64(count)
	switch {
	case err != nil:
		return err
	case count < len(content):
		return io.ErrShortWrite
	case l.remaining <= 0:
		return errLimitReached
	}
	return nil
}
