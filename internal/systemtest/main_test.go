// Fixture: the test binary, and the authority that tests share.

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

	"k8s.io/klog/v2"

	"lanyard.dev/internal/cli"
	"lanyard.dev/lanyardtest"
)

// waitLimit bounds every wait for an event that is sure to come. It is long enough for a slow machine.
const waitLimit = time.Minute

// actAsLanyard in the environment makes the test binary behave as the lanyard program.
const actAsLanyard = "SYSTEMTEST_ACT_AS_LANYARD"

// prepareProgram runs before the test binary acts as the lanyard program. A file for one operating system may replace it.
var prepareProgram = func() {}

func TestMain(m *testing.M) {
	if os.Getenv(actAsLanyard) != "" {
		prepareProgram()
		os.Exit(runLanyard(os.Args[1:]))
	}
	flag.Parse()
	if !testing.Verbose() {
		klog.SetSlogLogger(slog.New(slog.DiscardHandler))
	}
	code := m.Run()
	os.Exit(max(code, shared.end()))
}

// runLanyard is the lanyard program with two more commands.
func runLanyard(args []string) (code int) {
	if len(args) > 0 && args[0] == shortTokenUp {
		return upWithShortTokens(args[1:])
	}
	if len(args) > 0 && args[0] == memberCommand {
		return runMember(args[1:])
	}
	return cli.Main()
}

// shared is what tests share. Its authority is for all tests that do not disturb it.
var shared = &binaryTB{}

// binaryTB is a testing.TB for fixtures that several tests share. Its cleanups run when the test binary ends.
type binaryTB struct {
	testing.TB

	once      sync.Once
	authority *lanyardtest.Authority

	mu       sync.Mutex
	cleanups []func()
	failed   bool
}

func (l *binaryTB) Context() context.Context { return context.Background() }

func (l *binaryTB) Helper() {}

func (l *binaryTB) Cleanup(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cleanups = append(l.cleanups, f)
}

func (l *binaryTB) Errorf(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failed = true
	fmt.Fprintf(os.Stderr, format+"\n", args...)
}

func (l *binaryTB) Fatal(args ...any) { panic(fmt.Sprint(args...)) }

func (l *binaryTB) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

func (l *binaryTB) TempDir() string {
	dir, err := os.MkdirTemp("", "systemtest-")
	if err != nil {
		l.Fatalf("%v", err)
	}
	l.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func (l *binaryTB) end() (code int) {
	for i := len(l.cleanups) - 1; i >= 0; i-- {
		l.cleanups[i]()
	}
	if l.failed {
		return 1
	}
	return 0
}

// authority returns the shared authority.
func authority(t testing.TB) *lanyardtest.Authority {
	t.Helper()
	shared.once.Do(func() { shared.authority = lanyardtest.Start(shared) })
	return shared.authority
}

// eventually calls done until it returns true. It is for conditions that no watch reports.
func eventually(t testing.TB, what string, done func(context.Context) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !done(ctx) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s: not within %v", what, waitLimit)
		}
	}
}

// async runs f in a goroutine and returns a channel with its error.
func async(f func() error) <-chan error {
	ended := make(chan error, 1)
	go func() { ended <- f() }()
	return ended
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
