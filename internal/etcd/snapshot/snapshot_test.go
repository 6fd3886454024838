package snapshot

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"lanyard.dev/internal/etcd"
)

// start runs a member on dir and returns a client of it.
func start(t *testing.T, dir string) *clientv3.Client {
	t.Helper()
	member, err := etcd.Start(t.Context(), etcd.Config{Dir: dir, UnsafeNoFsync: true})
	if err != nil {
		t.Fatal(err)
	}
	client, err := member.Client()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := errors.Join(client.Close(), member.Stop(ctx)); err != nil {
			t.Error(err)
		}
	})
	return client
}

// save writes a snapshot with the given value of "key" to a file, and returns the file and the stream.
func save(t *testing.T, value string) (string, *Stream) {
	t.Helper()
	client := start(t, filepath.Join(t.TempDir(), "etcd"))
	for range 3 {
		if _, err := client.Put(t.Context(), "key", value); err != nil {
			t.Fatal(err)
		}
	}
	stream, err := Open(t.Context(), client)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stream.Close)
	data, err := io.ReadAll(stream)
	if err != nil {
		t.Fatal(err)
	}
	if int64(len(data)) != stream.Size {
		t.Errorf("read %d bytes, announced were %d", len(data), stream.Size)
	}
	file := filepath.Join(t.TempDir(), "snapshot")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return file, stream
}

func TestRestore(t *testing.T) {
	t.Parallel()
	const bump = 1000
	value := strings.Repeat("v", 100_000) // more than one message
	file, stream := save(t, value)
	if stream.Revision != 4 || stream.ClusterID == 0 || !strings.HasPrefix(stream.Version, "3.") {
		t.Errorf("revision %d, cluster %x, version %s", stream.Revision, stream.ClusterID, stream.Version)
	}
	dir := filepath.Join(t.TempDir(), "etcd")
	if err := Restore(file, dir, bump); err != nil {
		t.Fatal(err)
	}
	client := start(t, dir)
	got, err := client.Get(t.Context(), "key")
	if err != nil || len(got.Kvs) != 1 || string(got.Kvs[0].Value) != value {
		t.Fatalf("%d values, %v", len(got.Kvs), err)
	}
	if got.Header.Revision < stream.Revision+bump {
		t.Errorf("revision %d after %d", got.Header.Revision, stream.Revision)
	}
	watched, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if answer := <-client.Watch(watched, "key", clientv3.WithRev(stream.Revision)); answer.CompactRevision == 0 {
		t.Errorf("a watch from before the restore goes on: %+v, %v", answer, answer.Err())
	}
}

func TestRestoreOfDamage(t *testing.T) {
	t.Parallel()
	file, _ := save(t, "v")
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	damages := map[string]func([]byte) []byte{
		"empty":            func([]byte) []byte { return nil },
		"text":             func([]byte) []byte { return []byte("not a database") },
		"no checksum":      func(b []byte) []byte { return b[:len(b)-32] },
		"half":             func(b []byte) []byte { return b[:len(b)/2] },
		"a byte of a page": func(b []byte) []byte { b[len(b)-100]++; return b },
		"the checksum":     func(b []byte) []byte { b[len(b)-1]++; return b },
		"the meta pages":   func(b []byte) []byte { clear(b[:8192]); return b },
	}
	for name, damage := range damages {
		path := filepath.Join(t.TempDir(), "snapshot")
		if err := os.WriteFile(path, damage(append([]byte{}, good...)), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := Restore(path, filepath.Join(t.TempDir(), "etcd"), 1); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestOpenEndsWithItsContext(t *testing.T) {
	t.Parallel()
	client := start(t, filepath.Join(t.TempDir(), "etcd"))
	ctx, cancel := context.WithCancelCause(t.Context())
	wanted := errors.New("interrupted")
	cancel(wanted)
	if _, err := Open(ctx, client); !errors.Is(err, wanted) {
		t.Errorf("got %v, want %v", err, wanted)
	}
}

// TestStreamIsChecked reads a stream whose content is not what etcd hashed.
func TestStreamIsChecked(t *testing.T) {
	t.Parallel()
	client := start(t, filepath.Join(t.TempDir(), "etcd"))
	stream, err := Open(t.Context(), client)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	stream.buffered[0]++
	if _, err := io.Copy(io.Discard, stream); !errors.Is(err, errSum) {
		t.Errorf("got %v, want %v", err, errSum)
	}
}
