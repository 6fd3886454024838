package etcd

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/storage/schema"

	"lanyard.dev/internal/hint"
)

// The test binary runs itself as a member that TestKill kills.
const childDirEnv = "LANYARD_ETCD_TEST_CHILD_DIR"

// limitEnv makes the test binary run itself with lower limits: see TestLimits.
const limitEnv = "LANYARD_ETCD_TEST_LIMIT"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDirEnv); dir != "" {
		os.Exit(runChild(dir))
	}
	if dir := os.Getenv(limitEnv); dir != "" {
		os.Exit(startWithin(dir))
	}
	os.Exit(m.Run())
}

// runChild writes keys until it is killed, and prints each key when its write is acknowledged.
func runChild(dir string) int {
	s, err := Start(context.Background(), Config{Dir: dir, Log: os.Stderr})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	client, err := s.Client()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for i := 0; ; i++ {
		if _, err := client.Put(context.Background(), fmt.Sprintf("k%06d", i), "v"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		fmt.Println(i)
	}
}

// startWithin tries to start a member and prints why that fails, with the hint.
func startWithin(dir string) int {
	_, err := Start(context.Background(), Config{Dir: dir})
	var failure *hint.Error
	if !errors.As(err, &failure) {
		fmt.Println(err)
		return 1
	}
	fmt.Printf("%v\n%s\n", err, failure.Hint)
	return 0
}

func start(t *testing.T, c Config) *Server {
	t.Helper()
	s, err := Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, s) })
	return s
}

func stop(t *testing.T, s *Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := s.Stop(ctx); err != nil {
		t.Errorf("stop: %v", err)
	}
}

func client(t *testing.T, s *Server) *clientv3.Client {
	t.Helper()
	c, err := s.Client()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestDataOutlivesAStop(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	dir := filepath.Join(t.TempDir(), "etcd")
	first := start(t, Config{Dir: dir, Log: &log})
	if _, err := client(t, first).Put(t.Context(), "a", "1"); err != nil {
		t.Fatal(err)
	}
	stop(t, first)
	if _, err := os.Stat(filepath.Join(dir, socketName)); !os.IsNotExist(err) {
		t.Errorf("socket after stop: %v, want it gone", err)
	}

	second := start(t, Config{Dir: dir, Log: &log})
	got, err := client(t, second).Get(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Kvs) != 1 || string(got.Kvs[0].Value) != "1" {
		t.Errorf("after restart a = %v, want 1", got.Kvs)
	}
	stop(t, second)
	if log.Len() > 0 {
		t.Errorf("two uneventful runs logged warnings:\n%s", log.String())
	}
}

// TestKill checks that a kill during writes loses no acknowledged one, and that the directory and its lock can be used right
// after it.
//
// It is not parallel: until a child executes its program, it has a copy of every lock of this process, which includes those
// on the logs of members that other tests stop and start.
func TestKill(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "etcd")
	for range 3 {
		last := writeUntilKilled(t, dir, 50)
		s := start(t, Config{Dir: dir})
		got, err := client(t, s).Get(t.Context(), last)
		if err != nil {
			t.Fatal(err)
		}
		if len(got.Kvs) != 1 {
			t.Errorf("%s was acknowledged before the kill and is lost", last)
		}
		stop(t, s)
	}
}

// writeUntilKilled returns the last key whose write was acknowledged.
func writeUntilKilled(t *testing.T, dir string, writes int) string {
	t.Helper()
	var stderr bytes.Buffer
	child := exec.CommandContext(t.Context(), os.Args[0])
	child.Env = append(os.Environ(), childDirEnv+"="+dir)
	child.Stderr = &stderr
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	var n int
	for n < writes {
		if _, err := fmt.Fscan(out, &n); err != nil {
			t.Fatalf("child ended early: %v\n%s", err, stderr.String())
		}
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait()
	return fmt.Sprintf("k%06d", n)
}

func TestSecondMemberIsRefused(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "etcd")
	first := start(t, Config{Dir: dir, UnsafeNoFsync: true})
	_, err := Start(t.Context(), Config{Dir: dir})
	if !errors.Is(err, ErrLocked) {
		t.Fatalf("second member: %v, want ErrLocked", err)
	}
	if !strings.Contains(err.Error(), dir) {
		t.Errorf("error %q does not name the directory", err)
	}
	if _, err := client(t, first).Put(t.Context(), "a", "1"); err != nil {
		t.Errorf("the first member no longer works: %v", err)
	}
}

func TestStopDoesNotWaitForWatches(t *testing.T) {
	t.Parallel()
	s := start(t, Config{Dir: filepath.Join(t.TempDir(), "etcd"), UnsafeNoFsync: true})
	watch := client(t, s).Watch(t.Context(), "a", clientv3.WithCreatedNotify())
	if created := <-watch; !created.Created {
		t.Fatalf("watch was not created: %v", created)
	}
	began := time.Now()
	stop(t, s)
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("stop took %s", took)
	}
}

