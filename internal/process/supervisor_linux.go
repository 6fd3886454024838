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

	"lanyard.dev/internal/hint"
	"lanyard.dev/internal/runas"
)

// startTimeout bounds all requests to the authority before the command starts.
const startTimeout = 30 * time.Second

// supervisor runs one command.
type supervisor struct {
	Config
	path     string // of the program
	pods     typedcorev1.PodInterface
	terminal *runas.ControllingTerminal
	messages *messages
	launcher launcher
	// isolation is nil unless another user runs the command. relay is nil unless that command has a terminal.
	isolation *runas.Isolation
	relay     *runas.Relay

	// start sets these.
	volume     *volume
	directory  *directory
	root       *os.Root
	pod        *corev1.Pod
	podCreated time.Time // by this machine's clock
	content    *content
	env        []string
	command    *os.Process
	podDeleted bool
	// current is the content that the command sees now.
	current atomic.Pointer[content]
	// refused reports whether the API server refuses the tokens. renewNow requests new ones.
	refused  atomic.Bool
	renewNow chan struct{}

	// terminations receives the first reason to end the command.
	terminations chan termination
	// leaseLock is held while the lease is extended.
	leaseLock *semaphore.Weighted
	// resumed requests a renewal of the lease after a suspension.
	resumed     chan struct{}
	suspensions *rate.Limiter
}

// Run runs the command and returns its exit code, which is 128 plus the number of the signal if a signal ended the command.
// When Run returns, the Pod is deleted and its tokens are refused; a message reports if the authority could not be reached. An
// error means that the command did not start; ExitCode returns the exit code for it.
//
// Run handles the signals of the process. Only one call may run at a time.
func Run(ctx context.Context, config Config) (code int, err error) {
	path, err := findProgram(config.Command[0])
	if err != nil {
		return 0, err
	}
	var isolation *runas.Isolation
	if config.User.Other {
		// The command may start in another directory.
		if path, err = filepath.Abs(path); err != nil {
			return 0, executionFailure(config.Command[0], err)
		}
		if isolation, err = runas.NewIsolation(config.User, config.KeepFDs, config.AllowEscalation); err != nil {
			return 0, err
		}
	}
	s := &supervisor{
		Config: config, path: path, isolation: isolation, pods: config.Client.CoreV1().Pods(config.Pod.Namespace),
		terminal: runas.OpenControllingTerminal(), messages: newMessages(config.Messages), terminations: make(chan termination, 1),
		leaseLock: semaphore.NewWeighted(1), resumed: make(chan struct{}, 1), renewNow: make(chan struct{}, 1),
		suspensions: rate.NewLimiter(suspensionsPerSecond, suspensionBurst),
	}
	s.Clock = cmp.Or[clock.Clock](s.Clock, clock.RealClock{})
	s.messages.isRaw = func() bool { return s.relay.IsRaw() }
	signals, stop := notifySignals()
	defer stop()
	defer s.release()
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
	for _, task := range []func(context.Context){s.keepTokens, s.probeTokens, s.keepLease, s.watchPod, s.reportRunning} {
		upkeep.Go(func() { s.runTask(ctx, task) })
	}
	// The Pod is deleted before the tasks are waited for, but after their context has ended.
	defer upkeep.Wait()
	defer s.deletePod()
	defer cancel()
	defer s.relay.Close()
	s.relay.Start(s.command.Pid, func(err error) { s.terminate(termination{reason: err.Error(), grace: s.Pod.Grace}) })
	return s.awaitCommand(signals, watchCommand(s.command.Pid))
}

// signalled is the error of a start that a signal interrupted.
type signalled struct{ signal syscall.Signal }

func (e *signalled) Error() string { return e.signal.String() }

func (s *supervisor) startUnlessSignalled(ctx context.Context, signals <-chan os.Signal) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("no answer within %v", startTimeout))
	defer cancel()
	ctx, interrupt := context.WithCancelCause(ctx)
	defer interrupt(nil)
	started := make(chan error, 1)
	go func() { started <- recovered(func() error { return s.start(ctx) })() }()
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
			if number, ok := received.(syscall.Signal); ok && interruptsStart(received) {
				early = &signalled{number}
				interrupt(early)
			}
		}
	}
}

// start starts the command. release frees what start created, also after an error.
func (s *supervisor) start(ctx context.Context) error {
	if err := s.selectLauncher(); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(recovered(s.prepareVolume))
	group.Go(recovered(func() error { return s.createPod(ctx) }))
	if err := group.Wait(); err != nil {
		return err
	}
	if err := s.writeFiles(); err != nil {
		return err
	}
	var err error
	if s.env, err = s.environment(); err != nil {
		return err
	}
	s.command, err = s.launcher.start(program{Path: s.path, Args: s.Command, Env: s.env})
	return err
}

