package standalone

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"
)

const month = 30 * 24 * time.Hour

// startAt starts an authority whose key of secrets is replaced after a month, whenever the test calls step.
func startAt(t *testing.T, dir string, now clock.Clock) (*Authority, kubernetes.Interface) {
	t.Helper()
	a, err := Start(context.Background(), Config{
		DataDir: dir, BindAddress: "127.0.0.1", Log: io.Discard, UnsafeNoFsync: true, Unannounced: true, clock: now,
	})
	if err != nil {
		t.Fatal(err)
	}
	a.encryption.age = month
	config, err := clientcmd.BuildConfigFromFlags("", a.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	return a, kubernetes.NewForConfigOrDie(config)
}

func stop(t *testing.T, a *Authority) {
	t.Helper()
	if err := a.Stop(); err != nil {
		t.Error(err)
	}
}

func createSecret(t *testing.T, client kubernetes.Interface, name string) {
	t.Helper()
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}, StringData: map[string]string{"key": "text of " + name}}
	if _, err := client.CoreV1().Secrets("default").Create(t.Context(), secret, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func checkSecrets(t *testing.T, client kubernetes.Interface, names ...string) {
	t.Helper()
	for _, name := range names {
		got, err := client.CoreV1().Secrets("default").Get(t.Context(), name, metav1.GetOptions{})
		if err != nil || string(got.Data["key"]) != "text of "+name {
			t.Errorf("secret %s: %q, %v", name, got.Data, err)
		}
	}
}

// checkKeys checks how many keys the configuration has, and returns their names.
func checkKeys(t *testing.T, a *Authority, count int) []string {
	t.Helper()
	keys, err := a.dir.EncryptionKeys()
	if err != nil || len(keys) != count {
		t.Fatalf("%d keys, %v; want %d", len(keys), err, count)
	}
	var names []string
	for _, key := range keys {
		names = append(names, key.Name)
	}
	return names
}

// stored returns what etcd holds of a secret.
func stored(t *testing.T, a *Authority, name string) string {
	t.Helper()
	got, err := a.encryption.client.Get(t.Context(), secretsPrefix+"default/"+name)
	if err != nil || len(got.Kvs) != 1 {
		t.Fatalf("%d values, %v", len(got.Kvs), err)
	}
	return string(got.Kvs[0].Value)
}

// TestEncryptionKeyIsReplaced checks each step of a replacement, with a restart in the middle. Secrets can be read and written at
// all times.
func TestEncryptionKeyIsReplaced(t *testing.T) {
	t.Parallel()
	dir, now := filepath.Join(t.TempDir(), "data"), clocktesting.NewFakeClock(time.Now())
	a, client := startAt(t, dir, now)
	createSecret(t, client, "first")
	if err := a.encryption.step(t.Context()); err != nil {
		t.Fatal(err)
	}
	if first := checkKeys(t, a, 1)[0]; !strings.HasPrefix(stored(t, a, "first"), "k8s:enc:secretbox:v1:"+first+":") {
		t.Fatalf("not encrypted with %s: %.60q", first, stored(t, a, "first"))
	}
	old := stored(t, a, "first")
	now.Step(month + time.Hour)
	if err := a.encryption.step(t.Context()); err != nil {
		t.Fatal(err)
	}
	replaced := "k8s:enc:secretbox:v1:" + checkKeys(t, a, 2)[0] + ":"
	createSecret(t, client, "second")
	for _, name := range []string{"first", "second"} {
		if !strings.HasPrefix(stored(t, a, name), replaced) {
			t.Errorf("%s is not encrypted with the new key: %.60q", name, stored(t, a, name))
		}
	}
	checkSecrets(t, client, "first", "second")
	stop(t, a)

	a, client = startAt(t, dir, now)
	defer func() { stop(t, a) }()
	checkSecrets(t, client, "first", "second")
	for _, later := range []time.Duration{time.Minute, keepKeyFor / 2} {
		now.Step(later)
		if err := a.encryption.step(t.Context()); err != nil {
			t.Fatal(err)
		}
		checkKeys(t, a, 2)
	}
	// Something of another kind has an earlier key: it is found before that key is dropped.
	if _, err := a.encryption.client.Put(t.Context(), objectsPrefix+"others/a", old); err != nil {
		t.Fatal(err)
	}
	now.Step(keepKeyFor)
	for left := range 2 {
		if err := a.encryption.step(t.Context()); err != nil {
			t.Fatal(err)
		}
		checkKeys(t, a, 2-left)
	}
	if last := checkKeys(t, a, 1)[0]; "k8s:enc:secretbox:v1:"+last+":" != replaced {
		t.Errorf("%s is left", last)
	}
	createSecret(t, client, "third")
	checkSecrets(t, client, "first", "second", "third")
}

// TestKeyOfAnUnreadableSecretIsKept checks that no key is dropped while something in the store cannot be read.
func TestKeyOfAnUnreadableSecretIsKept(t *testing.T) {
	t.Parallel()
	now := clocktesting.NewFakeClock(time.Now())
	a, client := startAt(t, filepath.Join(t.TempDir(), "data"), now)
	defer stop(t, a)
	createSecret(t, client, "first")
	now.Step(month + time.Hour)
	if err := a.encryption.step(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := a.encryption.client.Put(t.Context(), secretsPrefix+"default/broken", "k8s:enc:secretbox:v1:lost:x"); err != nil {
		t.Fatal(err)
	}
	now.Step(2 * keepKeyFor)
	if err := a.encryption.step(t.Context()); err == nil || !strings.Contains(err.Error(), "default/broken") {
		t.Errorf("got %v", err)
	}
	checkKeys(t, a, 2)
}

// TestKeepReplacesKeys checks that an authority does the steps by itself.
func TestKeepReplacesKeys(t *testing.T) {
	t.Parallel()
	now := clocktesting.NewFakeClock(time.Now())
	a, err := Start(context.Background(), Config{
		DataDir: t.TempDir(), BindAddress: "127.0.0.1", Log: io.Discard, UnsafeNoFsync: true, Unannounced: true,
		EncryptionKeyAge: month, clock: now,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer stop(t, a)
	first := checkKeys(t, a, 1)[0]
	count := func() int {
		keys, err := a.dir.EncryptionKeys()
		if err != nil {
			t.Fatal(err)
		}
		return len(keys)
	}
	eventually(t, "the first look is done", func() bool { return a.encryption.encryption.Stored() != nil })
	now.Step(month + time.Hour)
	eventually(t, "there is a new key", func() bool { return count() == 2 })
	eventually(t, "the first key is dropped", func() bool { now.Step(encryptionPeriod); return count() == 1 })
	if last := checkKeys(t, a, 1)[0]; last == first {
		t.Errorf("%s is left", last)
	}
}

// TestOwnEncryptionConfigIsKept starts with a configuration of an administrator.
func TestOwnEncryptionConfigIsKept(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	now := clocktesting.NewFakeClock(time.Now())
	a, _ := startAt(t, dir, now)
	file := a.dir.EncryptionConfig()
	stop(t, a)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	own := strings.Replace(string(text), "  - identity: {}\n", "", 1) + "- resources: [configmaps]\n  providers:\n  - identity: {}\n"
	if err := os.WriteFile(file, []byte(own), 0o600); err != nil {
		t.Fatal(err)
	}
	a, _ = startAt(t, dir, now)
	defer stop(t, a)
	now.Step(month + time.Hour)
	_ = a.encryption.step(t.Context())
	if after, err := os.ReadFile(file); err != nil || string(after) != own {
		t.Errorf("the configuration was changed: %v", err)
	}
}
