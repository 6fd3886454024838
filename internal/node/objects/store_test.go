package objects

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"lanyard.dev/internal/nodeaccess"
	"lanyard.dev/lanyardtest"
)

// line is a transport to the authority. It counts the watches, and can be cut.
type line struct {
	next http.RoundTripper

	mu      sync.Mutex
	watches map[string]int // those that are open, by path and name of the object
	began   int
	gets    int
	// refuse is how many of the next requests are answered with 403. cut makes every request fail.
	refuse int
	cut    bool
	open   map[*http.Request]context.CancelFunc
	// moved receives a value after a watch began or ended.
	moved chan struct{}
}

func (l *line) RoundTrip(r *http.Request) (*http.Response, error) {
	query := r.URL.Query()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut {
		return nil, errors.New("the line is cut")
	}
	if l.refuse > 0 {
		l.refuse--
		return &http.Response{StatusCode: http.StatusForbidden, Status: "403 Forbidden", Body: http.NoBody, Header: http.Header{}, Request: r}, nil
	}
	if selector := query.Get("fieldSelector"); selector != "" && query.Get("watch") != "" {
		name := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:] + " " + selector
		ctx, cancel := context.WithCancel(r.Context())
		r = r.WithContext(ctx)
		l.open[r] = cancel
		l.watches[name]++
		l.began++
		l.move()
		context.AfterFunc(ctx, func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.watches[name]--
			delete(l.open, r)
			l.move()
		})
	} else if selector == "" {
		l.gets++
	}
	l.mu.Unlock()
	defer l.mu.Lock()
	return l.next.RoundTrip(r)
}

func (l *line) set(change func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change()
}

// hangUp cuts the line and ends all open watches.
func (l *line) hangUp() {
	l.set(func() {
		l.cut = true
		for _, cancel := range l.open {
			cancel()
		}
	})
}

func (l *line) move() {
	select {
	case l.moved <- struct{}{}:
	default:
	}
}

func (l *line) everBegan() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.began
}

func (l *line) openWatches() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, watches := range l.watches {
		n += watches
	}
	return n
}

type scene struct {
	admin     kubernetes.Interface
	line      *line
	store     *Store
	namespace string
	changes   chan string
}

func begin(t *testing.T, authority *lanyardtest.Authority) *scene {
	t.Helper()
	s := &scene{admin: authority.Client(), namespace: authority.Namespace(t), changes: make(chan string, 1000)}
	s.line = &line{watches: map[string]int{}, open: map[*http.Request]context.CancelFunc{}, moved: make(chan struct{}, 1)}
	config := authority.Config()
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		s.line.next = next
		return s.line
	})
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	s.store = New(t.Context(), client.CoreV1())
	s.store.OnChange(func(namespace string, changed nodeaccess.Reference) {
		s.changes <- fmt.Sprintf("%s/%s", namespace, changed.Name)
	})
	return s
}

func (s *scene) pod(name string, secrets, configMaps []string) *corev1.Pod {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: name, UID: types.UID(name)}}
	for _, name := range secrets {
		pod.Spec.ImagePullSecrets = append(pod.Spec.ImagePullSecrets, corev1.LocalObjectReference{Name: name})
	}
	for _, name := range configMaps {
		pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{VolumeSource: corev1.VolumeSource{
			ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: name}}}})
	}
	return pod
}

func (s *scene) put(t *testing.T, name, value string, immutable bool) {
	t.Helper()
	made := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{"key": value}, Immutable: &immutable}
	_, err := s.admin.CoreV1().ConfigMaps(s.namespace).Update(t.Context(), made, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		_, err = s.admin.CoreV1().ConfigMaps(s.namespace).Create(t.Context(), made, metav1.CreateOptions{})
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (s *scene) remove(t *testing.T, name string) {
	t.Helper()
	if err := s.admin.CoreV1().ConfigMaps(s.namespace).Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
}

func (s *scene) read(t *testing.T, name string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	found, err := s.store.ConfigMap(ctx, s.namespace, name)
	if err != nil {
		return err.Error()
	}
	return found.Data["key"]
}

// await waits for changes of name until it reads as wanted.
func (s *scene) await(t *testing.T, name, want string) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for s.read(t, name) != want {
		select {
		case <-s.changes:
		case <-deadline:
			t.Fatalf("%s reads %q, want %q", name, s.read(t, name), want)
		}
	}
}

// settle waits until want watches are open, and began watches have been opened in all.
func (s *scene) settle(t *testing.T, want, began int) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for s.line.openWatches() != want || s.line.everBegan() != began {
		select {
		case <-s.line.moved:
		case <-deadline:
			t.Fatalf("%d watches are open of %d that began, want %d of %d", s.line.openWatches(), s.line.everBegan(), want, began)
		}
	}
}

