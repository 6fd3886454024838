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
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"lanyard.dev/internal/files"
)

// stopGrace is the time that Stop gives to requests in flight. Watches never finish by themselves, so every stop with a client
// takes that long.
const stopGrace = time.Second

// startTimeout limits the start. On a slow disk it takes long to read a database of many gigabytes as a whole.
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

// Start runs a member on c.Dir and returns when it answers, which takes well under a second on a local disk. It returns a
// *hint.Error if the directory is in use (ErrLocked), damaged, not writable or full. If ctx ends first, Start stops the
// member and returns the cause of ctx.
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

// abandon stops a member that did not become ready, and returns cause. A member that has given up cannot be stopped.
func (s *Server) abandon(ctx context.Context, cause error) error {
	if s.log.gaveUp.Load() {
		return cause
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*stopGrace)
	defer cancel()
	_ = s.closeMember(ctx)
	return cause
}

// lock keeps other members away. etcd itself locks its database, but waits for that lock without a limit.
func lock(path string) (*files.Lock, error) {
	locked, err := files.TryLock(path)
	if errors.Is(err, files.ErrLocked) {
		return nil, ErrLocked
	}
	return locked, err
}

// launch starts the member in a goroutine of its own. If etcd gives up while it reads its files, that goroutine is blocked for
// ever, and the caller is not.
func (s *Server) launch(ctx context.Context) error {
	type result struct {
		member *embed.Etcd
		err    error
	}
	started := make(chan result, 1)
	config := s.config.member(s.socket.path, s.log, s.rpc.Store)
	go func() {
		// On some kinds of damage the database panics, or reads mapped memory beyond the end of the file.
		debug.SetPanicOnFault(true)
		defer func() {
			if cause := recover(); cause != nil {
				started <- result{err: fmt.Errorf("%w: %v", errDamaged, cause)}
			}
		}()
		member, err := embed.StartEtcd(config)
		started <- result{member, err}
	}()
	// If ctx ends, wait for the start, so that the member can be stopped, but not longer than a stop takes.
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

// awaitSocket returns when the socket answers. etcd reports that it is ready before it serves.
func (s *Server) awaitSocket(ctx context.Context) error {
	client, err := s.Client()
	if err != nil {
		return err
	}
	defer client.Close()
	_, err = client.Status(ctx, s.Endpoint())
	return err
}

// Endpoint returns the URL for etcd clients, "unix:///path".
func (s *Server) Endpoint() string { return s.socket.endpoint() }

// Client returns a new client of the member. The caller closes it.
func (s *Server) Client() (*clientv3.Client, error) { return newClient(s.socket.path) }

// Connect returns a new client of the member that another process runs on dir. The caller closes it. Connect does not wait for
// the member: the first call of the client does.
func Connect(dir string) (*clientv3.Client, error) {
	path, err := findSocket(dir)
	if err != nil {
		return nil, fmt.Errorf("find the socket of the etcd that runs on %s: %w", dir, err)
	}
	return newClient(path)
}

func newClient(socket string) (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{Endpoints: []string{"unix://" + socket}, Logger: zap.NewNop()})
}

// CheckInPlace returns a *hint.Error if the member's directory, database or log was removed or replaced. The member then
// acknowledges writes that are lost.
func (s *Server) CheckInPlace() error {
	files, err := logFiles(filepath.Join(s.config.Dir, "member", "wal"))
	logged := err != nil || len(files) > 0
	_, err = os.Stat(filepath.Join(s.config.Dir, "member", "snap", "db"))
	if s.lock.InPlace() && logged && !errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return memberError(s.config.Dir, errRemoved)
}

// Failed returns a channel that receives one error when the member cannot work any more, for example because the disk is
// full or broken. The process should then end, because the member acknowledges no more writes.
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

// Stop gives requests in flight a second, then ends the member and unlocks its directory. It returns when ctx ends, even if
// the member hangs.
//
// A member that has given up cannot be stopped, because its goroutines are blocked. Then Stop does nothing, and the end of
// the process ends the member. Further calls do nothing.
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

// closeMember closes the clients' streams after stopGrace. etcd itself would wait more than five seconds for streams that
// stay open, such as watches. Both steps wait for etcd's goroutines without a limit, so they run in goroutines of their own.
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

// release removes the socket and releases the lock.
func (s *Server) release() {
	if s.socket != nil {
		s.socket.remove()
	}
	if s.lock != nil {
		_ = s.lock.Release()
	}
}
