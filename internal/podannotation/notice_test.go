package podannotation_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"lanyard.dev/internal/podannotation"
)

func TestParseNotice(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]podannotation.Notice{
		"signal:HUP": {Signal: 1}, "signal:SIGUSR1": {Signal: 10}, "signal:sigterm": {Signal: 15},
		"exec:/bin/reload": {Command: []string{"/bin/reload"}}, "exec:/bin/reload  --now all": {Command: []string{"/bin/reload", "--now", "all"}},
	} {
		got, err := podannotation.ParseNotice(text)
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "HUP", "signal:", "signal:KILL", "signal:STOP", "signal:9", "exec:", "exec: ", "run:x"} {
		if got, err := podannotation.ParseNotice(text); err == nil {
			t.Errorf("%q was read as %+v", text, got)
		}
	}
	if _, err := podannotation.ParseNotice("signal:" + strings.Repeat("x", 1000)); len(err.Error()) > 300 {
		t.Errorf("quoted whole: %v", err)
	}
}

func TestNoticeInWords(t *testing.T) {
	t.Parallel()
	for want, notice := range map[string]podannotation.Notice{"signal:HUP": {Signal: 1}, "exec": {Command: []string{"reload", "--password=x"}}} {
		if got := notice.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func FuzzParseNotice(f *testing.F) {
	f.Add("signal:HUP")
	f.Add("exec:a b")
	f.Fuzz(func(t *testing.T, text string) {
		if notice, err := podannotation.ParseNotice(text); err == nil && (notice.Signal == 0) == (len(notice.Command) == 0) {
			t.Errorf("%q was read as %+v", text, notice)
		}
	})
}
