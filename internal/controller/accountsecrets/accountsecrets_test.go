package accountsecrets_test

import (
	"context"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/registry/rest"

	"lanyard.dev/internal/apiserver/mirror"
	"lanyard.dev/internal/apiserver/registry"
	"lanyard.dev/internal/apiserver/registry/storagetest"
	"lanyard.dev/internal/controller/accountsecrets"
)

const namespace = "ns"

// cluster is real stores, mirrored as in the server, and a controller that runs.
type cluster struct{ secrets, accounts *registry.Store }

func start(t *testing.T) *cluster {
	t.Helper()
	base := storagetest.Start(t)
	secrets, accounts := corev1.Resource("secrets"), corev1.Resource("serviceaccounts")
	m := mirror.New(mirror.Config{Base: base, SoleWriter: true}, secrets, accounts)
	c := &cluster{}
	c.secrets = base.Store(m, secrets)
	c.accounts = base.Store(m, accounts)
	t.Cleanup(func() { c.secrets.Destroy(); c.accounts.Destroy() })
	controller := accountsecrets.New(c.secrets, c.accounts)
	m.Feed(secrets).Listen(controller.Secrets())
	m.Feed(accounts).Listen(controller.Accounts())
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{}, 2)
	go func() { m.Run(ctx); done <- struct{}{} }()
	if err := m.WaitSynced(storagetest.In(t, "")); err != nil {
		t.Fatal(err)
	}
	storagetest.AwaitReady(t, c.secrets)
	storagetest.AwaitReady(t, c.accounts)
	go func() { controller.Run(ctx); done <- struct{}{} }()
	t.Cleanup(func() { cancel(); <-done; <-done })
	return c
}

func (c *cluster) account(t *testing.T, name string) types.UID {
	t.Helper()
	made, err := c.accounts.Create(storagetest.In(t, namespace), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}, rest.ValidateAllObjectFunc, &metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return made.(*corev1.ServiceAccount).UID
}

func (c *cluster) deleteAccount(t *testing.T, name string) {
	t.Helper()
	if _, _, err := c.accounts.Delete(storagetest.In(t, namespace), name, rest.ValidateAllObjectFunc, &metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
}

func (c *cluster) secret(t *testing.T, name, account string, uid types.UID, kind corev1.SecretType) {
	t.Helper()
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{corev1.ServiceAccountNameKey: account}}, Type: kind}
	if uid != "" {
		s.Annotations[corev1.ServiceAccountUIDKey] = string(uid)
	}
	if _, err := c.secrets.Create(storagetest.In(t, namespace), s, rest.ValidateAllObjectFunc, &metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// await waits for a Secret to be as wanted; nil is one that is gone.
func (c *cluster) await(t *testing.T, what, name string, done func(*corev1.Secret) bool) {
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

// of tells whether a Secret is noted to belong to an account.
func of(uid types.UID) func(*corev1.Secret) bool {
	return func(s *corev1.Secret) bool {
		return s != nil && s.Annotations[corev1.ServiceAccountUIDKey] == string(uid)
	}
}

func TestSecretsGoWithTheirAccount(t *testing.T) {
	t.Parallel()
	const token = corev1.SecretTypeServiceAccountToken
	c := start(t)
	first := c.account(t, "app")
	other := c.account(t, "other")
	c.secret(t, "noted", "app", first, token)
	c.secret(t, "plain", "app", "", token)
	c.secret(t, "others", "other", "", token)
	c.secret(t, "opaque", "app", "", corev1.SecretTypeOpaque)
	c.await(t, "noted", "plain", of(first))
	c.await(t, "noted", "others", of(other))

	c.secret(t, "nobodys", "nobody", "", token)
	c.await(t, "removed for want of an account", "nobodys", gone)
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
