package tokensecrets_test

import (
	"context"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/registry/rest"
	testingclock "k8s.io/utils/clock/testing"

	"lanyard.dev/internal/apiserver/controllertest"
	"lanyard.dev/internal/apiserver/registry"
	"lanyard.dev/internal/apiserver/registry/storagetest"
	"lanyard.dev/internal/bootstraptoken"
	"lanyard.dev/internal/controller/tokensecrets"
	"lanyard.dev/internal/rbac/bootstrap"
)

var now = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

// bootstrapSite is a cluster with a BootstrapCleaner that runs.
type bootstrapSite struct {
	secrets *registry.Store
	clock   *testingclock.FakeClock
}

func startBootstrap(t *testing.T) *bootstrapSite {
	t.Helper()
	secrets := corev1.Resource("secrets")
	c := controllertest.NewCluster(t, storagetest.Start(t), controllertest.Config{}, secrets)
	s := &bootstrapSite{secrets: c.Store(secrets), clock: testingclock.NewFakeClock(now)}
	cleaner := tokensecrets.NewBootstrapCleaner(c.Client(bootstrap.TokenCleaner), s.clock)
	c.Feed(secrets).Listen(cleaner)
	c.Run(t, cleaner)
	return s
}

// token stores a token that ends after the given time, or never.
func (c *bootstrapSite) token(t *testing.T, in string, life time.Duration) string {
	t.Helper()
	spec := bootstraptoken.Spec{}
	if life != 0 {
		spec.Expires = now.Add(life)
	}
	obj := bootstraptoken.NewSecret(bootstraptoken.New(), spec)
	obj.Namespace = in
	if _, err := c.secrets.Create(storagetest.In(t, in), obj, rest.ValidateAllObjectFunc, &metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	return obj.Name
}

func (c *bootstrapSite) gone(t *testing.T, in, name string) bool {
	t.Helper()
	_, err := c.secrets.Get(storagetest.In(t, in), name, &metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		t.Fatal(err)
	}
	return err != nil
}

// await lets time pass, step by step, until the token is gone.
func (c *bootstrapSite) await(t *testing.T, name string, step time.Duration) {
	t.Helper()
	err := wait.PollUntilContextTimeout(t.Context(), time.Millisecond, 20*time.Second, true, func(context.Context) (bool, error) {
		c.clock.Step(step)
		return c.gone(t, bootstraptoken.Namespace, name), nil
	})
	if err != nil {
		t.Fatalf("%s is still there", name)
	}
}

func TestExpiredTokensGo(t *testing.T) {
	t.Parallel()
	c := startBootstrap(t)
	elsewhere := c.token(t, "default", -time.Hour)
	forever, later := c.token(t, bootstraptoken.Namespace, 0), c.token(t, bootstraptoken.Namespace, time.Hour)
	c.await(t, c.token(t, bootstraptoken.Namespace, -time.Second), 0)
	if c.gone(t, bootstraptoken.Namespace, later) {
		t.Error("removed before its time")
	}
	c.await(t, later, time.Minute)
	if c.gone(t, bootstraptoken.Namespace, forever) || c.gone(t, "default", elsewhere) {
		t.Error("removed what is no expired token")
	}
}

func TestProlongedTokenStays(t *testing.T) {
	t.Parallel()
	c := startBootstrap(t)
	name := c.token(t, bootstraptoken.Namespace, time.Hour)
	prolong := controllertest.Change(func(s *corev1.Secret) { s.Data["expiration"] = []byte(now.Add(48 * time.Hour).Format(time.RFC3339)) })
	if _, _, err := c.secrets.Update(storagetest.In(t, bootstraptoken.Namespace), name, prolong, rest.ValidateAllObjectFunc,
		rest.ValidateAllObjectUpdateFunc, false, &metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	c.await(t, c.token(t, bootstraptoken.Namespace, 24*time.Hour), 30*time.Minute)
	if c.clock.Now().Before(now.Add(47*time.Hour)) && c.gone(t, bootstraptoken.Namespace, name) {
		t.Error("removed at the time it had at first")
	}
}
