package process

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"
	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"
	corev1 "k8s.io/api/core/v1"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/utils/clock"
)

// startTimeout bounds all that is asked of the authority before the command starts.
const startTimeout = 30 * time.Second

// supervisor runs one command.
type supervisor struct {
	Config
	path     string
	pods     typedcorev1.PodInterface
	terminal *terminal
	words    *words
	launcher launcher
	// apart and relay are for the command of another user, relay for one that has a terminal.
	apart *apart
	relay *relay

	// These are set in the course of start.
	volume    *volume
	directory *directory
	root      *os.Root
	pod       *corev1.Pod
	made      time.Time // when the pod was made, by this machine's clock
	content   *content
	env       []string
	command   *os.Process
	removed   bool
	// shown is the content that the command sees now.
	shown atomic.Pointer[content]
	// refused says that the API server refuses the tokens, and replace asks for new ones.
	refused atomic.Bool
	replace chan struct{}

	// over receives why the command is to end before it does so by itself.
	over chan ending
	// leasing is held by who extends the lease.
	leasing *semaphore.Weighted
	// resumed asks for a new lease at once.
	resumed     chan struct{}
	suspensions *rate.Limiter
}

// Run runs the command and returns its exit code: 128 and the signal's number where a signal ended it. When it returns,
// the Pod is gone and its tokens are refused, unless the authority could not be reached; that is said. An error means
// that there was no command; ExitCode says with what to exit then.
//
// It takes over the process's signals, and may be called once at a time.
func Run(ctx context.Context, config Config) (code int, err error) {
	path, err := lookUp(config.Command[0])
	if err != nil {
		return 0, err
	}
	var other *apart
	if config.User.Other {
		// The command may begin in another directory.
		if path, err = filepath.Abs(path); err != nil {
			return 0, notExecuted(config.Command[0], err)
		}
		if other, err = newApart(config.User, config.KeepFDs, config.AllowEscalation); err != nil {
			return 0, err
		}
	}
	s := &supervisor{
		Config: config, path: path, apart: other, pods: config.Client.CoreV1().Pods(config.Pod.Namespace), terminal: openTerminal(),
		words: newWords(config.Words), over: make(chan ending, 1), leasing: semaphore.NewWeighted(1), resumed: make(chan struct{}, 1),
		replace: make(chan struct{}, 1), suspensions: rate.NewLimiter(suspensionsPerSecond, suspensionBurst),
	}
	s.Clock = cmp.Or[clock.Clock](s.Clock, clock.RealClock{})
	s.words.raw = func() bool { return s.relay.grabbed() }
	signals, stop := catch()
	defer stop()
	defer s.end()
	return s.run(ctx, signals)
}

func (s *supervisor) run(ctx context.Context, signals <-chan os.Signal) (code int, err error) {
	if err := s.startUnlessSignalled(ctx, signals); err != nil {
		if early := (*signalled)(nil); errors.As(err, &early) {
			return exitSignal + int(early.signal), nil
		}
		return 0, err
	}
	ctx, cancel := context.WithCancel(ctx)
	var upkeep sync.WaitGroup
	for _, keep := range []func(context.Context){s.keepTokens, s.watchTokens, s.keepLease, s.watchPod, s.report} {
		upkeep.Go(func() { s.guard(ctx, keep) })
	}
	// The Pod goes before the upkeep is waited for, but no upkeep begins any more.
	defer upkeep.Wait()
	defer s.removePod()
	defer cancel()
	defer s.relay.end()
	s.relay.run(s.command.Pid, func(err error) { s.finish(ending{reason: err.Error(), grace: s.Pod.Grace}) })
	return s.attend(signals, watchCommand(s.command.Pid))
}

// signalled is a signal that came before there was a command to get it.
type signalled struct{ signal syscall.Signal }

func (e *signalled) Error() string { return e.signal.String() }

func (s *supervisor) startUnlessSignalled(ctx context.Context, signals <-chan os.Signal) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("no answer within %v", startTimeout))
	defer cancel()
	ctx, interrupt := context.WithCancelCause(ctx)
	defer interrupt(nil)
	started := make(chan error, 1)
	go func() { started <- guarded(func() error { return s.start(ctx) })() }()
	var early *signalled
	for {
		select {
		case err := <-started:
			switch {
			case err != nil && early != nil:
				return early
			case err != nil && ctx.Err() != nil:
				return fmt.Errorf("%w: %w", context.Cause(ctx), err)
			case err == nil && early != nil:
				_ = s.command.Signal(early.signal)
			}
			return err
		case received := <-signals:
			if number, ok := received.(syscall.Signal); ok && ends(received) {
				early = &signalled{number}
				interrupt(early)
			}
		}
	}
}

// start does all there is to do until the command runs. What it made is given back by end, whether it fails or not.
func (s *supervisor) start(ctx context.Context) error {
	if err := s.choose(); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(guarded(s.prepare))
	group.Go(guarded(func() error { return s.acquire(ctx) }))
	if err := group.Wait(); err != nil {
		return err
	}
	if err := s.fill(); err != nil {
		return err
	}
	var err error
	if s.env, err = s.environment(); err != nil {
		return err
	}
	s.command, err = s.launcher.start(program{Path: s.path, Args: s.Command, Env: s.env})
	return err
}

