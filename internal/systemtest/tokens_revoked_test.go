// Promise: a token ends with the account, pod, secret, node or process that it is bound to, before the deletion is answered.

package systemtest

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/utils/ptr"

	"lanyard.dev/internal/podannotation"
	"lanyard.dev/lanyardtest"
)

// boundToken is a token and the object that it is bound to.
type boundToken struct {
	authority       *lanyardtest.Authority
	namespace, name string
	token           string
}

// anchors creates, for each kind of object that a token can be bound to, an object and a token.
var anchors = map[string]func(*testing.T, *lanyardtest.Authority) boundToken{
	"serviceaccounts": func(t *testing.T, a *lanyardtest.Authority) boundToken {
		namespace := a.Namespace(t)
		account := &corev1.ServiceAccount{ObjectMeta: labelled("anchor")}
		if _, err := a.Client().CoreV1().ServiceAccounts(namespace).Create(t.Context(), account, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		return boundToken{a, namespace, "anchor", a.Token(t, namespace, "anchor")}
	},
	"secrets": func(t *testing.T, a *lanyardtest.Authority) boundToken {
		namespace := a.Namespace(t)
		if _, err := a.Client().CoreV1().Secrets(namespace).Create(t.Context(), &corev1.Secret{ObjectMeta: labelled("anchor")}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		return newBoundToken(t, a, namespace, "Secret", "anchor")
	},
	"pods": func(t *testing.T, a *lanyardtest.Authority) boundToken {
		namespace, pod := a.Namespace(t), podOn("")
		pod.ObjectMeta = labelled("anchor")
		if _, err := a.Client().CoreV1().Pods(namespace).Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		return newBoundToken(t, a, namespace, "Pod", "anchor")
	},
	"nodes": func(t *testing.T, a *lanyardtest.Authority) boundToken {
		namespace := a.Namespace(t)
		node := &corev1.Node{ObjectMeta: labelled(namespace)}
		node.Labels["anchor"] = namespace
		if _, err := a.Client().CoreV1().Nodes().Create(t.Context(), node, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		return newBoundToken(t, a, namespace, "Node", namespace)
	},
}

// labelled returns metadata with the label that removals selects by.
func labelled(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: name, Labels: map[string]string{"anchor": "yes"}}
}

// newBoundToken returns a token of the default account that is bound to an object.
func newBoundToken(t *testing.T, a *lanyardtest.Authority, namespace, kind, name string) boundToken {
	t.Helper()
	return boundToken{a, namespace, name, a.TokenFor(t, namespace, "default", authenticationv1.TokenRequestSpec{
		BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: kind, Name: name},
	})}
}

// removals delete the object of a token, and return when the deletion was answered.
var removals = map[string]func(*testing.T, boundToken, kind){
	"delete": func(t *testing.T, x boundToken, k kind) {
		callerFor(t, x.authority.Config()).must(t, http.MethodDelete, k.path(x.namespace, x.name), nil)
	},
	"deletecollection": func(t *testing.T, x boundToken, k kind) {
		selector := "?labelSelector=anchor%3Dyes"
		if !k.namespaced {
			selector = "?labelSelector=anchor%3D" + x.namespace
		}
		callerFor(t, x.authority.Config()).must(t, http.MethodDelete, k.path(x.namespace, "")+selector, nil)
	},
	"namespace": func(t *testing.T, x boundToken, _ kind) {
		namespaces := x.authority.Client().CoreV1().Namespaces()
		watching := watchNamespace(t, x.authority.Client(), x.namespace)
		if err := namespaces.Delete(t.Context(), x.namespace, metav1.DeleteOptions{PropagationPolicy: ptr.To(metav1.DeletePropagationBackground)}); err != nil {
			t.Fatal(err)
		}
		awaitEvent(t, watching, func(e watch.Event) bool { return e.Type == watch.Deleted })
	},
}

// TestNoTokenIsAcceptedAfterDeletion uses a token from several goroutines while its object is deleted. No use that begins
// after the deletion was answered may succeed.
func TestNoTokenIsAcceptedAfterDeletion(t *testing.T) {
	t.Parallel()
	a := authority(t)
	for _, k := range kinds {
		make, ok := anchors[k.resource]
		if !ok {
			continue
		}
		for how, remove := range removals {
			t.Run(k.resource+" by "+how, func(t *testing.T) {
				t.Parallel()
				x := make(t, a)
				h := startUse(t, x)
				remove(t, x, k)
				h.finish(t)
			})
		}
	}
}

// tokenUse uses one token from several goroutines, as bearer and in reviews.
type tokenUse struct {
	removed           atomic.Bool
	used, late, wrong atomic.Int64
	running           sync.WaitGroup
	example           atomic.Value
}

const (
	workers    = 8
	usesBefore = 2  // by each worker, so that everything that can be cached is cached
	usesAfter  = 25 // by each worker
)

// startUse starts the workers, and returns when each has used the token usesBefore times.
func startUse(t *testing.T, x boundToken) *tokenUse {
	t.Helper()
	h := &tokenUse{}
	admin, holder := callerFor(t, x.authority.Config()), bearer(t, x.authority.Config(), x.token)
	var warm sync.WaitGroup
	for i := range workers {
		use := h.asBearer(holder)
		if i%4 == 3 {
			use = h.byReview(t, admin, x.token)
		}
		warm.Add(1)
		h.running.Go(func() { h.repeat(t.Context(), use, warm.Done) })
	}
	warm.Wait()
	return h
}

// repeat uses the token until it has been used usesAfter times after the removal. A use is late if the removal was known
// before the use began.
func (h *tokenUse) repeat(ctx context.Context, use func(context.Context) (bool, error), warm func()) {
	for before, after := 0, 0; after < usesAfter; {
		late := h.removed.Load()
		accepted, err := use(ctx)
		if err != nil {
			h.wrong.Add(1)
			h.example.CompareAndSwap(nil, err.Error())
		}
		if accepted {
			h.used.Add(1)
		}
		if before++; before == usesBefore {
			warm()
		}
		if !late {
			continue
		}
		after++
		if accepted {
			h.late.Add(1)
		}
	}
}

func (h *tokenUse) asBearer(c *caller) func(context.Context) (bool, error) {
	return func(ctx context.Context) (bool, error) {
		got, err := c.try(ctx, http.MethodPost, whoAmIPath, []byte(`{}`))
		return yesOrNo(got, err, http.StatusCreated, http.StatusUnauthorized)
	}
}

func (h *tokenUse) byReview(t *testing.T, admin *caller, token string) func(context.Context) (bool, error) {
	body := encode(t, authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token}})
	return func(ctx context.Context) (bool, error) {
		got, err := admin.try(ctx, http.MethodPost, "/apis/authentication.k8s.io/v1/tokenreviews", body)
		if _, err := yesOrNo(got, err, http.StatusCreated, 0); err != nil {
			return false, err
		}
		var review authenticationv1.TokenReview
		err = json.Unmarshal(got.body, &review)
		return review.Status.Authenticated, err
	}
}

