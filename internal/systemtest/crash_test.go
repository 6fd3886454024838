// Promise: a killed or terminated program loses no acknowledged write.

package systemtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// absent is the value of an object that does not exist.
const absent = ""

// writer writes secrets that only it writes, and remembers which writes were acknowledged.
type writer struct {
	id     int
	random *rand.Rand
	// possible has the values that each object may have: one after an acknowledgement, two while a write is neither
	// acknowledged nor refused.
	possible map[string][]string
	acked    *atomic.Int64
}

// run writes until a request fails.
func (w *writer) run(ctx context.Context, client kubernetes.Interface) error {
	secrets := client.CoreV1().Secrets(metav1.NamespaceDefault)
	for n := 0; ; n++ {
		name := fmt.Sprintf("w%d-%d", w.id, w.random.IntN(20))
		known := absent
		if possible := w.possible[name]; len(possible) > 0 {
			known = possible[0]
		}
		next := fmt.Sprintf("%d.%d", n, w.random.Uint64())
		object := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"writer": "yes"}}, StringData: map[string]string{"value": next}}
		var write func() error
		switch {
		case known == absent:
			write = func() error { _, err := secrets.Create(ctx, object, metav1.CreateOptions{}); return err }
		case w.random.IntN(3) == 0:
			next = absent
			write = func() error { return secrets.Delete(ctx, name, metav1.DeleteOptions{}) }
		default:
			write = func() error { _, err := secrets.Update(ctx, object, metav1.UpdateOptions{}); return err }
		}
		w.possible[name] = []string{known, next}
		if err := write(); err != nil {
			return err
		}
		w.possible[name] = []string{next}
		w.acked.Add(1)
	}
}

// check compares the stored values with the possible ones, and resolves the uncertain ones.
func (w *writer) check(t *testing.T, stored map[string]string) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(w.possible)) {
		if !slices.Contains(w.possible[name], stored[name]) {
			t.Errorf("%s is %q; acknowledged was %q", name, stored[name], w.possible[name])
		}
		w.possible[name] = []string{stored[name]}
	}
}

// writers are several writers that run at the same time.
type writers struct {
	all     []*writer
	acked   atomic.Int64
	running sync.WaitGroup
	mu      sync.Mutex
	ends    []error
}

func newWriters(n int) *writers {
	w := &writers{}
	for id := range n {
		w.all = append(w.all, &writer{id: id, random: rand.New(rand.NewPCG(uint64(id), 0)), possible: map[string][]string{}, acked: &w.acked})
	}
	return w
}

// start starts all writers, and returns when 50 writes are acknowledged.
func (w *writers) start(t *testing.T, config *rest.Config) {
	t.Helper()
	before := w.acked.Load()
	for _, one := range w.all {
		client := clientFor(t, config)
		w.running.Go(func() {
			err := one.run(t.Context(), client)
			w.mu.Lock()
			defer w.mu.Unlock()
			w.ends = append(w.ends, err)
		})
	}
	eventually(t, "writes", func(context.Context) bool { return w.acked.Load() >= before+50 })
}

// wait returns when every writer has failed. A write may fail because the server is gone or overloaded, but not for another
// reason.
func (w *writers) wait(t *testing.T) {
	t.Helper()
	w.running.Wait()
	for _, err := range w.ends {
		if status := apierrors.APIStatus(nil); errors.As(err, &status) && !apierrors.IsServiceUnavailable(err) && !apierrors.IsTooManyRequests(err) {
			t.Errorf("a write was refused: %v", err)
		}
	}
	w.ends = nil
}

// check compares all that the writers wrote with the store.
func (w *writers) check(t *testing.T, client kubernetes.Interface) {
	t.Helper()
	list, err := client.CoreV1().Secrets(metav1.NamespaceDefault).List(t.Context(), metav1.ListOptions{LabelSelector: "writer=yes"})
	if err != nil {
		t.Fatal(err)
	}
	stored := map[string]string{}
	for _, item := range list.Items {
		stored[item.Name] = string(item.Data["value"])
	}
	for _, one := range w.all {
		one.check(t, stored)
	}
}

// accountTokens are accounts with one token each. Some accounts are deleted.
type accountTokens struct {
	tokens map[string]string
	gone   map[string]bool
}

func (h *accountTokens) add(t *testing.T, client kubernetes.Interface, name string) {
	t.Helper()
	createAccount(t, client, metav1.NamespaceDefault, name)
	h.tokens[name] = accountToken(t, client, metav1.NamespaceDefault, name)
}

