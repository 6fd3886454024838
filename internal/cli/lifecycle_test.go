package cli

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

func TestWatchdogEndsAProcessThatHangs(t *testing.T) {
	t.Parallel()
	var words bytes.Buffer
	ended := make(chan int, 1)
	ending := make(chan struct{})
	w := watchdog{err: &words, exit: func(code int) { ended <- code }}
	defer w.guard(ending, time.Millisecond)()
	select {
	case code := <-ended:
		t.Fatalf("ended with %d before its end began", code)
	case <-time.After(20 * time.Millisecond):
	}
	close(ending)
	select {
	case code := <-ended:
		if code != exitFailure || !strings.HasPrefix(words.String(), "lanyard: not stopped after 1ms") {
			t.Errorf("exit code %d, %q", code, &words)
		}
	case <-time.After(time.Minute):
		t.Error("the process goes on")
	}
}

func TestWatchdogLetsAProcessEnd(t *testing.T) {
	t.Parallel()
	ending, ended := make(chan struct{}), make(chan int, 1)
	w := watchdog{err: &bytes.Buffer{}, exit: func(code int) { ended <- code }}
	callOff := w.guard(ending, 10*time.Millisecond)
	close(ending)
	callOff()
	select {
	case code := <-ended:
		t.Errorf("ended with %d though the command returned", code)
	case <-time.After(50 * time.Millisecond):
	}
}
