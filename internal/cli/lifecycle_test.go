package cli

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

func TestWatchdogEndsAProcessThatHangs(t *testing.T) {
	t.Parallel()
	var messages bytes.Buffer
	ended := make(chan int, 1)
	stopping := make(chan struct{})
	w := watchdog{err: &messages, exit: func(code int) { ended <- code }}
	defer w.guard(stopping, time.Millisecond)()
	select {
	case code := <-ended:
		t.Fatalf("ended with %d before it was stopped", code)
	case <-time.After(20 * time.Millisecond):
	}
	close(stopping)
	select {
	case code := <-ended:
		if code != exitFailure || !strings.HasPrefix(messages.String(), "lanyard: not stopped after 1ms") {
			t.Errorf("exit code %d, %q", code, &messages)
		}
	case <-time.After(time.Minute):
		t.Error("the process was not ended")
	}
}

func TestWatchdogLetsAProcessEnd(t *testing.T) {
	t.Parallel()
	stopping, ended := make(chan struct{}), make(chan int, 1)
	w := watchdog{err: &bytes.Buffer{}, exit: func(code int) { ended <- code }}
	cancel := w.guard(stopping, 10*time.Millisecond)
	close(stopping)
	cancel()
	select {
	case code := <-ended:
		t.Errorf("ended with %d though the command returned", code)
	case <-time.After(50 * time.Millisecond):
	}
}
