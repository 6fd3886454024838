//go:build linux

package nodetest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// patience bounds every wait for an event that must happen, also on a slow machine.
const patience = time.Minute

// pollPeriod is the period in which a state is checked that cannot be watched.
const pollPeriod = 10 * time.Millisecond

// Containerd is a running containerd that belongs to a test.
type Containerd struct {
	dir    string
	bridge string
	conn   *grpc.ClientConn

	// mu is held to start, stop and clean up.
	mu      sync.Mutex
	process *exec.Cmd
	ended   chan struct{} // closed when process has ended

	killed atomic.Bool
}

// Start runs a containerd with the image of the tool and more images. When the test ends, its containers, sandboxes, images,
// files, mounts and its bridge are removed. The test fails if anything is left. The test is skipped without root, containerd,
// runc or the CNI plugins: see Require.
func Start(t testing.TB, all ...Image) *Containerd {
	t.Helper()
	Require(t)
	dir, err := os.MkdirTemp("", "ctrd-") // not t.TempDir: a unix socket's path has a limit of 108 bytes
	if err != nil {
		t.Fatalf("%v", err)
	}
	c := &Containerd{dir: dir}
	t.Cleanup(func() { c.end(t) })
	if c.bridge, err = writeConfig(dir, pause().Name); err != nil {
		t.Fatalf("configure containerd: %v", err)
	}
	if c.conn, err = dial(c.socket()); err != nil {
		t.Fatalf("%v", err)
	}
	c.Restart(t)
	c.Import(t, append([]Image{pause(), Tool()}, all...)...)
	return c
}

func dial(socket string) (*grpc.ClientConn, error) {
	fast := grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: pollPeriod, Multiplier: 1.2, MaxDelay: 10 * pollPeriod}, MinConnectTimeout: patience}
	return grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority("localhost"),
		grpc.WithConnectParams(fast), grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
}

func (c *Containerd) socket() string { return filepath.Join(c.dir, "c.sock") }

// Endpoint returns the endpoint of CRI: unix:// and a path.
func (c *Containerd) Endpoint() string { return "unix://" + c.socket() }

// Dir returns a directory for files of the test. It is removed after the containers.
func (c *Containerd) Dir() string { return filepath.Join(c.dir, "test") }

// PID returns the process ID of containerd, or 0 while it does not run.
func (c *Containerd) PID() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.process == nil {
		return 0
	}
	return c.process.Process.Pid
}

// Kill ends containerd with SIGKILL, and returns when it has ended. Containers go on.
func (c *Containerd) Kill(t testing.TB) {
	t.Helper()
	c.killed.Store(true)
	c.stop(t, syscall.SIGKILL)
}

// Restart starts containerd, after ending it if it runs, and returns when the runtime and its network are ready.
func (c *Containerd) Restart(t testing.TB) {
	t.Helper()
	c.stop(t, syscall.SIGTERM)
	if err := c.launch(); err != nil {
		t.Fatalf("start containerd: %v", err)
	}
	if err := c.awaitReady(); err != nil {
		t.Fatalf("%v\n%s", err, c.logTail())
	}
}

func (c *Containerd) launch() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	output, err := os.OpenFile(filepath.Join(c.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = output.Close() }()
	process := exec.Command("containerd", "--config", filepath.Join(c.dir, "config.toml"))
	process.Stdout, process.Stderr = output, output
	// A signal from a terminal must reach the test only, which then ends containerd.
	process.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	process.Env = append(os.Environ(), "NOTIFY_SOCKET=")
	if err := process.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() {
		_ = process.Wait()
		close(ended)
	}()
	c.process, c.ended = process, ended
	return nil
}

// stop ends containerd if it runs.
func (c *Containerd) stop(t testing.TB, signal syscall.Signal) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.process == nil {
		return
	}
	_ = c.process.Process.Signal(signal) // containerd may have ended by itself
	select {
	case <-c.ended:
	case <-time.After(patience):
		_ = c.process.Process.Kill()
		t.Errorf("containerd had to be killed: it did not end within %v", patience)
		<-c.ended
	}
	c.process = nil
}

