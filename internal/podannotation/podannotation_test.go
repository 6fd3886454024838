package podannotation_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"lanyard.dev/internal/podannotation"
)

var made = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

func TestLeaseEnd(t *testing.T) {
	t.Parallel()
	seen := made.Add(30 * time.Second)
	for _, test := range []struct {
		name, lease string
		want        time.Time
	}{
		{"none", "none", made.Add(podannotation.FirstLease)},
		{"empty", "", made.Add(podannotation.FirstLease)},
		{"not a time", "tomorrow", made.Add(podannotation.FirstLease)},
		{"ahead", podannotation.FormatLease(seen.Add(time.Minute)), seen.Add(time.Minute)},
		{"in another zone", "2026-11-01T14:01:00+02:00", made.Add(time.Minute)},
		{"past", podannotation.FormatLease(made.Add(-time.Hour)), made.Add(-time.Hour)},
		{"at the bound", podannotation.FormatLease(seen.Add(podannotation.MaxLease)), seen.Add(podannotation.MaxLease)},
		{"too far ahead", podannotation.FormatLease(seen.Add(podannotation.MaxLease + time.Second)), seen.Add(podannotation.MaxLease)},
		{"for good", "9999-12-31T23:59:59Z", seen.Add(podannotation.MaxLease)},
	} {
		pod := &metav1.ObjectMeta{CreationTimestamp: metav1.NewTime(made), Annotations: map[string]string{podannotation.Process: "true"}}
		if test.lease != "none" {
			pod.Annotations[podannotation.Lease] = test.lease
		}
		if got := podannotation.LeaseEnd(pod, seen); !got.Equal(test.want) {
			t.Errorf("%s: ends %v, want %v", test.name, got, test.want)
		}
	}
}

func TestIsProcess(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]bool{"true": true, "false": false, "": false, "True": false, "1": false} {
		pod := &metav1.ObjectMeta{Annotations: map[string]string{podannotation.Process: value}}
		if got := podannotation.IsProcess(pod); got != want {
			t.Errorf("%q: %v", value, got)
		}
	}
	if podannotation.IsProcess(&metav1.ObjectMeta{}) {
		t.Error("a pod without annotations")
	}
}

func FuzzParseLease(f *testing.F) {
	for _, seed := range []string{"", "2026-11-01T12:00:00Z", "2026-11-01T12:00:00.123456789+14:00", "2026-11-01 12:00:00Z", strings.Repeat("2", 100)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		until, err := podannotation.ParseLease(text)
		if err != nil {
			return
		}
		again, err := podannotation.ParseLease(podannotation.FormatLease(until))
		if year := until.UTC().Year(); year < 0 || year > 9999 {
			return // an offset leads to a year that the format cannot express
		}
		if lost := until.Sub(again); err != nil || lost < 0 || lost >= time.Second {
			t.Errorf("%q: read as %v, written and read again as %v, %v", text, until, again, err)
		}
	})
}

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
