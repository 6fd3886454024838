package main

import (
	"bytes"
	"strings"
	"testing"
)

const pause = "lanyard.dev/internal/node/nodetest/images/pause"

func TestMessages(t *testing.T) {
	t.Parallel()
	var out, messages bytes.Buffer
	if err := run([]string{"pause", pause}, &out, &messages, false, false); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(messages.String(), "\n")
	if len(lines) != 3 || !strings.HasPrefix(lines[0], "image: building "+pause) || !strings.HasPrefix(lines[1], "image: wrote docker.io/library/pause:latest, ") {
		t.Errorf("messages %q", messages.String())
	}
	if !bytes.Contains(out.Bytes(), []byte("index.json")) {
		t.Error("no archive was written")
	}
}

func TestCounterNeedsATerminal(t *testing.T) {
	t.Parallel()
	for isTerminal, want := range map[bool]string{false: "", true: "\rimage: 1 packages compiled\rimage: 3 packages compiled\n"} {
		var messages bytes.Buffer
		c := &counter{out: &messages, isTerminal: isTerminal}
		for _, text := range []string{"a\n", "b\nc\n", "a b\n"} {
			_, _ = c.Write([]byte(text))
		}
		c.end()
		if messages.String() != want || c.packages != 3 {
			t.Errorf("terminal %v: %q, %d packages", isTerminal, messages.String(), c.packages)
		}
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	for want, args := range map[string][]string{
		"usage: ":                                 {"pause"},
		"standard output is a terminal":           {"pause", pause},
		`name "Pause": invalid reference format:`: {"Pause", pause},
	} {
		var out, messages bytes.Buffer
		err := run(args, &out, &messages, strings.HasPrefix(want, "standard"), false)
		if err == nil || !strings.HasPrefix(err.Error(), want) || out.Len() > 0 {
			t.Errorf("%q: %v", args, err)
		}
	}
}