func (c *Containerd) awaitReady() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	go func(ended <-chan struct{}) {
		select {
		case <-ended:
			cancel()
		case <-ctx.Done():
		}
	}(c.ended)
	last := "it ended"
	for {
		status, err := runtimeapi.NewRuntimeServiceClient(c.conn).Status(ctx, &runtimeapi.StatusRequest{})
		unready := notReady(status, err)
		if unready == "" {
			return nil
		}
		if ctx.Err() == nil {
			last = unready
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("containerd is not ready: %s", last)
		case <-time.After(pollPeriod):
		}
	}
}

func notReady(status *runtimeapi.StatusResponse, err error) string {
	if err != nil {
		return err.Error()
	}
	for _, condition := range status.GetStatus().GetConditions() {
		if !condition.Status {
			return condition.Type + ": " + condition.Message
		}
	}
	return ""
}

// Import adds images, and returns when CRI knows them.
func (c *Containerd) Import(t testing.TB, all ...Image) {
	t.Helper()
	dir, err := os.MkdirTemp(c.dir, "import-")
	if err != nil {
		t.Fatalf("%v", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	for n, file := range archives(t, dir, all) {
		command := exec.Command("ctr", "-a", c.socket(), "-n", "k8s.io", "images", "import", file)
		if output, err := command.CombinedOutput(); err != nil {
			t.Fatalf("import %s: %v\n%s", all[n].Name, err, output)
		}
		if err := c.awaitImage(all[n].Name); err != nil {
			t.Fatalf("%v", err)
		}
	}
}

// awaitImage waits until CRI knows an image that was imported into containerd.
func (c *Containerd) awaitImage(name string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		answer, err := runtimeapi.NewImageServiceClient(c.conn).ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: name}})
		if err == nil && answer.GetImage() != nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("image %s was imported, but CRI does not know it: %w", name, ctx.Err())
		case <-time.After(pollPeriod):
		}
	}
}

// logTail returns the end of containerd's log.
func (c *Containerd) logTail() string {
	const size = 8 << 10
	log, err := os.ReadFile(filepath.Join(c.dir, "log"))
	if err != nil {
		return ""
	}
	if len(log) > size {
		_, log, _ = bytes.Cut(log[len(log)-size:], []byte("\n"))
	}
	return string(bytes.TrimSpace(log))
}

// Shared is one containerd for all tests of a binary. The first test that needs it starts it. TestMain must call End:
//
//	var shared nodetest.Shared
//
//	func TestMain(m *testing.M) { os.Exit(max(m.Run(), shared.End())) }
type Shared struct {
	// Images are imported in addition to the image of the tool.
	Images []Image

	once       sync.Once
	life       life
	containerd *Containerd
}

// Containerd returns the shared containerd. It skips the test if containerd cannot run: see Require.
func (s *Shared) Containerd(t testing.TB) *Containerd {
	t.Helper()
	Require(t)
	s.once.Do(func() { s.containerd = Start(&s.life, s.Images...) })
	if s.containerd == nil {
		t.Fatalf("the containerd of all tests did not start: see the first test that needed it")
	}
	return s.containerd
}

// End removes the containerd. It returns the exit code for the binary: 0, or 1 if anything is left.
func (s *Shared) End() (code int) {
	for _, cleanup := range slices.Backward(s.life.cleanups) {
		cleanup()
	}
	if s.life.failed {
		return 1
	}
	return 0
}

// life is a testing.TB for a containerd that outlives the test that starts it.
type life struct {
	testing.TB

	cleanups []func()
	failed   bool
}

func (l *life) Cleanup(f func()) { l.cleanups = append(l.cleanups, f) }
func (l *life) Helper()          {}

func (l *life) Errorf(format string, args ...any) {
	l.failed = true
	fmt.Fprintf(os.Stderr, format+"\n", args...)
}

func (l *life) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }
func (l *life) Skipf(format string, args ...any)  { l.Fatalf(format, args...) }