// finish waits for the workers and checks their results. It is called when the deletion was answered.
func (h *tokenUse) finish(t *testing.T) {
	t.Helper()
	h.removed.Store(true)
	h.running.Wait()
	if n := h.used.Load(); n < workers {
		t.Errorf("the token was accepted only %d times: it was not in use when its object was deleted", n)
	}
	if n := h.late.Load(); n > 0 {
		t.Errorf("%d of %d uses after the deletion was answered were accepted", n, workers*usesAfter)
	}
	if n := h.wrong.Load(); n > 0 {
		t.Errorf("%d answers were neither acceptances nor refusals, such as %v", n, h.example.Load())
	}
}

// TestTokenOfATerminatingPod checks that the token of a gracefully deleted pod is valid until the pod is removed, and not
// longer.
func TestTokenOfATerminatingPod(t *testing.T) {
	t.Parallel()
	a := authority(t)
	namespace := a.Namespace(t)
	pods := a.Client().CoreV1().Pods(namespace)
	if _, err := pods.Create(t.Context(), podOn("n"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	caller := bearer(t, a.Config(), a.TokenFor(t, namespace, "default", authenticationv1.TokenRequestSpec{
		BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: "p"},
	}))
	for _, step := range []struct {
		grace int64
		code  int
	}{{30, http.StatusCreated}, {0, http.StatusUnauthorized}} {
		if err := pods.Delete(t.Context(), "p", metav1.DeleteOptions{GracePeriodSeconds: ptr.To(step.grace)}); err != nil {
			t.Fatal(err)
		}
		if got := caller.do(t, http.MethodPost, whoAmIPath, `{}`); got.code != step.code {
			t.Errorf("after a delete with %d seconds: %s, want %d", step.grace, got, step.code)
		}
	}
}

// TestTerminatingAccountGetsNoTokens checks that an account which only a finalizer keeps gets no new tokens, and that its
// tokens are valid until it is removed.
func TestTerminatingAccountGetsNoTokens(t *testing.T) {
	t.Parallel()
	a := authority(t)
	namespace := a.Namespace(t)
	accounts := a.Client().CoreV1().ServiceAccounts(namespace)
	meta := metav1.ObjectMeta{Name: "leaving", Finalizers: []string{"example.com/hold"}}
	if _, err := accounts.Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: meta}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	caller := bearer(t, a.Config(), a.Token(t, namespace, "leaving"))
	if err := accounts.Delete(t.Context(), "leaving", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	_, err := accounts.CreateToken(t.Context(), "leaving", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if !apierrors.IsConflict(err) || !strings.Contains(err.Error(), "is being deleted") {
		t.Errorf("token of an account in deletion: %v, want a conflict", err)
	}
	caller.must(t, http.MethodPost, whoAmIPath, `{}`)
	if _, err := accounts.Patch(t.Context(), "leaving", types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := caller.do(t, http.MethodPost, whoAmIPath, `{}`); got.code != http.StatusUnauthorized {
		t.Errorf("after the finalizer is gone: %s, want 401", got)
	}
}

// TestProcessTokenEndsWithItsLease stops renewing the lease of a process, as when its supervisor is killed. Then the
// process's token is refused.
func TestProcessTokenEndsWithItsLease(t *testing.T) {
	t.Parallel()
	a := lanyardtest.Start(t)
	namespace, core := a.Namespace(t), a.Client().CoreV1()
	a.CreateServiceAccount(t, namespace, "app")
	readyNode(t, a, "one")
	process := func(name string, lease time.Duration) *corev1.Pod {
		p := simplePod(name)
		p.Annotations = map[string]string{podannotation.Process: "true", podannotation.Lease: podannotation.FormatLease(time.Now().Add(lease))}
		p.Spec.NodeName, p.Spec.ServiceAccountName = "one", "app"
		return createPod(t, a, namespace, p)
	}
	whoAmI := func(pod *corev1.Pod) func() error {
		t.Helper()
		token, err := podToken(t.Context(), a.Client(), "app", pod)
		if err != nil {
			t.Fatal(err)
		}
		config := bearing(a.Config(), token)
		return func() error {
			_, err := identify(t, config)
			return err
		}
	}
	killed, ended := whoAmI(process("killed", 2*time.Second)), whoAmI(process("ended", time.Minute))
	if err := killed(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the token is refused", func(context.Context) bool { return apierrors.IsUnauthorized(killed()) })
	if _, err := core.Pods(namespace).Get(t.Context(), "killed", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("the pod: %v", err)
	}

	// The pod of a process that ends by itself is removed at once, whatever the grace period.
	if err := ended(); err != nil {
		t.Fatal(err)
	}
	if err := core.Pods(namespace).Delete(t.Context(), "ended", metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](30)}); err != nil {
		t.Fatal(err)
	}
	if err := ended(); !apierrors.IsUnauthorized(err) {
		t.Errorf("after its pod's deletion was answered: %v", err)
	}
	eventually(t, "an event about the lost process", func(ctx context.Context) bool {
		events, err := core.Events(namespace).List(ctx, metav1.ListOptions{})
		return err == nil && slices.ContainsFunc(events.Items, func(e corev1.Event) bool {
			return e.Reason == "ProcessLost" && e.InvolvedObject.Name == "killed"
		})
	})
}