func TestDamageIsReported(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		damage func(t *testing.T, dir string)
		want   string
	}{
		"write-ahead log":            {func(t *testing.T, dir string) { scribble(t, dir, "member/wal/*.wal", 40) }, "data is damaged"},
		"write-ahead log is gone":    {func(t *testing.T, dir string) { remove(t, dir, "member/wal/*.wal") }, "the write-ahead log in "},
		"write-ahead log is empty":   {func(t *testing.T, dir string) { truncate(t, dir, "member/wal/*.wal", 0) }, "the write-ahead log only up to 0"},
		"write-ahead log is behind":  {func(t *testing.T, dir string) { truncate(t, dir, "member/wal/*.wal", 2000) }, "the write-ahead log only up to "},
		"beginning of the database":  {func(t *testing.T, dir string) { scribble(t, dir, "member/snap/db", 40) }, "it does not begin like a database"},
		"pages of the database":      {func(t *testing.T, dir string) { scribble(t, dir, "member/snap/db", rootPage(t, dir)) }, "data is damaged: "},
		"truncated database":         {func(t *testing.T, dir string) { truncate(t, dir, "member/snap/db", 9000) }, "it holds 9000 bytes of at least "},
		"database and older logs":    {func(t *testing.T, dir string) { remove(t, dir, "member/snap/db"); renumber(t, dir) }, "db is missing or empty"},
		"database of a later etcd":   {func(t *testing.T, dir string) { upgrade(t, dir) }, "version"},
		"older logs, empty database": {func(t *testing.T, dir string) { truncate(t, dir, "member/snap/db", 0); renumber(t, dir) }, "db is missing or empty"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "etcd")
			first := start(t, Config{Dir: dir, UnsafeNoFsync: true})
			c := client(t, first)
			for i := range 20 {
				if _, err := c.Put(t.Context(), fmt.Sprint(i), strings.Repeat("v", 200)); err != nil {
					t.Fatal(err)
				}
			}
			stop(t, first)
			test.damage(t, dir)
			before := hash(t, dir)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			s, err := Start(ctx, Config{Dir: dir})
			if err == nil {
				stop(t, s)
				t.Fatal("started on damaged data")
			}
			var failure *hint.Error
			if !errors.As(err, &failure) || failure.Hint == "" || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %q, want one line with %q and a hint", err, test.want)
			}
			if ctx.Err() != nil {
				t.Error("the damage was detected only by a timeout")
			}
			if errors.Is(err, errDamaged) && hash(t, dir) != before {
				t.Error("the damaged files were changed")
			}
		})
	}
}

// hash returns a checksum of the files of a member.
func hash(t *testing.T, dir string) string {
	t.Helper()
	sum := sha256.New()
	err := fs.WalkDir(os.DirFS(dir), "member", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := os.ReadFile(filepath.Join(dir, path))
		fmt.Fprintf(sum, "%s %d\n", path, len(text))
		sum.Write(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", sum.Sum(nil))
}

func match(t *testing.T, dir, pattern string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, filepath.FromSlash(pattern)))
	if err != nil || len(files) == 0 {
		t.Fatalf("no file matches %s: %v", pattern, err)
	}
	return files[0]
}

