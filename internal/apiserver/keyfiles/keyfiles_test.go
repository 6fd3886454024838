package keyfiles_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lanyard.dev/internal/apiserver/keyfiles"
	"lanyard.dev/internal/apiserver/metrics"
	"lanyard.dev/internal/signingkey"
)

// All tests share these keys.
var keyOf = [4]func() *signingkey.PrivateKey{
	sync.OnceValue(generate), sync.OnceValue(generate), sync.OnceValue(generate), sync.OnceValue(generate),
}

func generate() *signingkey.PrivateKey {
	key, err := signingkey.Generate(signingkey.ES256)
	if err != nil {
		panic(err)
	}
	return key
}

func privatePEM(t *testing.T, i int) []byte {
	t.Helper()
	data, err := keyOf[i]().MarshalPEM()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func publicPEM(t *testing.T, of ...int) []byte {
	t.Helper()
	var all []byte
	for _, i := range of {
		data, err := keyOf[i]().Public().MarshalPEM()
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, data...)
	}
	return all
}

// site has a file with a key that signs and one with accepted keys, and the keys that follow them.
type site struct {
	t                 *testing.T
	signing, accepted string
	keys              *keyfiles.Keys
}

func newSite(t *testing.T) *site {
	t.Helper()
	dir := t.TempDir()
	s := &site{t: t, signing: filepath.Join(dir, "sa.key"), accepted: filepath.Join(dir, "old.pub")}
	s.write(s.signing, privatePEM(t, 0))
	s.write(s.accepted, publicPEM(t, 1))
	return s
}

// follow opens the files and follows them until the test ends.
func (s *site) follow(check func(*signingkey.Set) error) {
	s.t.Helper()
	keys, err := keyfiles.Open(keyfiles.Config{
		Signing: []string{s.signing}, Accepted: []string{s.accepted}, Check: check, Every: time.Millisecond,
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.keys = keys
	ctx, stop := context.WithCancel(s.t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); keys.Run(ctx) }()
	s.t.Cleanup(func() { stop(); <-ended })
}

func (s *site) write(path string, data []byte) {
	s.t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// await waits until the keys in force are these, the one that signs first.
func (s *site) await(what string, want ...int) {
	s.t.Helper()
	s.until(what, func() bool {
		set := s.keys.Current()
		var got, ids []string
		for _, key := range set.Keys() {
			got = append(got, key.ID())
		}
		for _, i := range want {
			ids = append(ids, keyOf[i]().ID())
		}
		return slices.Equal(got, ids) && set.Signer("").ID() == ids[0]
	})
}

func (s *site) awaitStale(what string) {
	s.t.Helper()
	s.until(what, func() bool { return s.keys.Stale() > 0 })
}

func (s *site) awaitInForce(what string) {
	s.t.Helper()
	s.until(what, func() bool { return s.keys.Stale() == 0 })
}

func (s *site) until(what string, condition func() bool) {
	s.t.Helper()
	for end := time.Now().Add(time.Minute); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("%s: not within a minute; stale for %v, files %v", what, s.keys.Stale(), s.keys.Files())
		}
	}
}

// TestFilesAreReadAgain changes files in place, by rename and through a link to a directory, as a mounted Secret changes.
func TestFilesAreReadAgain(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.follow(nil)
	s.await("the first content", 0, 1)
	s.write(s.accepted, publicPEM(t, 2, 1, 0))
	s.await("accepted keys that changed in place", 0, 2, 1)

	next := s.signing + ".next"
	s.write(next, privatePEM(t, 2))
	if err := os.Rename(next, s.signing); err != nil {
		t.Fatal(err)
	}
	s.await("a signing key that was replaced by rename", 2, 1, 0)
	want := []metrics.KeyFile{
		{Path: s.signing, IDs: []string{keyOf[2]().ID()}}, {Path: s.accepted, IDs: []string{keyOf[2]().ID(), keyOf[1]().ID(), keyOf[0]().ID()}},
	}
	if diff := cmp.Diff(want, s.keys.Files()); diff != "" {
		t.Errorf("files:\n%s", diff)
	}
}

