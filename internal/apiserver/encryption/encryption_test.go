package encryption

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/storage/value"

	"lanyard.dev/internal/etcd"
)

const prefix = "/registry/secrets/"

var secrets = corev1.Resource("secrets")

// write writes a configuration with keys of these names. Keys of the same name are the same.
func write(t *testing.T, file string, names ...string) {
	t.Helper()
	text := "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [secrets]\n  providers:\n  - secretbox:\n      keys:\n"
	for _, name := range names {
		secret := base64.StdEncoding.EncodeToString([]byte(fmt.Sprintf("%-32s", name)))
		text += "      - {name: " + name + ", secret: " + secret + "}\n"
	}
	if err := os.WriteFile(file, []byte(text+"  - identity: {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, names ...string) (*Encryption, string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "encryption.yaml")
	write(t, file, names...)
	e, checks, err := Open(t.Context(), file, t.Name())
	if err != nil || len(checks) > 0 {
		t.Fatalf("%d health checks, %v", len(checks), err)
	}
	return e, file
}

func startEtcd(t *testing.T) *clientv3.Client {
	t.Helper()
	member, err := etcd.Start(t.Context(), etcd.Config{Dir: filepath.Join(t.TempDir(), "etcd"), UnsafeNoFsync: true})
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

// put stores a value as a server with the encryption does.
func put(t *testing.T, client *clientv3.Client, e *Encryption, key, text string, options ...clientv3.OpOption) {
	t.Helper()
	encrypted, err := e.Transformers().TransformerForResource(secrets).TransformToStorage(t.Context(), []byte(text), value.DefaultContext(key))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Put(t.Context(), key, string(encrypted), options...); err != nil {
		t.Fatal(err)
	}
}

func TestRewrite(t *testing.T) {
	t.Parallel()
	const count = pageSize*2 + 3
	client := startEtcd(t)
	e, file := open(t, "old")
	lease, err := client.Grant(t.Context(), 3600)
	if err != nil {
		t.Fatal(err)
	}
	for i := range count - 1 {
		put(t, client, e, fmt.Sprintf("%sdefault/s%03d", prefix, i), fmt.Sprint("text ", i))
	}
	leased := prefix + "default/leased"
	put(t, client, e, leased, "with a lease", clientv3.WithLease(lease.ID))
	if _, err := client.Put(t.Context(), prefix+"plain", "written before there was a key"); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Put(t.Context(), "/registry/secretsx", "another resource"); err != nil {
		t.Fatal(err)
	}

	write(t, file, "new", "old")
	if changed, err := e.Reload(t.Context()); !changed || err != nil {
		t.Fatalf("changed %t, %v", changed, err)
	}
	if changed, err := e.Reload(t.Context()); changed || err != nil {
		t.Errorf("changed again: %t, %v", changed, err)
	}
	for _, want := range []int{count + 1, 0} {
		if n, err := e.Rewrite(t.Context(), client, secrets, prefix); n != want || err != nil {
			t.Fatalf("rewrote %d, %v; want %d", n, err, want)
		}
		if stored := e.Stored(); !maps.Equal(stored, map[string]int{"new": count + 1}) {
			t.Errorf("stored %v", stored)
		}
	}
	if got, err := client.Get(t.Context(), leased); err != nil || got.Kvs[0].Lease != int64(lease.ID) {
		t.Errorf("the lease is lost: %v, %v", got, err)
	}
	if got, err := client.Get(t.Context(), "/registry/secretsx"); err != nil || string(got.Kvs[0].Value) != "another resource" {
		t.Errorf("another resource is %v, %v", got, err)
	}

	// Without the old key, everything can be read.
	write(t, file, "new")
	if _, err := e.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	got, err := client.Get(t.Context(), prefix+"default/s007")
	if err != nil {
		t.Fatal(err)
	}
	plain, _, err := e.Transformers().TransformerForResource(secrets).TransformFromStorage(t.Context(), got.Kvs[0].Value, value.DefaultContext(prefix+"default/s007"))
	if err != nil || string(plain) != "text 7" {
		t.Errorf("read %q, %v", plain, err)
	}
}

// TestRewriteEncrypted finds what is encrypted in the place of another resource.
func TestRewriteEncrypted(t *testing.T) {
	t.Parallel()
	client := startEtcd(t)
	e, file := open(t, "old")
	put(t, client, e, "/registry/others/a", "text")
	if _, err := client.Put(t.Context(), "/registry/plain/a", "not encrypted"); err != nil {
		t.Fatal(err)
	}
	write(t, file, "new", "old")
	if _, err := e.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []int{1, 0} {
		if n, err := e.RewriteEncrypted(t.Context(), client, secrets, "/registry/"); n != want || err != nil {
			t.Fatalf("rewrote %d, %v; want %d", n, err, want)
		}
	}
	if got, err := client.Get(t.Context(), "/registry/plain/a"); err != nil || string(got.Kvs[0].Value) != "not encrypted" {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := client.Get(t.Context(), "/registry/others/a"); err != nil || keyName(got.Kvs[0].Value) != "new" {
		t.Errorf("%v, %v", got, err)
	}
}

// TestRewriteStopsAtWhatItCannotRead checks that an object with an unknown key is an error, so that no key is dropped.
func TestRewriteStopsAtWhatItCannotRead(t *testing.T) {
	t.Parallel()
	client := startEtcd(t)
	before, _ := open(t, "before")
	put(t, client, before, prefix+"a", "secret text")
	e, _ := open(t, "new", "old")
	if n, err := e.Rewrite(t.Context(), client, secrets, prefix); n != 0 || err == nil || strings.Contains(err.Error(), "secret text") || !strings.Contains(err.Error(), prefix+"a") {
		t.Errorf("rewrote %d, %v", n, err)
	}
}

// TestRewriteLeavesConcurrentWrites writes an object while it is rewritten: the later content has to stay.
func TestRewriteLeavesConcurrentWrites(t *testing.T) {
	t.Parallel()
	client := startEtcd(t)
	e, file := open(t, "old")
	put(t, client, e, prefix+"a", "before")
	write(t, file, "new", "old")
	if _, err := e.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	meanwhile := func() { put(t, client, e, prefix+"a", "after") }
	r := &rewriter{client: client, transformer: slow{e.Transformers().TransformerForResource(secrets), meanwhile}, stored: map[string]int{}}
	if _, err := r.page(t.Context(), prefix, clientv3.GetPrefixRangeEnd(prefix)); err != nil || r.rewritten != 1 {
		t.Fatalf("rewrote %d, %v", r.rewritten, err)
	}
	got, err := client.Get(t.Context(), prefix+"a")
	if err != nil {
		t.Fatal(err)
	}
	plain, stale, err := e.Transformers().TransformerForResource(secrets).TransformFromStorage(t.Context(), got.Kvs[0].Value, value.DefaultContext(prefix+"a"))
	if err != nil || stale || string(plain) != "after" {
		t.Errorf("read %q, stale %t, %v", plain, stale, err)
	}
}

// slow calls meanwhile before it encrypts.
type slow struct {
	value.Transformer
	meanwhile func()
}

func (s slow) TransformToStorage(ctx context.Context, data []byte, bound value.Context) ([]byte, error) {
	s.meanwhile()
	return s.Transformer.TransformToStorage(ctx, data, bound)
}

func TestReloadKeepsWhatWorks(t *testing.T) {
	t.Parallel()
	e, file := open(t, "old")
	if err := os.WriteFile(file, []byte("kind: Other"), 0o600); err != nil {
		t.Fatal(err)
	}
	if changed, err := e.Reload(t.Context()); changed || err == nil {
		t.Errorf("changed %t, %v", changed, err)
	}
	encrypted, err := e.Transformers().TransformerForResource(secrets).TransformToStorage(t.Context(), []byte("x"), value.DefaultContext("k"))
	if err != nil || keyName(encrypted) != "old" {
		t.Errorf("encrypted with %s, %v", keyName(encrypted), err)
	}
	if other := e.Transformers().TransformerForResource(schema.GroupResource{Resource: "configmaps"}); other != nil {
		if text, err := other.TransformToStorage(t.Context(), []byte("x"), value.DefaultContext("k")); err != nil || string(text) != "x" {
			t.Errorf("configmaps are stored as %q, %v", text, err)
		}
	}
}

// FuzzKeyName checks that what comes from etcd is safe as a label.
func FuzzKeyName(f *testing.F) {
	for _, seed := range []string{"", "k8s\x00", "k8s:enc:secretbox:v1:key1:x", "k8s:enc:secretbox:v1:\xff:x", "k8s:enc:secretbox:v1:key1", "k8s:enc:aesgcm:v1:a:x"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, stored []byte) {
		name := keyName(stored)
		if name == "" || len(name) > maxKeyName || strings.ContainsFunc(name, notInName) {
			t.Errorf("%q", name)
		}
		if name != Unencrypted && name != Other && !bytes.Contains(stored, []byte(":"+name+":")) {
			t.Errorf("%q of %q", name, stored)
		}
	})
}
