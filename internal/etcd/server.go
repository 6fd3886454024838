package etcd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"google.golang.org/grpc"

	"lanyard.dev/internal/files"
)

// stopGrace is how long Stop lets requests in flight finish. Watches never
// finish by themselves, so this bounds every stop with a client attached.
const stopGrace = time.Second

// startTimeout is what a start may take on a slow disk: a database of many
// gigabytes is read as a whole.
const startTimeout = 5 * time.Minute

var errSlowStart = fmt.Errorf("it did not answer within %v", startTimeout)

// Server is a running member.
type Server struct {
	config Config
	socket *socket
	lock   *files.Lock
	log    *failureLog

	member *embed.Etcd
	rpc    atomic.Pointer[grpc.Server]

	stop sync.Once
}

// Start runs a member on c.Dir and returns when it answers, which on a local
// disk takes well under a second. It fails with a *hint.Error when the directory is
// in use (ErrLocked), damaged, unwritable or full. When ctx ends first, the
// half-started member is stopped and the context's cause returned.
func Start(ctx context.Context, c Config) (*Server, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, errSlowStart)
	defer cancel()
	s := &Server{config: c, log: newFailureLog()}
	if err := s.start(ctx); err != nil {
		s.release()
		return nil, memberError(c.Dir, err)
	}
	return s, nil
}

func (s *Server) start(ctx context.Context) (err error) {
	if err := privateDir(s.config.Dir); err != nil {
		return err
	}
	if s.lock, err = lock(filepath.Join(s.config.Dir, "lock")); err != nil {
		return err
	}
	if s.socket, err = newSocket(s.config.Dir); err != nil {
		return err
	}
	if err := checkLimits(); err != nil {
		return err
	}
	if err := checkFiles(s.config.Dir); err != nil {
		return err
	}
	if err := s.launch(ctx); err != nil {
		return err
	}
	if err := s.awaitReady(ctx); err != nil {
		return s.abandon(ctx, err)
	}
	return s.socket.protect()
}

// abandon stops a member that did not become ready, and returns why it
// did not. One that has failed cannot be stopped.
func (s *Server) abandon(ctx context.Context, cause error) error {
	if s.log.gaveUp.Load() {
		return cause
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*stopGrace)
	defer cancel()
	_ = s.closeMember(ctx)
	return cause
}

// lock keeps a second member away. etcd has a lock of its own on its
// database, but waits for it without end.
func lock(path string) (*files.Lock, error) {
	locked, err := files.TryLock(path)
	if errors.Is(err, files.ErrLocked) {
		return nil, ErrLocked
	}
	return locked, err
}

// launch starts the member in a goroutine of its own: if etcd gives up while
// it reads its files, that goroutine is held, not the caller's.
func (s *Server) launch(ctx context.Context) error {
	type result struct {
		member *embed.Etcd
		err    error
	}
	started := make(chan result, 1)
	config := s.config.member(s.socket.path, s.log, s.rpc.Store)
	go func() {
		// The database reports some kinds of damage by a panic, or by reading
		// memory that the file does not back.
		debug.SetPanicOnFault(true)
		defer func() {
			if cause := recover(); cause != nil {
				started <- result{err: fmt.Errorf("%w: %v", errDamaged, cause)}
			}
		}()
		member, err := embed.StartEtcd(config)
		started <- result{member, err}
	}()
	// A start that is called off is waited for, so that its member can be
	// stopped, but not for longer than a stop takes.
	late := make(chan struct{})
	defer context.AfterFunc(ctx, func() { time.AfterFunc(2*stopGrace, func() { close(late) }) })()
	select {
	case r := <-started:
		s.member = r.member
		return r.err
	case err := <-s.log.failed:
		return err
	case <-late:
		return context.Cause(ctx)
	}
}

func (s *Server) awaitReady(ctx context.Context) error {
	select {
	case <-s.member.Server.ReadyNotify():
		return s.awaitSocket(ctx)
	case err := <-s.member.Err():
		return err
	case err := <-s.log.failed:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// awaitSocket returns when the socket answers: etcd calls itself ready
// before it serves.
func (s *Server) awaitSocket(ctx context.Context) error {
	client, err := s.Client()
	if err != nil {
		return err
	}
	defer client.Close()
	_, err = client.Status(ctx, s.Endpoint())
	return err
}

// Endpoint is the URL that etcd clients connect to, "unix:///path".
func (s *Server) Endpoint() string { return s.socket.endpoint() }

// Client returns a new client of the member; the caller closes it.
func (s *Server) Client() (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{Endpoints: []string{s.Endpoint()}, Logger: s.log.logger(nil)})
}

// Held returns a *hint.Error if the member's directory, its database or its log was
// removed or replaced: what is acknowledged then is lost.
func (s *Server) Held() error {
	files, err := logFiles(filepath.Join(s.config.Dir, "member", "wal"))
	logged := err != nil || len(files) > 0
	_, err = os.Stat(filepath.Join(s.config.Dir, "member", "snap", "db"))
	if s.lock.InPlace() && logged && !errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return memberError(s.config.Dir, errRemoved)
}

// Failed yields one error when the member can no longer do its work, such as
// when the disk is full or broken. The process should then end: the member
// acknowledges nothing more.
func (s *Server) Failed() <-chan error {
	failed := make(chan error, 1)
	go func() {
		select {
		case err := <-s.log.failed:
			failed <- memberError(s.config.Dir, err)
		case err, open := <-s.member.Err():
			if open && err != nil {
				failed <- memberError(s.config.Dir, err)
			}
		}
	}()
	return failed
}

// Stop lets requests in flight finish for a second, then ends the member and
// frees its directory. It returns when ctx ends, however the member hangs.
//
// A member that has given up cannot be stopped, since its goroutines are held:
// Stop then does nothing, and leaves the member and its directory to the end
// of the process. Calls after the first do nothing.
func (s *Server) Stop(ctx context.Context) error {
	var err error
	s.stop.Do(func() { err = s.shutdown(ctx) })
	return err
}

func (s *Server) shutdown(ctx context.Context) error {
	if s.log.gaveUp.Load() {
		return nil
	}
	if err := s.closeMember(ctx); err != nil {
		return memberError(s.config.Dir, err)
	}
	s.release()
	return nil
}

// closeMember ends the clients' streams after stopGrace; etcd would wait more
// than five seconds for those that stay open, as watches do. Both steps wait
// for etcd's own goroutines without a limit, so neither runs in this one.
func (s *Server) closeMember(ctx context.Context) error {
	s.log.stopping.Store(true)
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.member.Close()
	}()
	cut := time.AfterFunc(stopGrace, func() {
		if rpc := s.rpc.Load(); rpc != nil {
			rpc.Stop()
		}
	})
	defer cut.Stop()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("did not stop in time: %w", context.Cause(ctx))
	}
}

// release undoes what start did outside the library.
func (s *Server) release() {
	if s.socket != nil {
		s.socket.remove()
	}
	if s.lock != nil {
		_ = s.lock.Release()
	}
}
