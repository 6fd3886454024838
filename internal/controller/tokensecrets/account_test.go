package tokensecrets_test

import (
	"os"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/registry/rest"

	"lanyard.dev/internal/apiserver/controllertest"
	"lanyard.dev/internal/apiserver/registry"
	"lanyard.dev/internal/apiserver/registry/storagetest"
	"lanyard.dev/internal/controller/tokensecrets"
	"lanyard.dev/internal/rbac/bootstrap"
)

const namespace = "ns"

func TestMain(m *testing.M) {
	os.Exit(controllertest.TestRoles(m, bootstrap.ServiceAccountTokenController, bootstrap.TokenCleaner))
}

// accountSite is a cluster with an AccountCleaner that runs.
type accountSite struct{ secrets, accounts *registry.Store }

func startAccounts(t *testing.T) *accountSite {
	t.Helper()
	secrets, accounts := corev1.Resource("secrets"), corev1.Resource("serviceaccounts")
	c := controllertest.NewCluster(t, storagetest.Start(t), controllertest.Config{}, secrets, accounts)
	cleaner := tokensecrets.NewAccountCleaner(c.Client(bootstrap.ServiceAccountTokenController))
	c.Feed(secrets).Listen(cleaner.Secrets())
	c.Feed(accounts).Listen(cleaner.Accounts())
	c.Run(t, cleaner)
	return &accountSite{c.Store(secrets), c.Store(accounts)}
}

func (c *accountSite) account(t *testing.T, name string) types.UID {
	t.Helper()
	made, err := c.accounts.Create(storagetest.In(t, namespace), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}, rest.ValidateAllObjectFunc, &metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return made.(*corev1.ServiceAccount).UID
}

func (c *accountSite) deleteAccount(t *testing.T, name string) {
	t.Helper()
	if _, _, err := c.accounts.Delete(storagetest.In(t, namespace), name, rest.ValidateAllObjectFunc, &metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
}

func (c *accountSite) secret(t *testing.T, name, account string, uid types.UID, kind corev1.SecretType) {
	t.Helper()
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{corev1.ServiceAccountNameKey: account}}, Type: kind}
	if uid != "" {
		s.Annotations[corev1.ServiceAccountUIDKey] = string(uid)
	}
	if _, err := c.secrets.Create(storagetest.In(t, namespace), s, rest.ValidateAllObjectFunc, &metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// await waits until done accepts the Secret, which is nil if it is gone.
func (c *accountSite) await(t *testing.T, what, name string, done func(*corev1.Secret) bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		found, err := c.secrets.Get(storagetest.In(t, namespace), name, &metav1.GetOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			t.Fatal(err)
		}
		s, _ := found.(*corev1.Secret)
		if err != nil {
			s = nil
		}
		if done(s) {
			return
		}
	}
	t.Fatalf("secret %s: it is not %s", name, what)
}

func gone(s *corev1.Secret) bool { return s == nil }

// of accepts a Secret that belongs to an account, by its UID.
func of(uid types.UID) func(*corev1.Secret) bool {
	return func(s *corev1.Secret) bool {
		return s != nil && s.Annotations[corev1.ServiceAccountUIDKey] == string(uid)
	}
}

func TestSecretsGoWithTheirAccount(t *testing.T) {
	t.Parallel()
	const token = corev1.SecretTypeServiceAccountToken
	c := startAccounts(t)
	first := c.account(t, "app")
	other := c.account(t, "other")
	c.secret(t, "noted", "app", first, token)
	c.secret(t, "plain", "app", "", token)
	c.secret(t, "others", "other", "", token)
	c.secret(t, "opaque", "app", "", corev1.SecretTypeOpaque)
	c.await(t, "noted", "plain", of(first))
	c.await(t, "noted", "others", of(other))

	c.secret(t, "orphan", "missing", "", token)
	c.await(t, "removed for want of an account", "orphan", gone)
	c.secret(t, "formers", "app", "another-uid", token)
	c.await(t, "removed as another account's", "formers", gone)

	c.deleteAccount(t, "app")
	c.await(t, "removed", "noted", gone)
	c.await(t, "removed", "plain", gone)
	second := c.account(t, "app")
	c.secret(t, "again", "app", "", token)
	c.await(t, "noted", "again", of(second))
	for _, name := range []string{"others", "opaque"} {
		if _, err := c.secrets.Get(storagetest.In(t, namespace), name, &metav1.GetOptions{}); err != nil {
			t.Errorf("secret %s: %v", name, err)
		}
	}
}