// scribble overwrites four pages of the file.
func scribble(t *testing.T, dir, pattern string, at int64) {
	t.Helper()
	f, err := os.OpenFile(match(t, dir, pattern), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(bytes.Repeat([]byte{0xa5}, 16<<10), at); err != nil {
		t.Fatal(err)
	}
}

// rootPage returns the offset of the root page in the database.
func rootPage(t *testing.T, dir string) int64 {
	t.Helper()
	f, err := os.Open(match(t, dir, "member/snap/db"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m, ok := readMetas(f)
	if !ok {
		t.Fatal("no meta record")
	}
	return int64(m.root) * m.pageSize
}

func truncate(t *testing.T, dir, pattern string, size int64) {
	t.Helper()
	if err := os.Truncate(match(t, dir, pattern), size); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, dir, pattern string) {
	t.Helper()
	if err := os.Remove(match(t, dir, pattern)); err != nil {
		t.Fatal(err)
	}
}

// renumber makes the log begin later, as after the removal of its first file.
func renumber(t *testing.T, dir string) {
	t.Helper()
	file := match(t, dir, "member/wal/*.wal")
	if err := os.Rename(file, filepath.Join(filepath.Dir(file), "0000000000000001-0000000000000002.wal")); err != nil {
		t.Fatal(err)
	}
}

// upgrade sets the version of the database to the version of a later etcd.
func upgrade(t *testing.T, dir string) {
	t.Helper()
	s := start(t, Config{Dir: dir, UnsafeNoFsync: true})
	tx := s.member.Server.Backend().BatchTx()
	tx.LockOutsideApply()
	tx.UnsafePut(schema.Meta, schema.MetaStorageVersionName, []byte("3.99.0"))
	tx.Unlock()
	s.member.Server.Backend().ForceCommit()
	stop(t, s)
}

func TestStartErrors(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct{ dir, want string }{
		"none":        {"", "no data directory given"},
		"relative":    {"etcd", "absolute path"},
		"a file":      {file, "is not a directory"},
		"parent gone": {"/nonexistent/lanyard/etcd", "no such file or directory"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Start(t.Context(), Config{Dir: test.dir})
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

func TestCancelledStartFreesTheDirectory(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "etcd")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Start(ctx, Config{Dir: dir, UnsafeNoFsync: true}); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v, want context.Canceled", err)
	}
	start(t, Config{Dir: dir, UnsafeNoFsync: true})
}

func TestFailureIsReportedOnce(t *testing.T) {
	t.Parallel()
	log := newFailureLog()
	log.report("failed to save entries", nil)
	log.report("later", nil)
	if err := <-log.failed; !errors.Is(err, errGaveUp) || !strings.Contains(err.Error(), "failed to save entries") {
		t.Errorf("got %v", err)
	}
}

// TestHintNamesWhatIsLacking checks that missing resources are not reported as damage, because the user would then remove good
// data.
func TestHintNamesWhatIsLacking(t *testing.T) {
	t.Parallel()
	for want, cause := range map[string]error{
		"free some space":  fmt.Errorf("%w: save: %w", errGaveUp, syscall.ENOSPC),
		"raise the quota":  fmt.Errorf("%w: file resize error: truncate db: disk quota exceeded", errGaveUp),
		"open files":       fmt.Errorf("%w: listen: %w", errGaveUp, syscall.EMFILE),
		"more open files":  fmt.Errorf("%w: open wal: too many open files", errGaveUp),
		"more memory":      fmt.Errorf("%w: mmap error: cannot allocate memory", errGaveUp),
		"writable by this": syscall.EROFS,
		"from a backup":    fmt.Errorf("%w: page 5", errDamaged),
		"later version":    errors.New(`version "3.99.0" is not supported`),
		"etcd logged":      errGaveUp,
	} {
		if got := hint.Of(memberError("/d", cause)); !strings.Contains(got, want) {
			t.Errorf("%v: hint %q, want %q", cause, got, want)
		}
	}
}

// TestStopOfAHangingMemberKeepsItsDeadline simulates a full disk: a write has the locks of the store and never ends. A watch waits
// for one of these locks, and the server waits for the watch.
func TestStopOfAHangingMemberKeepsItsDeadline(t *testing.T) {
	t.Parallel()
	s, err := Start(t.Context(), Config{Dir: filepath.Join(t.TempDir(), "etcd"), UnsafeNoFsync: true})
	if err != nil {
		t.Fatal(err)
	}
	c := client(t, s)
	watch := c.Watch(context.Background(), "a", clientv3.WithCreatedNotify())
	if created := <-watch; !created.Created {
		t.Fatalf("watch was not created: %v", created)
	}
	disk := s.member.Server.Backend().ReadTx()
	disk.RLock() // keeps a write from ending
	before := s.member.Server.CommittedIndex()
	written := make(chan error, 1)
	go func() {
		_, err := c.Put(context.Background(), "a", "1")
		written <- err
	}()
	for s.member.Server.CommittedIndex() == before {
		select {
		case err := <-written:
			t.Fatalf("a write to a hanging disk ended: %v", err)
		case <-time.After(time.Millisecond):
		}
	}

	ctx, cancel := context.WithTimeout(context.Background(), stopGrace+time.Second)
	defer cancel()
	stopped := make(chan error, 1)
	go func() { stopped <- s.Stop(ctx) }()
	select {
	case err := <-stopped:
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("stop: %v, want the deadline", err)
		}
	case <-time.After(30 * time.Second):
		t.Error("stop hangs with the member")
	}
	disk.RUnlock()
	<-written
}

func TestStopLeavesAMemberThatGaveUp(t *testing.T) {
	t.Parallel()
	s, err := Start(t.Context(), Config{Dir: filepath.Join(t.TempDir(), "etcd"), UnsafeNoFsync: true})
	if err != nil {
		t.Fatal(err)
	}
	s.log.report("failed to save entries", nil)
	if err := <-s.Failed(); !errors.Is(err, errGaveUp) {
		t.Errorf("got %v", err)
	}
	if err := s.Stop(t.Context()); err != nil {
		t.Errorf("stop: %v", err)
	}
	s.log.gaveUp.Store(false)
	s.stop = sync.Once{}
	stop(t, s)
}
