package podoptions_test

import (
	"net/url"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"lanyard.dev/internal/podoptions"
)

func parse(t testing.TB, text string) url.Values {
	t.Helper()
	query, err := url.ParseQuery(text)
	if err != nil {
		t.Fatal(err)
	}
	return query
}

func TestLog(t *testing.T) {
	t.Parallel()
	at := metav1.NewTime(time.Date(2026, 11, 2, 3, 4, 5, 0, time.UTC))
	for _, test := range []struct {
		query string
		want  corev1.PodLogOptions
		bad   bool
	}{
		{"", corev1.PodLogOptions{}, false},
		{"container=c&follow=true&previous=1&timestamps=false&stream=Stdout", corev1.PodLogOptions{Container: "c", Follow: true, Previous: true, Stream: ptr.To("Stdout")}, false},
		{"tailLines=0&limitBytes=7&sinceSeconds=-1", corev1.PodLogOptions{TailLines: ptr.To[int64](0), LimitBytes: ptr.To[int64](7), SinceSeconds: ptr.To[int64](-1)}, false},
		{"sinceTime=2026-11-02T03:04:05Z", corev1.PodLogOptions{SinceTime: &at}, false},
		{"insecureSkipTLSVerifyBackend=true", corev1.PodLogOptions{InsecureSkipTLSVerifyBackend: true}, false},
		{"tailLines=many", corev1.PodLogOptions{}, true},
		{"tailLines=99999999999999999999", corev1.PodLogOptions{}, true},
		{"sinceTime=yesterday", corev1.PodLogOptions{}, true},
		{"unknown=x", corev1.PodLogOptions{}, false},
	} {
		query := parse(t, test.query)
		var got corev1.PodLogOptions
		err := podoptions.Log(&query, &got)
		if (err != nil) != test.bad {
			t.Errorf("%s: %v", test.query, err)
		}
		if diff := cmp.Diff(test.want, got); !test.bad && diff != "" {
			t.Errorf("%s: %s", test.query, diff)
		}
	}
}

func TestSessions(t *testing.T) {
	t.Parallel()
	query := parse(t, "stdin=true&stdout=1&stderr=false&tty=true&container=c&command=sh&command=-c&command=a+b")
	var exec corev1.PodExecOptions
	want := corev1.PodExecOptions{Stdin: true, Stdout: true, TTY: true, Container: "c", Command: []string{"sh", "-c", "a b"}}
	if err := podoptions.Exec(&query, &exec); err != nil || !reflect.DeepEqual(exec, want) {
		t.Errorf("exec: %+v, %v", exec, err)
	}
	var attach corev1.PodAttachOptions
	if err := podoptions.Attach(&query, &attach); err != nil || attach != (corev1.PodAttachOptions{Stdin: true, Stdout: true, TTY: true, Container: "c"}) {
		t.Errorf("attach: %+v, %v", attach, err)
	}
	query = parse(t, "ports=80,81&ports=82")
	var forward corev1.PodPortForwardOptions
	if err := podoptions.PortForward(&query, &forward); err != nil && len(forward.Ports) == 0 {
		t.Errorf("portforward: %+v, %v", forward, err)
	}
	query = parse(t, "ports=http")
	if err := podoptions.PortForward(&query, &forward); err == nil {
		t.Error("a port that is not a number was accepted")
	}
}

// TestNodeForm writes and reads all options in the form of the kubelet.
func TestNodeForm(t *testing.T) {
	t.Parallel()
	for bits := range 16 {
		s := podoptions.Streams{Stdin: bits&1 != 0, Stdout: bits&2 != 0, Stderr: bits&4 != 0, TTY: bits&8 != 0}
		command := []string{"sh", "-c", "echo 1&2; x=\"é\""}
		got, gotCommand, err := podoptions.ParseStreams(parse(t, s.Query(command).Encode()))
		want := s
		want.Stderr = s.Stderr && !s.TTY
		if !want.Stdin && !want.Stdout && !want.Stderr {
			if err == nil {
				t.Errorf("%+v: a session without streams was accepted", s)
			}
			continue
		}
		if err != nil || got != want || !slices.Equal(gotCommand, command) {
			t.Errorf("%+v: got %+v, %q, %v", s, got, gotCommand, err)
		}
	}
	for _, ports := range [][]int32{nil, {80}, {1, 65535}} {
		if got, err := podoptions.ParsePorts(podoptions.PortQuery(ports)); err != nil || !slices.Equal(got, ports) {
			t.Errorf("%v: got %v, %v", ports, got, err)
		}
	}
	for _, bad := range []string{"0", "65536", "-1", "", "80,", "http"} {
		if got, err := podoptions.ParsePorts(url.Values{"port": {bad}}); err == nil {
			t.Errorf("port %q: got %v", bad, got)
		}
	}
}

func TestValidateLog(t *testing.T) {
	t.Parallel()
	for query, want := range map[string]string{
		"":                          "",
		"tailLines=0&limitBytes=1":  "",
		"stream=All&tailLines=1":    "",
		"tailLines=-1":              "tailLines: Invalid value: -1: must be greater than or equal to 0",
		"limitBytes=0":              "limitBytes: Invalid value: 0: must be greater than 0",
		"sinceSeconds=0":            "sinceSeconds: Invalid value: 0: must be greater than 0",
		"stream=Stdout&tailLines=1": "[]: Forbidden: `tailLines` and specific `stream` are mutually exclusive for now",
		"stream=stdout":             `stream: Unsupported value: "stdout": supported values: "All", "Stderr", "Stdout"`,
		"sinceSeconds=1&sinceTime=2026-11-02T03:04:05Z": "[]: Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified",
	} {
		values := parse(t, query)
		var o corev1.PodLogOptions
		if err := podoptions.Log(&values, &o); err != nil {
			t.Fatal(err)
		}
		got := ""
		if err := podoptions.ValidateLog(&o).ToAggregate(); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s: got %q, want %q", query, got, want)
		}
	}
}

// FuzzLog checks that a node reads the same options from LogQuery that the authority read from any query.
func FuzzLog(f *testing.F) {
	f.Add("follow=true&tailLines=10&sinceTime=2026-11-02T03:04:05Z&stream=All")
	f.Add("limitBytes=x")
	f.Fuzz(func(t *testing.T, text string) {
		query, err := url.ParseQuery(text)
		if err != nil {
			return
		}
		var sent, got corev1.PodLogOptions
		if podoptions.Log(&query, &sent) != nil || len(podoptions.ValidateLog(&sent)) > 0 {
			return
		}
		again := podoptions.LogQuery(&sent)
		if err := podoptions.Log(&again, &got); err != nil {
			t.Fatalf("%s: %v", again.Encode(), err)
		}
		sent.Container, sent.InsecureSkipTLSVerifyBackend = "", false
		if sent.SinceTime != nil {
			sent.SinceTime, got.SinceTime = ptr.To(sent.SinceTime.Rfc3339Copy()), ptr.To(got.SinceTime.Rfc3339Copy())
		}
		if diff := cmp.Diff(sent, got); diff != "" {
			t.Error(diff)
		}
	})
}
