package process

import (
	"fmt"
	"io"
	"strings"
	"time"
)

const (
	// wordsHeld is how many messages wait for a reader who is slow. More are dropped.
	wordsHeld = 64
	// lastWords is how long a supervisor that has nothing else to do waits for them to be written.
	lastWords = time.Second
)

// words are written beside everything else: a reader who has stopped reading must not keep the supervisor from its work,
// of which ending the command is part.
type words struct {
	texts   chan string
	written chan struct{}
	// raw reports whether lines end with a carriage return too; nil is never. It is set before the first word.
	raw func() bool
}

func newWords(to io.Writer) *words {
	w := &words{texts: make(chan string, wordsHeld), written: make(chan struct{})}
	go func() {
		defer close(w.written)
		for text := range w.texts {
			for line := range strings.SplitSeq(text, "\n") {
				end := "\n"
				if w.raw != nil && w.raw() {
					end = "\r\n"
				}
				fmt.Fprintf(to, "lanyard: %s%s", line, end)
			}
		}
	}()
	return w
}

func (w *words) say(text string) {
	select {
	case w.texts <- text:
	default:
	}
}

// end is the last call.
func (w *words) end() {
	close(w.texts)
	select {
	case <-w.written:
	case <-time.After(lastWords):
	}
}