// choose finds the way to the namespace that this process may go.
func (s *supervisor) choose() error {
	files, own := []*os.File{s.Stdin, s.Stdout, s.Stderr}, s.terminal == nil
	mayMount := s.NoMount || mayMount()
	switch {
	case s.User.Other && (!mayMount || !holds(unix.CAP_SETUID)):
		return &Error{Err: fmt.Errorf("user %d may not become user %d", os.Geteuid(), s.User.UID), Next: "only root may run commands as another user"}
	case s.User.Other:
		var err error
		if s.relay, files, s.apart.terminal, err = newRelay(files, s.terminal, s.User); err != nil {
			return err
		}
		s.launcher = &direct{apart: s.apart, mount: !s.NoMount, files: files}
	case mayMount:
		s.launcher = &direct{mount: !s.NoMount, files: files, own: own}
	default:
		s.launcher = &inUserNamespace{files: files, own: own}
	}
	return nil
}

func (s *supervisor) prepare() (err error) {
	if s.volume, err = s.launcher.prepare(); err != nil || !s.NoMount {
		return err
	}
	if s.directory, err = newDirectory(s.User); err != nil {
		return fmt.Errorf("make a private directory: %w", err)
	}
	return nil
}

// acquire makes the Pod and requests what the volume shows. The request for the Pod is not broken off: nobody would know
// then whether it was made.
func (s *supervisor) acquire(ctx context.Context) (err error) {
	uninterrupted, cancel := context.WithTimeout(context.WithoutCancel(ctx), startTimeout)
	defer cancel()
	pod := newPod(s.Pod, s.Command[0], maker())
	if s.pod, err = createPod(uninterrupted, s.pods, pod); err != nil {
		return err
	}
	s.made = s.Clock.Now()
	s.content, err = s.fetch(ctx, s.pod)
	s.shown.Store(s.content)
	return err
}

// maker says who runs this, on which machine.
func maker() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown machine"
	}
	return fmt.Sprintf("uid %d on %s, process %d", os.Getuid(), host, os.Getpid())
}

// removePod is done once.
func (s *supervisor) removePod() {
	if s.pod == nil || s.removed {
		return
	}
	s.removed = true
	if err := deletePod(s.pods, s.pod, s.ask); err != nil {
		s.say("pod %s/%s could not be deleted: %v", s.pod.Namespace, s.pod.Name, err)
		s.say("the authority removes it, and so ends its tokens, within %v", s.Lease)
	}
}

// end gives back all that there is, in an order in which the tokens die first.
func (s *supervisor) end() {
	s.relay.end()
	s.removePod()
	if s.launcher != nil {
		s.launcher.end()
	}
	if s.root != nil {
		_ = s.root.Close()
	}
	s.volume.close()
	if s.directory != nil {
		if err := s.directory.remove(); err != nil {
			s.say("remove %s: %v", s.directory.path, err)
		}
	}
	s.terminal.close()
	s.words.end()
}

func (s *supervisor) say(format string, args ...any) {
	s.words.say(fmt.Sprintf(format, args...))
}

// guarded turns a panic into an error, so that the Pod does not outlive it.
func guarded(f func() error) func() error {
	return func() (err error) {
		defer func() {
			if cause := recover(); cause != nil {
				err = fmt.Errorf("internal error: %v", cause)
			}
		}()
		return f()
	}
}

func (s *supervisor) guard(ctx context.Context, f func(context.Context)) {
	err := guarded(func() error { f(ctx); return nil })()
	if err != nil {
		s.finish(ending{reason: err.Error(), grace: s.Pod.Grace})
	}
}

const (
	// wordsHeld is how many messages wait for a reader who is slow. More are dropped.
	wordsHeld = 64
	// lastWords is how long a supervisor that has nothing else to do waits for them to be written.
	lastWords = time.Second
)

// words are written beside everything else: a reader who has stopped reading must not keep the supervisor from its work,
// of which ending the command is part.
type words struct {
	texts   chan string
	written chan struct{}
	// raw reports whether lines end with a carriage return too; nil is never. It is set before the first word.
	raw func() bool
}

func newWords(to io.Writer) *words {
	w := &words{texts: make(chan string, wordsHeld), written: make(chan struct{})}
	go func() {
		defer close(w.written)
		for text := range w.texts {
			for line := range strings.SplitSeq(text, "\n") {
				end := "\n"
				if w.raw != nil && w.raw() {
					end = "\r\n"
				}
				fmt.Fprintf(to, "lanyard: %s%s", line, end)
			}
		}
	}()
	return w
}

func (w *words) say(text string) {
	select {
	case w.texts <- text:
	default:
	}
}

// end is the last call.
func (w *words) end() {
	close(w.texts)
	select {
	case <-w.written:
	case <-time.After(lastWords):
	}
}
