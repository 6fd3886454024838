package lanyardtest_test

import (
	"context"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"

	"lanyard.dev/lanyardtest"
)

func clientFor(t *testing.T, config *rest.Config) *kubernetes.Clientset {
	t.Helper()
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func whoAmI(t *testing.T, client kubernetes.Interface) authenticationv1.UserInfo {
	t.Helper()
	review, err := client.AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return review.Status.UserInfo
}

func TestAccountHasItsRightsAndNoOthers(t *testing.T) {
	t.Parallel()
	authority := lanyardtest.Start(t)
	namespace := authority.Namespace(t)
	account := authority.CreateServiceAccount(t, namespace, "reader")
	client := clientFor(t, authority.As(t, namespace, "reader"))

	if user := whoAmI(t, client); user.UID != string(account.UID) || user.Username != "system:serviceaccount:"+namespace+":reader" {
		t.Errorf("the account is %+v", user)
	}
	if _, err := client.CoreV1().ConfigMaps(namespace).List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("list before the grant: got %v, want forbidden", err)
	}
	authority.Grant(t, namespace, "reader", rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"list"}})
	if _, err := client.CoreV1().ConfigMaps(namespace).List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Errorf("list after the grant: %v", err)
	}
	if _, err := client.CoreV1().ConfigMaps(authority.Namespace(t)).List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("list in another namespace: got %v, want forbidden", err)
	}
}

func TestTokenForAnAudience(t *testing.T) {
	t.Parallel()
	authority := lanyardtest.Start(t)
	namespace := authority.Namespace(t)
	authority.CreateServiceAccount(t, namespace, "caller")
	review := &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{
		Token: authority.Token(t, namespace, "caller", "vault"), Audiences: []string{"vault"},
	}}
	reviewed, err := authority.Client().AuthenticationV1().TokenReviews().Create(t.Context(), review, metav1.CreateOptions{})
	if err != nil || !reviewed.Status.Authenticated {
		t.Errorf("review for the token's audience: %v, %+v", err, reviewed.Status)
	}
	config := rest.AnonymousClientConfig(authority.Config())
	config.BearerToken = review.Spec.Token
	_, err = clientFor(t, config).AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if !apierrors.IsUnauthorized(err) {
		t.Errorf("the authority itself: got %v, want unauthorized", err)
	}
}

func TestTokenExpires(t *testing.T) {
	t.Parallel()
	authority := lanyardtest.StartWith(t, lanyardtest.Options{MinTokenExpiration: time.Second})
	namespace := authority.Namespace(t)
	authority.CreateServiceAccount(t, namespace, "brief")
	config := rest.AnonymousClientConfig(authority.Config())
	config.BearerToken = authority.TokenFor(t, namespace, "brief", authenticationv1.TokenRequestSpec{ExpirationSeconds: ptr.To[int64](2)})
	client := clientFor(t, config)
	whoAmI(t, client)
	err := wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, 30*time.Second, true, func(ctx context.Context) (bool, error) {
		_, err := client.AuthenticationV1().SelfSubjectReviews().Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
		return apierrors.IsUnauthorized(err), nil
	})
	if err != nil {
		t.Errorf("the token was not refused after its expiry: %v", err)
	}
}

func TestRestartKeepsWhatWasThere(t *testing.T) {
	t.Parallel()
	first := lanyardtest.StartWith(t, lanyardtest.Options{Fsync: true})
	namespace := first.Namespace(t)
	first.CreateServiceAccount(t, namespace, "lasting")
	token := first.Token(t, namespace, "lasting")
	first.Stop(t)
	first.Stop(t)
	if _, err := first.Client().Discovery().ServerVersion(); err == nil {
		t.Error("a stopped authority answers")
	}

	second := lanyardtest.StartWith(t, lanyardtest.Options{DataDir: first.DataDir(), Port: portOf(t, first)})
	config := rest.AnonymousClientConfig(second.Config())
	config.BearerToken = token
	if user := whoAmI(t, clientFor(t, config)); !strings.HasSuffix(user.Username, ":lasting") {
		t.Errorf("the token identifies %+v", user)
	}
	if user := whoAmI(t, first.Client()); user.Username != "lanyard-admin" {
		t.Errorf("a client that outlived the restart is %+v", user)
	}
}

func portOf(t *testing.T, authority *lanyardtest.Authority) int {
	t.Helper()
	address, err := url.Parse(authority.URL())
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(address.Port())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

func TestSeveralAtOnceAreIndependent(t *testing.T) {
	t.Parallel()
	const several = 4
	authorities := make([]*lanyardtest.Authority, several)
	var starting sync.WaitGroup
	for i := range authorities {
		starting.Go(func() { authorities[i] = lanyardtest.Start(t) })
	}
	starting.Wait()
	if t.Failed() {
		t.FailNow()
	}
	for i, authority := range authorities {
		namespace := authority.Namespace(t)
		authority.CreateServiceAccount(t, namespace, "one")
		if user := whoAmI(t, clientFor(t, authority.As(t, namespace, "one"))); user.UID == "" {
			t.Errorf("authority %d does not accept its own token", i)
		}
		other := authorities[(i+1)%several]
		config := rest.AnonymousClientConfig(other.Config())
		config.BearerToken = authority.Token(t, namespace, "one")
		_, err := clientFor(t, config).AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
		if !apierrors.IsUnauthorized(err) {
			t.Errorf("authority %d accepted another's token: %v", i, err)
		}
	}
}

// failing is a test that records a failure.
type failing struct {
	testing.TB
	failed chan struct{}
}

func (f failing) Fatalf(string, ...any) {
	close(f.failed)
	runtime.Goexit()
}

func TestStartFailsTheTest(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	f := failing{TB: t, failed: make(chan struct{})}
	go lanyardtest.StartWith(f, lanyardtest.Options{DataDir: dir})
	<-f.failed
}

// TestNothingIsLeft is not parallel, because it counts the goroutines and open files of the process.
func TestNothingIsLeft(t *testing.T) {
	once := func() {
		t.Run("", func(t *testing.T) {
			authority := lanyardtest.Start(t)
			authority.CreateServiceAccount(t, "default", "passing")
			whoAmI(t, clientFor(t, authority.As(t, "default", "passing")))
		})
	}
	once() // Some libraries open files once per process. These files are not counted.
	files := openFiles(t)
	once()
	once()
	err := wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, 30*time.Second, true, func(context.Context) (bool, error) {
		return len(busy()) == 0 && openFiles(t) <= files, nil
	})
	if err != nil {
		t.Errorf("open files: %d, then %d; goroutines:\n%s", files, openFiles(t), strings.Join(busy(), "\n\n"))
	}
}

// busy returns the stacks of the goroutines that work for an authority. Goroutines of some libraries notice its end only after
// seconds.
func busy() []string {
	stacks := make([]byte, 4<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	return slices.DeleteFunc(strings.Split(string(stacks), "\n\n"), func(stack string) bool {
		return !strings.Contains(stack, "\nlanyard.dev/internal/") && !strings.Contains(stack, "\ngo.etcd.io/etcd/") &&
			!strings.Contains(stack, "\nk8s.io/apiserver/pkg/storage/") && !strings.Contains(stack, "\nk8s.io/apiserver/pkg/server")
	})
}

// openFiles returns the number of open file descriptors, or 0 if the operating system does not report it.
func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if errors.Is(err, os.ErrNotExist) {
		return 0
	}
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func BenchmarkStart(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		authority := lanyardtest.Start(b)
		b.StopTimer()
		authority.Stop(b)
		b.StartTimer()
	}
}