// selectLauncher selects the way to start the command that the capabilities of this process permit.
func (s *supervisor) selectLauncher() error {
	files, ownGroup := []*os.File{s.Stdin, s.Stdout, s.Stderr}, s.terminal == nil
	mayMount := s.NoMount || mayMount()
	switch {
	case s.User.Other && (!mayMount || !hasCapability(unix.CAP_SETUID)):
		return hint.New(fmt.Errorf("user %d may not become user %d", os.Geteuid(), s.User.UID), onlyRootHint)
	case s.User.Other:
		var err error
		var terminal int
		if s.relay, files, terminal, err = runas.NewRelay(files, s.terminal, s.User); err != nil {
			return err
		}
		s.isolation.SetTerminal(terminal)
		s.launcher = &direct{isolation: s.isolation, mount: !s.NoMount, files: files}
	case mayMount:
		s.launcher = &direct{mount: !s.NoMount, files: files, ownGroup: ownGroup}
	default:
		s.launcher = &inUserNamespace{files: files, ownGroup: ownGroup}
	}
	return nil
}

func (s *supervisor) prepareVolume() (err error) {
	if s.volume, err = s.launcher.prepare(); err != nil || !s.NoMount {
		return err
	}
	if s.directory, err = newDirectory(s.User); err != nil {
		return fmt.Errorf("create a private directory: %w", err)
	}
	return nil
}

// createPod creates the Pod and requests the content of the volume. The request for the Pod is not cancelled with ctx, because
// it would then be unknown whether the Pod exists.
func (s *supervisor) createPod(ctx context.Context) (err error) {
	uninterrupted, cancel := context.WithTimeout(context.WithoutCancel(ctx), startTimeout)
	defer cancel()
	pod := newPod(s.Pod, s.Command[0], describeCreator())
	if s.pod, err = createPod(uninterrupted, s.pods, pod); err != nil {
		return err
	}
	s.podCreated = s.Clock.Now()
	s.content, err = s.fetch(ctx, s.pod)
	s.current.Store(s.content)
	return err
}

func describeCreator() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown machine"
	}
	return fmt.Sprintf("uid %d on %s, process %d", os.Getuid(), host, os.Getpid())
}

// deletePod deletes the Pod. Further calls have no effect.
func (s *supervisor) deletePod() {
	if s.pod == nil || s.podDeleted {
		return
	}
	s.podDeleted = true
	if err := deletePod(s.pods, s.pod, s.request); err != nil {
		s.printf("delete pod %s/%s: %v", s.pod.Namespace, s.pod.Name, err)
		s.printf("the authority deletes the pod, and so invalidates its tokens, within %v", s.Lease)
	}
}

// release frees all resources. The Pod comes first, so that the tokens are refused as early as possible.
func (s *supervisor) release() {
	s.relay.Close()
	s.deletePod()
	if s.launcher != nil {
		s.launcher.release()
	}
	if s.root != nil {
		_ = s.root.Close()
	}
	s.volume.close()
	if s.directory != nil {
		if err := s.directory.remove(); err != nil {
			s.printf("remove %s: %v", s.directory.path, err)
		}
	}
	s.terminal.Close()
	s.messages.close()
}

// recovered returns f with panics turned into errors, so that the supervisor still deletes the Pod.
func recovered(f func() error) func() error {
	return func() (err error) {
		defer func() {
			if cause := recover(); cause != nil {
				err = fmt.Errorf("internal error: %v", cause)
			}
		}()
		return f()
	}
}

// runTask runs f, and ends the command if f panics.
func (s *supervisor) runTask(ctx context.Context, f func(context.Context)) {
	err := recovered(func() error { f(ctx); return nil })()
	if err != nil {
		s.terminate(termination{reason: err.Error(), grace: s.Pod.Grace})
	}
}

const (
	// maxPendingMessages is the number of messages that wait for a slow reader. Further messages are dropped.
	maxPendingMessages = 64
	// lastMessagesTimeout bounds how long close waits until the pending messages are written.
	lastMessagesTimeout = time.Second
)

// messages writes messages in a goroutine of its own. A reader that no longer reads must not block the supervisor, which could
// then not end the command.
type messages struct {
	texts   chan string
	written chan struct{}
	// isRaw reports whether lines must end with a carriage return too. It is set before the first message, or nil.
	isRaw func() bool
}

func newMessages(to io.Writer) *messages {
	m := &messages{texts: make(chan string, maxPendingMessages), written: make(chan struct{})}
	go func() {
		defer close(m.written)
		for text := range m.texts {
			for line := range strings.SplitSeq(text, "\n") {
				end := "\n"
				if m.isRaw != nil && m.isRaw() {
					end = "\r\n"
				}
				fmt.Fprintf(to, "lanyard: %s%s", line, end)
			}
		}
	}()
	return m
}

// printf writes a message for the user to standard error.
func (s *supervisor) printf(format string, args ...any) {
	select {
	case s.messages.texts <- fmt.Sprintf(format, args...):
	default:
	}
}

// close must be the last call.
func (m *messages) close() {
	close(m.texts)
	select {
	case <-m.written:
	case <-time.After(lastMessagesTimeout):
	}
}
