package systemtest

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"

	"lanyard.dev/internal/cli"
	"lanyard.dev/lanyardtest"
)

// patience bounds every wait for an event that is sure to come, on a machine however slow.
const patience = time.Minute

// actAsLanyard in the environment makes the test binary the lanyard program.
const actAsLanyard = "SYSTEMTEST_ACT_AS_LANYARD"

func TestMain(m *testing.M) {
	if os.Getenv(actAsLanyard) != "" {
		outliveFileLimit()
		os.Exit(actAs(os.Args[1:]))
	}
	flag.Parse()
	if !testing.Verbose() {
		klog.SetSlogLogger(slog.New(slog.DiscardHandler))
	}
	code := m.Run()
	os.Exit(max(code, shared.end()))
}

// actAs is the lanyard program, and what it does not let its users do.
func actAs(args []string) (code int) {
	if len(args) > 0 && args[0] == briefUp {
		return upBriefly(args[1:])
	}
	return cli.Main()
}

// shared is the authority of all tests that only need some authority.
var shared = &binaryLife{}

// binaryLife is a testing.TB for what outlives the test that first needs it: its cleanups run when the binary ends.
type binaryLife struct {
	testing.TB

	once      sync.Once
	authority *lanyardtest.Authority

	mu       sync.Mutex
	cleanups []func()
	failed   bool
}

func (l *binaryLife) Context() context.Context { return context.Background() }
func (l *binaryLife) Helper()                  {}

func (l *binaryLife) Cleanup(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cleanups = append(l.cleanups, f)
}

func (l *binaryLife) Errorf(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failed = true
	fmt.Fprintf(os.Stderr, format+"\n", args...)
}

func (l *binaryLife) Fatal(args ...any)                 { panic(fmt.Sprint(args...)) }
func (l *binaryLife) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

func (l *binaryLife) TempDir() string {
	dir, err := os.MkdirTemp("", "systemtest-")
	if err != nil {
		l.Fatalf("%v", err)
	}
	l.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func (l *binaryLife) end() (code int) {
	for i := len(l.cleanups) - 1; i >= 0; i-- {
		l.cleanups[i]()
	}
	if l.failed {
		return 1
	}
	return 0
}

// authority returns the shared one.
func authority(t testing.TB) *lanyardtest.Authority {
	t.Helper()
	shared.once.Do(func() { shared.authority = lanyardtest.Start(shared) })
	return shared.authority
}

func clientFor(t testing.TB, config *rest.Config) *kubernetes.Clientset {
	t.Helper()
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func dynamicFor(t testing.TB, config *rest.Config) *dynamic.DynamicClient {
	t.Helper()
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// eventually calls done until it holds; it is for what no watch tells of.
func eventually(t testing.TB, what string, done func(context.Context) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !done(ctx) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s: not within %v", what, patience)
		}
	}
}
