//go:build linux

package crilog_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"k8s.io/utils/ptr"

	"lanyard.dev/internal/node/crilog"
)

// patience bounds every wait.
const patience = time.Minute

func stamp(second int) string { return fmt.Sprintf("2026-11-01T12:00:%02d.000000001Z", second) }

func record(second int, stream, tag, text string) string {
	return stamp(second) + " " + stream + " " + tag + " " + text + "\n"
}

// directory is a directory with a log.
type directory struct {
	t    *testing.T
	path string
	root *os.Root
}

func newDirectory(t *testing.T, content string) *directory {
	t.Helper()
	d := &directory{t: t, path: t.TempDir()}
	var err error
	if d.root, err = os.OpenRoot(d.path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.root.Close() })
	d.append(content)
	return d
}

func (d *directory) append(content string) {
	d.t.Helper()
	f, err := d.root.OpenFile("log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = f.WriteString(content)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		d.t.Fatal(err)
	}
}

func TestRead(t *testing.T) {
	t.Parallel()
	content := record(1, "stdout", "F", "one") + record(2, "stderr", "F", "two") + "no line of a runtime\n" +
		record(3, "stdout", "P", "th") + record(3, "stdout", "P:x", "re") + record(3, "stdout", "F", "e") + record(4, "stdout", "F", "")
	at := func(text string) time.Time {
		parsed, err := time.Parse(time.RFC3339Nano, text)
		if err != nil {
			t.Fatal(err)
		}
		return parsed
	}
	for name, test := range map[string]struct {
		content string
		options crilog.Options
		want    string
	}{
		"all":          {content, crilog.Options{}, "one\n2:two\nthree\n\n"},
		"empty":        {"", crilog.Options{}, ""},
		"timestamps":   {content, crilog.Options{Timestamps: true}, stamp(1) + " one\n2:" + stamp(2) + " two\n" + stamp(3) + " three\n" + stamp(4) + " \n"},
		"since":        {content, crilog.Options{Since: at(stamp(3))}, "three\n\n"},
		"tail":         {content, crilog.Options{TailLines: ptr.To[int64](2)}, "e\n\n"},
		"tail of more": {content, crilog.Options{TailLines: ptr.To[int64](100)}, "one\n2:two\nthree\n\n"},
		"tail of all":  {content, crilog.Options{TailLines: ptr.To[int64](7)}, "one\n2:two\nthree\n\n"},
		"no tail":      {content, crilog.Options{TailLines: ptr.To[int64](0)}, ""},
		"limit":        {content, crilog.Options{LimitBytes: ptr.To[int64](5)}, "one\n2:t"},
		"limit of 0":   {content, crilog.Options{LimitBytes: ptr.To[int64](0)}, ""},
		"without end":  {record(1, "stdout", "F", "one") + strings.TrimSuffix(record(2, "stdout", "F", "two"), "\n"), crilog.Options{}, "one\ntwo"},
		"long":         {record(1, "stdout", "F", strings.Repeat("x", 1<<20)) + record(2, "stdout", "F", "y"), crilog.Options{}, strings.Repeat("x", 1<<20) + "\ny\n"},
		"long, before": {record(1, "stdout", "F", strings.Repeat("x", 1<<20)) + record(2, "stdout", "F", "y"), crilog.Options{Since: at(stamp(2))}, "y\n"},
		"long, no log": {strings.Repeat("x", 1<<20) + "\n" + record(2, "stdout", "F", "y"), crilog.Options{}, "y\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			test.options.Stdout, test.options.Stderr = &out, marked{&out}
			if err := crilog.Read(t.Context(), newDirectory(t, test.content).root, "log", test.options); err != nil || out.String() != test.want {
				t.Errorf("%.200q, %v; want %.200q", out.String(), err, test.want)
			}
		})
	}
	var out bytes.Buffer
	if err := crilog.Read(t.Context(), newDirectory(t, content).root, "log", crilog.Options{Stderr: &out}); err != nil || out.String() != "two\n" {
		t.Errorf("standard error alone: %q, %v", out.String(), err)
	}
}

// marked writes "2:" before each write.
type marked struct{ to *bytes.Buffer }

// Write implements io.Writer.
func (m marked) Write(data []byte) (int, error) {
	m.to.WriteString("2:")
	return m.to.Write(data)
}

// TestReadNoLog reads names that are not a regular file below the directory.
func TestReadNoLog(t *testing.T) {
	t.Parallel()
	d := newDirectory(t, "")
	outside := filepath.Join(t.TempDir(), "secret")
	if err := errors.Join(
		os.WriteFile(outside, []byte(record(1, "stdout", "F", "secret")), 0o600), os.Symlink(outside, filepath.Join(d.path, "link")),
		syscall.Mkfifo(filepath.Join(d.path, "pipe"), 0o600), d.root.Mkdir("directory", 0o700), d.root.Symlink("log", "inside"),
	); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"link", "pipe", "directory", "../secret", outside, "none"} {
		var out bytes.Buffer
		err := crilog.Read(t.Context(), d.root, name, crilog.Options{Stdout: &out})
		if err == nil || out.Len() > 0 || errors.Is(err, fs.ErrNotExist) != (name == "none") {
			t.Errorf("%s: %q, %v", name, out.String(), err)
		}
	}
	if err := crilog.Read(t.Context(), d.root, "inside", crilog.Options{}); err != nil {
		t.Errorf("a link inside: %v", err)
	}
}