func TestStore(t *testing.T) {
	t.Parallel()
	authority := lanyardtest.Start(t)
	for name, test := range map[string]func(*testing.T, *scene){
		"one watch for many pods": func(t *testing.T, s *scene) {
			s.put(t, "shared", "v1", false)
			for i := range 200 {
				s.store.Hold(s.pod(fmt.Sprint(i), nil, []string{"shared", "kube-root-ca.crt"}))
			}
			s.await(t, "shared", "v1")
			s.settle(t, 2, 2)
			s.put(t, "shared", "v2", false)
			s.await(t, "shared", "v2")
			for i := range 199 {
				s.store.Release(types.UID(fmt.Sprint(i)))
			}
			s.put(t, "shared", "v3", false)
			s.await(t, "shared", "v3")
			s.store.Release("199")
			s.settle(t, 0, 2)
			if s.line.gets != 0 {
				t.Errorf("%d single reads, want none", s.line.gets)
			}
		},
		"an object is created, changed and deleted": func(t *testing.T, s *scene) {
			s.store.Hold(s.pod("p", nil, []string{"late"}))
			s.await(t, "late", `configmap "late" not found`)
			s.put(t, "late", "here", false)
			s.await(t, "late", "here")
			s.remove(t, "late")
			s.await(t, "late", `configmap "late" not found`)
		},
		"objects that no pod holds": func(t *testing.T, s *scene) {
			s.put(t, "aside", "v1", false)
			if got := s.read(t, "aside"); got != "v1" {
				t.Error(got)
			}
			s.put(t, "aside", "v2", false)
			if got := s.read(t, "aside"); got != "v2" {
				t.Error(got)
			}
			if _, err := s.store.Secret(t.Context(), s.namespace, "none"); !apierrors.IsNotFound(err) || err.Error() != `secret "none" not found` {
				t.Error(err)
			}
		},
		"a pod that changes": func(t *testing.T, s *scene) {
			s.store.Hold(s.pod("p", []string{"a"}, []string{"b"}))
			s.settle(t, 2, 2)
			s.store.Hold(s.pod("p", nil, []string{"b", "c"}))
			s.settle(t, 2, 3)
			s.store.Release("p")
			s.store.Release("p")
			s.settle(t, 0, 3)
		},
		"an immutable object is not watched": func(t *testing.T, s *scene) {
			s.put(t, "fixed", "v1", true)
			s.store.Hold(s.pod("p", nil, []string{"fixed"}))
			s.await(t, "fixed", "v1")
			s.settle(t, 0, 1)
			s.remove(t, "fixed")
			s.put(t, "fixed", "v2", true)
			if got := s.read(t, "fixed"); got != "v1" {
				t.Error(got)
			}
			s.store.Hold(s.pod("q", nil, []string{"fixed"}))
			s.await(t, "fixed", "v2")
			s.settle(t, 0, 2)
		},
		"the authority cannot be reached": func(t *testing.T, s *scene) {
			s.put(t, "kept", "v1", false)
			s.store.Hold(s.pod("p", nil, []string{"kept"}))
			s.await(t, "kept", "v1")
			s.settle(t, 1, 1)
			s.line.hangUp()
			s.settle(t, 0, 1)
			if got := s.read(t, "kept"); got != "v1" {
				t.Error(got)
			}
			if got := s.read(t, "unheld"); !strings.Contains(got, "read configmap") || !strings.Contains(got, "the line is cut") {
				t.Error(got)
			}
			s.put(t, "kept", "v2", false)
			s.line.set(func() { s.line.cut = false })
			s.await(t, "kept", "v2")
		},
		"the authority forbids at first": func(t *testing.T, s *scene) {
			s.put(t, "new", "v1", false)
			s.line.set(func() { s.line.refuse = 3 })
			s.store.Hold(s.pod("p", nil, []string{"new"}))
			s.await(t, "new", "v1")
			s.line.set(func() { s.line.refuse = 2 })
			s.put(t, "unheld", "v1", false)
			if got := s.read(t, "unheld"); got != "v1" {
				t.Error(got)
			}
			s.line.set(func() { s.line.refuse = 1000 })
			defer s.line.set(func() { s.line.refuse = 0 })
			if _, err := s.store.ConfigMap(t.Context(), s.namespace, "unheld"); !apierrors.IsForbidden(err) {
				t.Errorf("got %v, want the refusal", err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			defer cancel()
			if _, err := s.store.ConfigMap(ctx, s.namespace, "unheld"); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v after the deadline", err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, begin(t, authority))
		})
	}
}
