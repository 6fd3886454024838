package process_test

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"lanyard.dev/internal/podannotation"
	"lanyard.dev/lanyardtest"
)

// TestMessagesWithoutReader lets the supervisor write messages to a pipe that is closed or full. It must still end the command
// and delete the Pod.
func TestMessagesWithoutReader(t *testing.T) {
	t.Parallel()
	authority := lanyardtest.Start(t)
	for name, block := range map[string]func(read, write *os.File) error{
		"closed": func(read, _ *os.File) error { return read.Close() },
		"full":   func(_, write *os.File) error { return fill(write) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := newOrder(t, authority)
			o.Act, o.Spec.Grace = "stubborn", time.Second
			read, write, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _, _ = read.Close(), write.Close() }()
			s := o.prepare(t, -1)
			s.process.Stderr = write
			s.startOnPipes()
			name := s.ready()
			if err := block(read, write); err != nil {
				t.Fatal(err)
			}
			now := metav1.DeleteOptions{GracePeriodSeconds: ptr.To(int64(0))}
			if err := authority.Client().CoreV1().Pods(o.Spec.Namespace).Delete(t.Context(), name, now); err != nil {
				t.Fatal(err)
			}
			if got := s.line(); got != syscall.SIGTERM.String() {
				t.Errorf("the command got %v", got)
			}
			if code := s.wait(); code != 128+int(syscall.SIGKILL) {
				t.Errorf("exit code %d", code)
			}
		})
	}
}

// fill writes to a pipe until it is full. It opens the pipe again, because O_NONBLOCK would affect everyone who shares the open
// file.
func fill(pipe *os.File) error {
	descriptor, err := syscall.Open(fmt.Sprintf("/proc/self/fd/%d", pipe.Fd()), syscall.O_WRONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer func() { _ = syscall.Close(descriptor) }()
	for err == nil {
		_, err = syscall.Write(descriptor, make([]byte, 1))
	}
	if errors.Is(err, syscall.EAGAIN) {
		return nil
	}
	return err
}

// TestNoMountOtherUser runs a command that tries to create entries in the directory of a supervisor with more rights.
func TestNoMountOtherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	for _, path := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	authority := lanyardtest.Start(t)
	o := newOrder(t, authority)
	o.NoMount, o.UID, o.GID = true, 4321, 4322
	o.Command = []string{"sh", "-c", `cd $LANYARD_SERVICEACCOUNT_DIR; cat token; echo; cat $KUBECONFIG >/dev/null && echo read
		for name in mine ..data/mine; do mkfifo $name 2>/dev/null; test -e $name && echo made $name; done
		mv ..data other 2>/dev/null && echo moved; stat -L -c %a:%u token; echo end`}
	s := o.start(t, -1)
	if token := s.line(); status(t, authority, token) != http.StatusForbidden {
		t.Error("the token is not accepted")
	}
	for _, want := range []string{"read", "600:4321", "end"} {
		if got := s.line(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if code := s.wait(); code != 0 {
		t.Errorf("exit code %d\n%s", code, s.stderr)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// proxy forwards connections to a server. After cut, the connections that exist stay open but carry no data, as if the server's
// machine had disappeared.
type proxy struct {
	net.Listener
	to string

	mu    sync.Mutex
	open  []net.Conn
	isCut []*bool
}

func newProxy(t *testing.T, to string) *proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{Listener: listener, to: to}
	go p.serve()
	t.Cleanup(func() {
		_ = listener.Close()
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, connection := range p.open {
			_ = connection.Close()
		}
	})
	return p
}

func (p *proxy) serve() {
	for {
		near, err := p.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", p.to)
		if err != nil {
			_ = near.Close()
			continue
		}
		cut := new(bool)
		p.mu.Lock()
		p.open, p.isCut = append(p.open, near, far), append(p.isCut, cut)
		p.mu.Unlock()
		go p.forward(near, far, cut)
		go p.forward(far, near, cut)
	}
}

func (p *proxy) forward(from, to net.Conn, cut *bool) {
	data := make([]byte, 32<<10)
	for {
		count, err := from.Read(data)
		p.mu.Lock()
		lost := *cut
		p.mu.Unlock()
		if err == nil && !lost {
			_, err = to.Write(data[:count])
		}
		if err == nil {
			continue
		}
		if !lost {
			_, _ = from.Close(), to.Close()
		}
		return
	}
}

func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, cut := range p.isCut {
		*cut = true
	}
}

// TestConnectionLost blocks the supervisor's connection without closing it. The lease must be renewed in time over another one.
func TestConnectionLost(t *testing.T) {
	t.Parallel()
	authority := lanyardtest.Start(t)
	at, err := url.Parse(authority.URL())
	if err != nil {
		t.Fatal(err)
	}
	o := newOrder(t, authority)
	p := newProxy(t, at.Host)
	o.Host = fmt.Sprintf("https://%s", p.Addr())
	o.Act, o.Lease = "stubborn", 6*time.Second
	s := o.start(t, -1)
	name := s.ready()
	client := authority.Client()
	shorten := []byte(`{"metadata":{"annotations":{"identity.lanyard.dev/lease":"` + podannotation.FormatLease(time.Now().Add(25*time.Second)) + `"}}}`)
	if _, err := client.CoreV1().Pods(o.Spec.Namespace).Patch(t.Context(), name, "application/merge-patch+json", shorten, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	before := leaseOf(t, client, o.Spec.Namespace, name)
	p.cut()
	eventually(t, "the lease is renewed", func() bool { return !leaseOf(t, client, o.Spec.Namespace, name).Equal(before) })
}
