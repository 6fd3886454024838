//go:build linux

package nodetest

import (
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
)

// Shared is one containerd for all tests of a binary, started by the first that needs it. Its End belongs into TestMain:
//
//	var shared nodetest.Shared
//
//	func TestMain(m *testing.M) { os.Exit(max(m.Run(), shared.End())) }
type Shared struct {
	// Images are there besides the tool's.
	Images []Image

	once       sync.Once
	life       life
	containerd *Containerd
}

// Containerd returns the shared containerd, or skips the test: see Require.
func (s *Shared) Containerd(t testing.TB) *Containerd {
	t.Helper()
	Require(t)
	s.once.Do(func() { s.containerd = Start(&s.life, s.Images...) })
	if s.containerd == nil {
		t.Fatalf("the containerd of all tests did not start: see the first test that needed it")
	}
	return s.containerd
}

// End removes it, and returns what the binary should exit with: 0, or 1 where something was left behind.
func (s *Shared) End() (code int) {
	for _, cleanup := range slices.Backward(s.life.cleanups) {
		cleanup()
	}
	if s.life.failed {
		return 1
	}
	return 0
}

// life is a testing.TB for what outlives the test that first needs it.
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
