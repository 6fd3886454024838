package cli

import (
	"bytes"
	"maps"
	"strings"
	"testing"
	"time"

	"lanyard.dev/internal/token"
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

// TestAudienceAlgorithms sets the flag several times and prints its value.
func TestAudienceAlgorithms(t *testing.T) {
	t.Parallel()
	var policy token.AlgorithmPolicy
	flag := audienceAlgorithms{&policy}
	for _, text := range []string{"api://AzureADTokenExchange=RS256", `vault=ES256,"https://a.example/?q=1,2=ES384"`, "vault=ES256"} {
		if err := flag.Set(text); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
	want := token.AlgorithmPolicy{"api://AzureADTokenExchange": "RS256", "vault": "ES256", "https://a.example/?q=1,2": "ES384"}
	if !maps.Equal(policy, want) || flag.String() != `api://AzureADTokenExchange=RS256,https://a.example/?q=1,2=ES384,vault=ES256` {
		t.Errorf("%v, want %v", flag, want)
	}
	for _, bad := range []string{"", "vault", "=ES256", `"`, "vault=ES512", "a=ES256,vault=RS256"} {
		if err := flag.Set(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
	if got := (audienceAlgorithms{}).String(); got != "" {
		t.Errorf("the zero value is %q", got)
	}
}
