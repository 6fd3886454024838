// Fixture: a container runtime whose containers are commands on this machine.

package systemtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/remotecommand"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"

	"lanyard.dev/internal/podoptions"
)

// fakeRuntime is a container runtime whose containers are this machine. It serves sessions as CRI runtimes do: over SPDY on
// loopback, each at a URL that is valid once.
type fakeRuntime struct {
	streaming *httptest.Server
	redirect  atomic.Pointer[url.URL] // if set, the URL of every session

	mu       sync.Mutex
	offered  int
	sessions map[string]http.HandlerFunc
	lines    []string
	logged   []corev1.PodLogOptions
	resized  chan string
}

func newFakeRuntime(t testing.TB) *fakeRuntime {
	t.Helper()
	f := &fakeRuntime{sessions: map[string]http.HandlerFunc{}, resized: make(chan string, 1), lines: []string{"one", "two", "three"}}
	f.streaming = httptest.NewServer(http.HandlerFunc(f.serve))
	t.Cleanup(f.streaming.Close)
	return f
}

func (f *fakeRuntime) serve(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	session := f.sessions[r.URL.Path]
	delete(f.sessions, r.URL.Path)
	f.mu.Unlock()
	if session == nil {
		http.Error(w, "no such session", http.StatusNotFound)
		return
	}
	session(w, r)
}

// newSession returns the URL at which session is served once.
func (f *fakeRuntime) newSession(session http.HandlerFunc) (*url.URL, error) {
	if redirect := f.redirect.Load(); redirect != nil {
		return redirect, nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.offered++
	path := fmt.Sprintf("/session/%d", f.offered)
	f.sessions[path] = session
	return url.Parse(f.streaming.URL + path)
}

func (f *fakeRuntime) ExecURL(_ context.Context, id string, command []string, s podoptions.Streams) (*url.URL, error) {
	return f.newSession(func(w http.ResponseWriter, r *http.Request) {
		f.serveStreams(w, r, s, func(ctx context.Context, streams map[string]httpstream.Stream) error {
			return runWithStreams(ctx, exec.CommandContext(ctx, command[0], command[1:]...), streams)
		})
	})
}

func (f *fakeRuntime) AttachURL(_ context.Context, id string, s podoptions.Streams) (*url.URL, error) {
	return f.newSession(func(w http.ResponseWriter, r *http.Request) {
		f.serveStreams(w, r, s, func(_ context.Context, streams map[string]httpstream.Stream) error {
			_, err := fmt.Fprintf(streams[corev1.StreamTypeStdout], "attached to %s\n", id)
			return err
		})
	})
}

func (f *fakeRuntime) PortForwardURL(_ context.Context, id string, _ []int32) (*url.URL, error) {
	return f.newSession(servePortForward)
}

// Logs writes the lines. If the log is followed, it then waits until ctx ends.
func (f *fakeRuntime) Logs(ctx context.Context, id string, o *corev1.PodLogOptions, stdout, _ io.Writer) error {
	f.mu.Lock()
	f.logged = append(f.logged, *o)
	lines := f.lines
	f.mu.Unlock()
	if o.TailLines != nil {
		lines = lines[max(0, len(lines)-int(*o.TailLines)):]
	}
	for _, line := range lines {
		if _, err := fmt.Fprintf(stdout, "%s: %s\n", id, line); err != nil {
			return err
		}
	}
	if o.Follow {
		<-ctx.Done()
	}
	return nil
}

// serveStreams accepts the streams of a session and runs it. Its result goes to the error stream, in the format of version
// 4.
func (f *fakeRuntime) serveStreams(w http.ResponseWriter, r *http.Request, s podoptions.Streams, session func(context.Context, map[string]httpstream.Stream) error) {
	if _, err := httpstream.Handshake(r, w, []string{remotecommand.StreamProtocolV4Name}); err != nil {
		return
	}
	opened := make(chan httpstream.Stream, 5)
	conn := spdy.NewResponseUpgrader().UpgradeResponse(w, r, func(stream httpstream.Stream, _ <-chan struct{}) error {
		opened <- stream
		return nil
	})
	if conn == nil {
		return
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	go func() {
		<-conn.CloseChan()
		cancel()
	}()
	streams := map[string]httpstream.Stream{}
	for want := streamCount(s); want > 0; want-- {
		select {
		case stream := <-opened:
			streams[stream.Headers().Get(corev1.StreamType)] = stream
		case <-ctx.Done():
			return
		}
	}
	if s.TTY {
		go f.recordSize(streams[corev1.StreamTypeResize])
	}
	status := metav1.Status{Status: metav1.StatusSuccess}
	if exit := (*exec.ExitError)(nil); errors.As(session(ctx, streams), &exit) {
		status = metav1.Status{
			Status: metav1.StatusFailure, Reason: remotecommand.NonZeroExitCodeReason, Message: exit.Error(),
			Details: &metav1.StatusDetails{Causes: []metav1.StatusCause{{Type: remotecommand.ExitCodeCauseType, Message: strconv.Itoa(exit.ExitCode())}}},
		}
	}
	_ = json.NewEncoder(streams[corev1.StreamTypeError]).Encode(status)
	for _, stream := range streams {
		_ = stream.Close()
	}
	<-conn.CloseChan()
}

func streamCount(s podoptions.Streams) int {
	n := 1 // the error stream
	for _, open := range []bool{s.Stdin, s.Stdout, s.Stderr, s.TTY} {
		if open {
			n++
		}
	}
	return n
}

func (f *fakeRuntime) recordSize(stream io.Reader) {
	var size struct{ Width, Height uint16 }
	if json.NewDecoder(stream).Decode(&size) == nil {
		f.resized <- fmt.Sprintf("%dx%d", size.Width, size.Height)
	}
}

func runWithStreams(ctx context.Context, command *exec.Cmd, streams map[string]httpstream.Stream) error {
	if stream := streams[corev1.StreamTypeStdin]; stream != nil {
		in, err := command.StdinPipe()
		if err != nil {
			return err
		}
		go func() {
			_, _ = io.Copy(in, stream)
			_ = in.Close()
		}()
	}
	if stream := streams[corev1.StreamTypeStdout]; stream != nil {
		command.Stdout = stream
	}
	if stream := streams[corev1.StreamTypeStderr]; stream != nil {
		command.Stderr = stream
	}
	return command.Run()
}

// servePortForward connects each pair of streams to a port of this machine.
func servePortForward(w http.ResponseWriter, r *http.Request) {
	if _, err := httpstream.Handshake(r, w, []string{"portforward.k8s.io"}); err != nil {
		return
	}
	conn := spdy.NewResponseUpgrader().UpgradeResponse(w, r, func(stream httpstream.Stream, accepted <-chan struct{}) error {
		go func() {
			<-accepted
			if stream.Headers().Get(corev1.StreamType) == corev1.StreamTypeData {
				relayPort(stream)
			} else {
				_ = stream.Close()
			}
		}()
		return nil
	})
	if conn == nil {
		return
	}
	defer func() { _ = conn.Close() }()
	<-conn.CloseChan()
}

func relayPort(stream httpstream.Stream) {
	defer func() { _ = stream.Close() }()
	port, err := net.Dial("tcp", "127.0.0.1:"+strings.TrimSpace(stream.Headers().Get(corev1.PortHeader)))
	if err != nil {
		return
	}
	defer func() { _ = port.Close() }()
	go func() { _, _ = io.Copy(port, stream) }()
	_, _ = io.Copy(stream, port)
}