func (h *accountTokens) remove(t *testing.T, client kubernetes.Interface, name string) {
	t.Helper()
	if err := client.CoreV1().ServiceAccounts(metav1.NamespaceDefault).Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	h.gone[name] = true
}

func (h *accountTokens) check(t *testing.T, config *rest.Config) {
	t.Helper()
	for name, token := range h.tokens {
		want := http.StatusCreated
		if h.gone[name] {
			want = http.StatusUnauthorized
		}
		if got := bearer(t, config, token).do(t, http.MethodPost, whoAmIPath, `{}`); got.code != want {
			t.Errorf("token of %s: %s, want %d", name, got, want)
		}
	}
}

// TestKilledAtAnyMoment kills the program under load, several times, on one data directory.
func TestKilledAtAnyMoment(t *testing.T) {
	t.Parallel()
	rounds := 6
	if testing.Short() {
		rounds = 3
	}
	h, w := newUpServer(t), newWriters(6)
	accounts := &accountTokens{tokens: map[string]string{}, gone: map[string]bool{}}
	for round := range rounds {
		p := h.start(t)
		config := h.config(t)
		client := clientFor(t, config)
		w.check(t, client)
		accounts.check(t, config)
		accounts.add(t, client, fmt.Sprintf("kept-%d", round))
		accounts.add(t, client, fmt.Sprintf("brief-%d", round))
		w.start(t, config)
		accounts.remove(t, client, fmt.Sprintf("brief-%d", round))
		time.Sleep(rand.N(300 * time.Millisecond)) // any moment
		if _, err := p.end(t, syscall.SIGKILL); err == nil {
			t.Error("a killed program ended without an error")
		}
		w.wait(t)
	}
	p := h.start(t)
	w.check(t, clientFor(t, h.config(t)))
	accounts.check(t, h.config(t))
	if _, err := p.end(t, syscall.SIGTERM); err != nil {
		t.Errorf("the last start ended with %v", err)
	}
	t.Logf("%d writes acknowledged over %d kills", w.acked.Load(), rounds)
}

// TestTerminatedUnderLoad sends SIGTERM to the program while clients write and watch.
func TestTerminatedUnderLoad(t *testing.T) {
	t.Parallel()
	h, w := newUpServer(t), newWriters(6)
	p := h.start(t)
	config := h.config(t)
	accounts := &accountTokens{tokens: map[string]string{}, gone: map[string]bool{}}
	accounts.add(t, clientFor(t, config), "kept")
	watches := openWatches(t, config)
	w.start(t, config)
	took, err := p.end(t, syscall.SIGTERM)
	if err != nil || took > 5*time.Second {
		t.Errorf("lanyard ended with %v after %v; want exit code 0 within 5s", err, took)
	}
	w.wait(t)
	for range cap(watches) {
		if err := <-watches; err != nil {
			t.Error(err)
		}
	}
	if text, err := os.ReadFile(h.log); err != nil || bytes.Contains(text, []byte("panic")) || bytes.Contains(text, []byte("goroutine ")) {
		t.Errorf("the program panicked, or its log cannot be read: %v\n%s", err, text)
	}
	h.start(t)
	w.check(t, clientFor(t, h.config(t)))
	accounts.check(t, h.config(t))
	t.Logf("%d writes acknowledged, ended after %v", w.acked.Load(), took)
}

// openWatches opens watches over HTTP/1.1 and HTTP/2 and returns a channel with how each ended.
func openWatches(t *testing.T, config *rest.Config) <-chan error {
	t.Helper()
	token := adminToken(t, config)
	many := []*caller{callerFor(t, config), callerFor(t, config), overHTTP1(t, config), overHTTP1(t, config)}
	ends := make(chan error, len(many))
	for i, c := range many {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.url+"/api/v1/secrets?watch=true", nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Authorization", "Bearer "+token)
		response, err := c.client.Do(request)
		if err != nil || response.StatusCode != http.StatusOK {
			t.Fatalf("open watch %d: %v, %v", i, response, err)
		}
		go func() {
			n, err := io.Copy(io.Discard, response.Body)
			if err = errors.Join(err, response.Body.Close()); err != nil {
				err = fmt.Errorf("watch %d over %s, after %d bytes: %w", i, response.Proto, n, err)
			}
			ends <- err
		}()
	}
	return ends
}

// adminToken returns the token of an account with all rights.
func adminToken(t *testing.T, config *rest.Config) string {
	t.Helper()
	client := clientFor(t, config)
	if _, err := client.RbacV1().ClusterRoleBindings().Create(t.Context(), clusterAdminBinding("default"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	return accountToken(t, client, metav1.NamespaceDefault, "default")
}