func TestFilesOfAMountedSecret(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	dir := t.TempDir()
	version := func(name string, signer, accepted int) {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		s.write(filepath.Join(dir, name, "sa.key"), privatePEM(t, signer))
		s.write(filepath.Join(dir, name, "old.pub"), publicPEM(t, accepted))
		link := filepath.Join(dir, "..data.next")
		if err := errors.Join(os.Symlink(name, link), os.Rename(link, filepath.Join(dir, "..data"))); err != nil {
			t.Fatal(err)
		}
	}
	version("..1", 0, 1)
	for _, name := range []string{"sa.key", "old.pub"} {
		if err := os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	s.signing, s.accepted = filepath.Join(dir, "sa.key"), filepath.Join(dir, "old.pub")
	s.follow(nil)
	s.await("the first version", 0, 1)
	version("..2", 2, 0)
	s.await("the second version", 2, 0)
}

// TestBadFilesKeepTheKeys checks that a fault changes no key, and that the next good content is in force.
func TestBadFilesKeepTheKeys(t *testing.T) {
	t.Parallel()
	refused := keyOf[3]().ID()
	s := newSite(t)
	s.follow(func(set *signingkey.Set) error {
		if set.Signer("").ID() == refused {
			return errors.New("refused")
		}
		return nil
	})
	before := s.keys.Current()
	for name, spoil := range map[string]func(){
		"not PEM":           func() { s.write(s.accepted, []byte("hello")) },
		"empty":             func() { s.write(s.signing, nil) },
		"cut":               func() { s.write(s.signing, privatePEM(t, 2)[:100]) },
		"too large":         func() { s.write(s.accepted, bytes.Repeat([]byte("#"), signingkey.MaxFileSize+1)) },
		"public":            func() { s.write(s.signing, publicPEM(t, 2)) },
		"two private keys":  func() { s.write(s.signing, append(privatePEM(t, 0), privatePEM(t, 2)...)) },
		"refused by Check":  func() { s.write(s.signing, privatePEM(t, 3)) },
		"gone":              func() { _ = os.Remove(s.accepted) },
		"a directory":       func() { _ = errors.Join(os.Remove(s.accepted), os.Mkdir(s.accepted, 0o700)) },
		"a link to nothing": func() { _ = errors.Join(os.Remove(s.accepted), os.Symlink("nothing", s.accepted)) },
	} {
		spoil()
		s.awaitStale(name)
		if s.keys.Current() != before {
			t.Errorf("%s: the keys changed", name)
		}
		_ = os.Remove(s.accepted)
		_ = os.Remove(s.signing)
		s.write(s.signing, privatePEM(t, 0))
		s.write(s.accepted, publicPEM(t, 1))
		s.awaitInForce("after " + name)
	}
	s.write(s.signing, privatePEM(t, 2))
	s.await("the next good content", 2, 1)
}

// TestModeOfAFile checks that keys are in force once a file has the right mode, although its content is the same.
func TestModeOfAFile(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("files have no modes")
	}
	s := newSite(t)
	s.follow(nil)
	next := s.signing + ".next"
	s.write(next, privatePEM(t, 2))
	if err := errors.Join(os.Chmod(next, 0o666), os.Rename(next, s.signing)); err != nil {
		t.Fatal(err)
	}
	s.awaitStale("a file that others may write")
	if err := os.Chmod(s.signing, 0o600); err != nil {
		t.Fatal(err)
	}
	s.await("the file after chmod", 2, 1)
	s.awaitInForce("after chmod")
}

// TestNoFiles opens keys without a file, as an authority does whose keys are in etcd.
func TestNoFiles(t *testing.T) {
	t.Parallel()
	keys, err := keyfiles.Open(keyfiles.Config{})
	if err != nil || len(keys.Current().Keys()) != 0 || len(keys.Files()) != 0 {
		t.Errorf("got %v, %v", keys, err)
	}
}

func TestOpenReportsFaults(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	missing := filepath.Join(t.TempDir(), "missing")
	for want, c := range map[string]keyfiles.Config{
		"load signing key: open " + missing:         {Signing: []string{missing}},
		"load public keys: open " + missing:         {Signing: []string{s.signing}, Accepted: []string{missing}},
		"load signing key: " + s.accepted:           {Signing: []string{s.accepted}},
		"key files " + s.signing + ", " + s.signing: {Signing: []string{s.signing, s.signing}},
		"refused": {Signing: []string{s.signing}, Check: func(*signingkey.Set) error { return errors.New("refused") }},
	} {
		if _, err := keyfiles.Open(c); err == nil || !strings.Contains(strings.Replace(err.Error(), "stat ", "open ", 1), want) {
			t.Errorf("%+v: %v, want %s", c, err, want)
		}
	}
}