// follower follows a log.
type follower struct {
	t        *testing.T
	mu       sync.Mutex
	out      bytes.Buffer
	hasEnded bool // the container has ended
	ended    chan error
}

func (d *directory) follow(ctx context.Context, o crilog.Options) *follower {
	f := &follower{t: d.t, ended: make(chan error, 1)}
	o.Stdout = f
	o.Running = func(context.Context) (bool, error) {
		f.mu.Lock()
		defer f.mu.Unlock()
		return !f.hasEnded, nil
	}
	go func() { f.ended <- crilog.Read(ctx, d.root, "log", o) }()
	return f
}

// Write implements io.Writer.
func (f *follower) Write(data []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.out.Write(data)
}

func (f *follower) text() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.out.String()
}

func (f *follower) await(want string) {
	f.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for late := time.After(patience); f.text() != want; {
		select {
		case <-tick.C:
		case err := <-f.ended:
			f.t.Fatalf("ended with %q, %v; want %q", f.text(), err, want)
		case <-late:
			f.t.Fatalf("followed %q, want %q", f.text(), want)
		}
	}
}

// TestFollow follows lines that come in parts, rotations, and the end of the container.
func TestFollow(t *testing.T) {
	t.Parallel()
	d := newDirectory(t, record(1, "stdout", "F", "one")+stamp(2)+" stdout F t")
	f := d.follow(t.Context(), crilog.Options{})
	f.await("one\n")
	d.append("wo\n")
	f.await("one\ntwo\n")
	// The runtime writes to the old log until it has made the new one.
	if err := d.root.Rename("log", "log.1"); err != nil {
		t.Fatal(err)
	}
	old, err := d.root.OpenFile("log.1", os.O_APPEND|os.O_WRONLY, 0)
	if err == nil {
		_, err = old.WriteString(record(3, "stdout", "F", "three"))
	}
	if err := errors.Join(err, old.Close()); err != nil {
		t.Fatal(err)
	}
	d.append(record(4, "stdout", "F", "four"))
	f.await("one\ntwo\nthree\nfour\n")
	d.append(record(5, "stdout", "F", "five"))
	f.mu.Lock()
	f.hasEnded = true
	f.mu.Unlock()
	if err := <-f.ended; err != nil || f.text() != "one\ntwo\nthree\nfour\nfive\n" {
		t.Errorf("%q, %v", f.text(), err)
	}
}

// TestFollowEscape puts a link to another file in the place of the log while it is followed.
func TestFollowEscape(t *testing.T) {
	t.Parallel()
	outside := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(outside, []byte(record(1, "stdout", "F", "secret")), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, replace := range map[string]func(path string) error{
		"a link": func(path string) error { return os.Symlink(outside, path) },
		"a pipe": func(path string) error { return syscall.Mkfifo(path, 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDirectory(t, record(1, "stdout", "F", "one"))
			f := d.follow(t.Context(), crilog.Options{})
			f.await("one\n")
			next := filepath.Join(d.path, "next")
			if err := errors.Join(replace(next), os.Rename(next, filepath.Join(d.path, "log"))); err != nil {
				t.Fatal(err)
			}
			if err := <-f.ended; err == nil || f.text() != "one\n" {
				t.Errorf("%q, %v", f.text(), err)
			}
		})
	}
}

func TestFollowEnds(t *testing.T) {
	t.Parallel()
	d := newDirectory(t, record(1, "stdout", "F", "one"))
	ctx, cancel := context.WithCancel(t.Context())
	f := d.follow(ctx, crilog.Options{})
	f.await("one\n")
	cancel()
	if err := <-f.ended; !errors.Is(err, context.Canceled) {
		t.Errorf("after the end of its context Read returned %v", err)
	}
	limited := d.follow(t.Context(), crilog.Options{LimitBytes: ptr.To[int64](6)})
	limited.await("one\n")
	d.append(record(2, "stdout", "F", "two"))
	if err := <-limited.ended; err != nil || limited.text() != "one\ntw" {
		t.Errorf("%q, %v", limited.text(), err)
	}
}

// FuzzRead reads what a runtime, or an attacker in its place, may have written. Read must not write more than the log contains,
// and must write the same lines wherever it begins.
func FuzzRead(f *testing.F) {
	f.Add([]byte(record(1, "stdout", "F", "one")+record(2, "stderr", "P:y", "two")), int64(1), int64(3))
	f.Add([]byte("\n\n 2026-11-01T12:00:00Z stdout\n2026-11-01T12:00:00Z stdout F"), int64(2), int64(0))
	f.Fuzz(func(t *testing.T, content []byte, tail, limit int64) {
		d := newDirectory(t, string(content))
		read := func(o crilog.Options) string {
			var out bytes.Buffer
			o.Stdout, o.Stderr = &out, &out
			if err := crilog.Read(t.Context(), d.root, "log", o); err != nil {
				t.Fatal(err)
			}
			return out.String()
		}
		all := read(crilog.Options{})
		if len(all) > len(content) {
			t.Errorf("%q is read as %q", content, all)
		}
		if last := read(crilog.Options{TailLines: &tail}); !strings.HasSuffix(all, last) {
			t.Errorf("%q ends with %q, of %q", content, last, all)
		}
		if first := read(crilog.Options{LimitBytes: &limit}); int64(len(first)) > max(limit, 0) || !strings.HasPrefix(all, first) {
			t.Errorf("%q begins with %q, of %q", content, first, all)
		}
	})
}
