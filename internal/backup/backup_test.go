package backup

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	clientv3 "go.etcd.io/etcd/client/v3"
	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"

	"lanyard.dev/internal/datadir"
	"lanyard.dev/internal/etcd"
	"lanyard.dev/internal/signingkey"
)

// instance is a data directory with a running etcd, as an authority has it.
type instance struct {
	dir    *datadir.Dir
	client *clientv3.Client
	stop   func()
}

func startInstance(t *testing.T, path string) *instance {
	t.Helper()
	dir, err := datadir.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = dir.EnsureCertificates("127.0.0.1", clock.RealClock{})
	err = errors.Join(err, dir.EnsureEncryptionConfig(), dir.EnsureSigningKey(dir.SigningKey(), generate(signingkey.ES384)))
	if err != nil {
		t.Fatal(err)
	}
	member, err := etcd.Start(t.Context(), etcd.Config{Dir: dir.EtcdDir(), UnsafeNoFsync: true})
	if err != nil {
		t.Fatal(err)
	}
	client, err := member.Client()
	if err != nil {
		t.Fatal(err)
	}
	stopped := false
	i := &instance{dir: dir, client: client}
	i.stop = func() {
		if stopped {
			return
		}
		stopped = true
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := errors.Join(client.Close(), member.Stop(ctx), dir.Close()); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(i.stop)
	return i
}

func generate(alg signingkey.Algorithm) func() ([]byte, error) {
	return func() ([]byte, error) {
		key, err := signingkey.Generate(alg)
		if err != nil {
			return nil, err
		}
		return key.MarshalPEM()
	}
}

func (i *instance) put(t *testing.T, keys ...string) {
	t.Helper()
	for _, key := range keys {
		if _, err := i.client.Put(t.Context(), key, strings.Repeat("value of "+key, 3000)); err != nil {
			t.Fatal(err)
		}
	}
}

// count returns the number of keys with a prefix.
func (i *instance) count(t *testing.T, prefix string) int64 {
	t.Helper()
	got, err := i.client.Get(t.Context(), prefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil {
		t.Fatal(err)
	}
	return got.Count
}

const (
	keptKey  = "/registry/configmaps/default/kept"
	joinKey  = bootstrapTokensPrefix + "abcdef"
	ringKey  = keyringsPrefix + "signing-keys"
	laterKey = "/registry/configmaps/default/later"
)

// saved returns a backup of a running instance, its directory and the identity that opens it.
func saved(t *testing.T) (file, dir string, identity *age.X25519Identity) {
	t.Helper()
	dir, file, identity = filepath.Join(t.TempDir(), "running"), filepath.Join(t.TempDir(), "backup"), newIdentity(t)
	i := startInstance(t, dir)
	i.put(t, keptKey, joinKey, ringKey)
	manifest, err := Write(t.Context(), dir, file, []age.Recipient{identity.Recipient()})
	if err != nil {
		t.Fatal(err)
	}
	if manifest.Etcd.Revision != 4 || len(manifest.CA) != 64 || time.Since(manifest.Created) > time.Minute {
		t.Errorf("manifest %+v", manifest)
	}
	i.put(t, laterKey)
	i.stop()
	return file, dir, identity
}

func options(file, dir string, identity age.Identity) Options {
	return Options{File: file, DataDir: dir, Key: Key{Identities: []age.Identity{identity}}, Clock: clock.RealClock{}}
}

func read(t *testing.T, path ...string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestBackupOfARunningInstance(t *testing.T) {
	t.Parallel()
	file, before, identity := saved(t)
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	dir := filepath.Join(t.TempDir(), "restored")
	done, err := Restore(t.Context(), options(file, dir, identity))
	if err != nil {
		t.Fatal(err)
	}
	if done.DataDir != dir || done.Objects != 1 || done.BootstrapTokens != 1 || done.Revision < minBump {
		t.Errorf("done %+v", done)
	}
	for _, name := range []string{"ca.crt", "ca.key", "nodes-ca.crt", "nodes-ca.key", "encryption.yaml"} {
		if read(t, dir, name) != read(t, before, name) {
			t.Errorf("%s is another", name)
		}
	}
	old, err := signingkey.LoadPrivate(filepath.Join(before, "sa.key"))
	if err != nil {
		t.Fatal(err)
	}
	if key, err := signingkey.LoadPrivate(filepath.Join(dir, "sa.key")); err != nil || key.ID() == old.ID() || key.Algorithm() != old.Algorithm() {
		t.Errorf("signing key %v after %v, %v", key, old, err)
	}
	i := startInstance(t, dir)
	if err := i.dir.CheckData(); err != nil {
		t.Error(err)
	}
	if i.count(t, keptKey) != 1 || i.count(t, laterKey) != 0 || i.count(t, joinKey) != 0 || i.count(t, ringKey) != 0 {
		t.Errorf("kept %d, later %d, bootstrap tokens %d, signing keys %d", i.count(t, keptKey), i.count(t, laterKey), i.count(t, joinKey), i.count(t, ringKey))
	}
}

func TestAcceptEarlierTokens(t *testing.T) {
	t.Parallel()
	file, before, identity := saved(t)
	o := options(file, filepath.Join(t.TempDir(), "restored"), identity)
	o.AcceptEarlierTokens = true
	done, err := Restore(t.Context(), o)
	if err != nil || done.Objects != 3 || done.BootstrapTokens != 0 {
		t.Fatalf("%+v, %v", done, err)
	}
	if read(t, done.DataDir, "sa.key") != read(t, before, "sa.key") {
		t.Error("the signing key is another")
	}
}

func TestBackupOfAStoppedInstance(t *testing.T) {
	t.Parallel()
	_, dir, identity := saved(t)
	file := filepath.Join(t.TempDir(), "backup")
	if _, err := Write(t.Context(), dir, file, []age.Recipient{identity.Recipient()}); err != nil {
		t.Fatal(err)
	}
	done, err := Restore(t.Context(), options(file, filepath.Join(t.TempDir(), "restored"), identity))
	if err != nil || done.Objects != 2 {
		t.Errorf("%+v, %v; want the object that was written last too", done, err)
	}
	startInstance(t, dir)
}

// TestRevisionGrowsWithEachRestore restores the same backup twice. Clients of the first one must not see revisions go back.
func TestRevisionGrowsWithEachRestore(t *testing.T) {
	t.Parallel()
	file, _, identity := saved(t)
	var last int64
	for _, later := range []time.Duration{0, time.Second, -time.Hour} {
		o := options(file, filepath.Join(t.TempDir(), "restored"), identity)
		o.Clock = clocktesting.NewFakePassiveClock(time.Now().Add(later))
		done, err := Restore(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		if done.Revision < minBump || later > 0 && done.Revision < last+later.Microseconds()/2 {
			t.Errorf("%v later: revision %d after %d", later, done.Revision, last)
		}
		last = done.Revision
	}
}

func TestFailuresLeaveNothing(t *testing.T) {
	t.Parallel()
	file, source, identity := saved(t)
	whole, parent := read(t, file), t.TempDir()
	dir, broken := filepath.Join(parent, "restored"), filepath.Join(t.TempDir(), "broken")
	check := func(name string, o Options, ctx context.Context, want string) {
		t.Helper()
		_, err := Restore(ctx, o)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
		if left, _ := os.ReadDir(parent); len(left) > 0 {
			t.Fatalf("%s: %v are left", name, left)
		}
	}
	check("no file", options(broken, dir, identity), t.Context(), "no such file")
	check("another identity", options(file, dir, newIdentity(t)), t.Context(), "none of the identities opens it")
	for name, content := range map[string]string{
		"half": whole[:len(whole)/2], "one byte less": whole[:len(whole)-1], "two chunks": whole[:chunksAt(whole)+2*(64<<10+16)],
		"another byte": whole[:40000] + "x" + whole[40001:], "more": whole + "x",
	} {
		if err := os.WriteFile(broken, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		check(name, options(broken, dir, identity), t.Context(), ErrDamaged.Error())
	}
	ended, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("interrupted"))
	check("interrupted", options(file, dir, identity), ended, "interrupted")

	target := filepath.Join(parent, "backup")
	for name, write := range map[string]func() error{
		"no directory": func() error { return second(Write(t.Context(), filepath.Join(parent, "none"), target, to(identity))) },
		"interrupted":  func() error { return second(Write(ended, source, target, to(identity))) },
		"no recipient": func() error { return second(Write(t.Context(), source, target, nil)) },
		"existing":     func() error { return second(Write(t.Context(), source, file, to(identity))) },
	} {
		if err := write(); err == nil {
			t.Errorf("%s: a backup was written", name)
		}
		if left, _ := os.ReadDir(parent); len(left) > 0 {
			t.Fatalf("%s: %v are left", name, left)
		}
	}
	if read(t, file) != whole {
		t.Error("an existing file was replaced")
	}
}

// chunksAt returns where the first chunk of an encrypted file begins: after the header, whose last line has 48 bytes, and 16 bytes.
func chunksAt(file string) int { return strings.Index(file, "\n--- ") + 1 + 48 + 16 }

func to(identity *age.X25519Identity) []age.Recipient { return []age.Recipient{identity.Recipient()} }

// TestChangedFiles checks that a key that is replaced during a backup is noticed.
func TestChangedFiles(t *testing.T) {
	t.Parallel()
	i := startInstance(t, filepath.Join(t.TempDir(), "running"))
	s := &source{path: i.dir.Path()}
	before, err := datadir.Essentials(i.dir.Path())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.unchanged(before); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(i.dir.EncryptionConfig(), []byte("kind: Other"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.unchanged(before); !errors.Is(err, errChanged) {
		t.Errorf("got %v", err)
	}
}
