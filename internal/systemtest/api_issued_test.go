// Promise: every token that the authority has issued is listed and watched until it is revoked.

package systemtest

import (
	"net/http"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/tools/cache"

	identity "lanyard.dev/apis/identity/v1alpha1"
	"lanyard.dev/lanyardtest"
)

// issuedIn is a namespace with an account, and a client of its issued tokens.
type issuedIn struct {
	authority *lanyardtest.Authority
	namespace string
	all       dynamic.Interface
	tokens    dynamic.ResourceInterface
}

func issuedTokensIn(t *testing.T) issuedIn {
	t.Helper()
	a := authority(t)
	made := issuedIn{authority: a, namespace: a.Namespace(t), all: dynamicFor(t, a.Config())}
	made.tokens = made.all.Resource(identity.SchemeGroupVersion.WithResource("issuedtokens")).Namespace(made.namespace)
	for _, name := range []string{"web", "robot"} {
		a.CreateServiceAccount(t, made.namespace, name)
	}
	return made
}

func (i issuedIn) issue(t *testing.T, account string) string {
	t.Helper()
	return i.authority.Token(t, i.namespace, account)
}

// of returns the only token of an account.
func (i issuedIn) of(t *testing.T, account string) unstructured.Unstructured {
	t.Helper()
	list, err := i.tokens.List(t.Context(), metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("spec.serviceAccount.name", account).String()})
	if err != nil || len(list.Items) != 1 {
		t.Fatalf("tokens of %s: %v, %v", account, list, err)
	}
	return list.Items[0]
}

// TestInformerFollowsIssuedTokens runs client-go's informer, which lists and watches in one request.
func TestInformerFollowsIssuedTokens(t *testing.T) {
	t.Parallel()
	i := issuedTokensIn(t)
	i.issue(t, "web")
	factory := dynamicinformer.NewFilteredDynamicSharedInformerFactory(i.all, 0, i.namespace, nil)
	informer := factory.ForResource(identity.SchemeGroupVersion.WithResource("issuedtokens")).Informer()
	added, deleted := make(chan string, 10), make(chan string, 10)
	name := func(obj any) string {
		if gone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
			obj = gone.Obj
		}
		return obj.(*unstructured.Unstructured).GetName()
	}
	if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(obj any) { added <- name(obj) }, DeleteFunc: func(obj any) { deleted <- name(obj) },
	}); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	defer close(stop)
	factory.Start(stop)
	first := i.of(t, "web")
	expectName(t, added, first.GetName())
	i.issue(t, "robot")
	second := i.of(t, "robot")
	expectName(t, added, second.GetName())
	if err := i.tokens.Delete(t.Context(), first.GetName(), metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	expectName(t, deleted, first.GetName())
}

func expectName(t *testing.T, names chan string, want string) {
	t.Helper()
	select {
	case got := <-names:
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	case <-time.After(30 * time.Second):
		t.Fatalf("no event for %s", want)
	}
}

// TestWatchOfIssuedTokens watches from the version of a list. DELETE ends the token: the next request with it is refused.
func TestWatchOfIssuedTokens(t *testing.T) {
	t.Parallel()
	i := issuedTokensIn(t)
	text := i.issue(t, "web")
	object := i.of(t, "web")
	w, err := i.tokens.Watch(t.Context(), metav1.ListOptions{ResourceVersion: object.GetResourceVersion(), FieldSelector: "spec.serviceAccount.name=web"})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	self := bearer(t, i.authority.Config(), text)
	if got := self.get(t, "/api"); got.code != http.StatusOK {
		t.Fatalf("before the revocation: %s", got)
	}
	i.issue(t, "robot")
	if err := i.tokens.Delete(t.Context(), object.GetName(), metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := self.get(t, "/api"); got.code != http.StatusUnauthorized {
		t.Errorf("after the revocation: %s", got)
	}
	expectEvents(t, w, watch.Deleted, object.GetName())
	if _, err := i.tokens.Get(t.Context(), object.GetName(), metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("get after the revocation: %v", err)
	}
}

// TestPhaseOfIssuedTokens deletes the account of a token. The record remains until the token would have expired.
func TestPhaseOfIssuedTokens(t *testing.T) {
	t.Parallel()
	i := issuedTokensIn(t)
	i.issue(t, "web")
	i.issue(t, "robot")
	if err := i.authority.Client().CoreV1().ServiceAccounts(i.namespace).Delete(t.Context(), "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	for account, want := range map[string]string{"web": "Invalid", "robot": "Active"} {
		object := i.of(t, account)
		if got, _, _ := unstructured.NestedString(object.Object, "status", "phase"); got != want {
			t.Errorf("%s: %s, want %s", account, got, want)
		}
	}
}

// TestIssuedTokensHaveNoProtobuf checks what clients get that prefer or demand protobuf.
func TestIssuedTokensHaveNoProtobuf(t *testing.T) {
	t.Parallel()
	i := issuedTokensIn(t)
	admin := callerFor(t, i.authority.Config())
	path := "/apis/identity.lanyard.dev/v1alpha1/namespaces/" + i.namespace + "/issuedtokens"
	for accept, want := range map[string]int{
		"application/vnd.kubernetes.protobuf, application/json": http.StatusOK,
		"application/vnd.kubernetes.protobuf":                   http.StatusNotAcceptable,
		"application/yaml":                                      http.StatusOK,
	} {
		if got := admin.get(t, path, "Accept", accept); got.code != want {
			t.Errorf("%s: %s, want %d", accept, got, want)
		}
	}
}
