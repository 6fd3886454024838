package crilog

import (
	"bytes"
	"errors"
	"io"
	"math"
	"time"
)

const (
	// maxLine bounds what is held of one line, in bytes; a longer one is passed on in parts. Runtimes cut at 16 KiB by default.
	maxLine = 256 << 10

	// timestampFormat is that of kubectl logs --timestamps, with a fixed width.
	timestampFormat = "2006-01-02T15:04:05.000000000Z07:00"
)

// errEnough ends the reading when all that was asked for is written.
var errEnough = errors.New("the limit is reached")

// header is what a line says of itself: TIMESTAMP STREAM TAGS, each with a space behind it.
type header struct {
	at     time.Time
	stderr bool
	// partial is a line that the container has not ended with it.
	partial bool
}

// parseHeader splits a line from its header. ok is false for what no runtime writes.
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

// lines puts lines together from what is read, and writes what is asked for of them.
type lines struct {
	Options
	left    int64 // bytes that may still be written
	pending []byte
	// begun is the header of a line of which a part was passed on; nil at the start of a line. skip drops the rest of it.
	begun *header
	skip  bool
	// inside is whether the last part that was written has not ended its line.
	inside bool
}

func newLines(o Options) *lines {
	l := &lines{Options: o, left: math.MaxInt64}
	if o.LimitBytes != nil {
		l.left = *o.LimitBytes
	}
	return l
}

// add takes what was read. It returns errEnough or the error of a writer.
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
		if err := l.pass(ended); err != nil {
			return err
		}
	}
	return nil
}

// flush passes on a line that has no end.
func (l *lines) flush() error {
	if len(l.pending) == 0 {
		return nil
	}
	return l.pass(true)
}

// pass writes what is pending: a line, or a part of one.
func (l *lines) pass(ended bool) error {
	content := l.pending
	defer func() { l.pending = l.pending[:0] }()
	if l.begun == nil && !l.skip {
		h, rest, ok := parseHeader(content)
		if ok {
			l.begun, content = &h, rest
		}
		l.skip = !ok || h.at.Before(l.Since)
	}
	h, skip := l.begun, l.skip
	if ended {
		l.begun, l.skip = nil, false
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
	if l.Timestamps && !l.inside {
		content = append(append(h.at.AppendFormat(nil, timestampFormat), ' '), content...)
	}
	l.inside = len(content) > 0 && content[len(content)-1] != '\n'
	if to == nil {
		return nil
	}
	content = content[:min(int64(len(content)), l.left)]
	count, err := to.Write(content)
	l.left -= int64(count)
	switch {
	case err != nil:
		return err
	case count < len(content):
		return io.ErrShortWrite
	case l.left <= 0:
		return errEnough
	}
	return nil
}
