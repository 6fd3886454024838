// Package accountsecrets removes the Secrets of type kubernetes.io/service-account-token whose account is gone.
//
// As Kubernetes' token controller does, it notes in a Secret the UID of the account that it names, and removes the Secret
// when there is no such account any more. Unlike that controller it never puts a token into one.
package accountsecrets

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"

	"lanyard.dev/internal/controller"
)

// Store is the part of the secrets' store that is used.
type Store interface {
	rest.Getter
	rest.Updater
	rest.GracefulDeleter
}

// Controller removes Secrets. It listens, by Secrets and Accounts, to two feeds. Any number of replicas may run it.
type Controller struct {
	secrets  Store
	accounts rest.Getter
	queue    workqueue.TypedRateLimitingInterface[types.NamespacedName]

	mu sync.Mutex
	// of holds the names of the Secrets of each account, account the reverse.
	of      map[types.NamespacedName]map[string]bool
	account map[types.NamespacedName]string
}

// New returns a controller over the stores of secrets and of service accounts.
func New(secrets Store, accounts rest.Getter) *Controller {
	limiter := workqueue.NewTypedItemExponentialFailureRateLimiter[types.NamespacedName](50*time.Millisecond, time.Minute)
	return &Controller{
		secrets: secrets, accounts: accounts, queue: workqueue.NewTypedRateLimitingQueue(limiter),
		of: map[types.NamespacedName]map[string]bool{}, account: map[types.NamespacedName]string{},
	}
}

// Run removes Secrets until ctx ends.
func (c *Controller) Run(ctx context.Context) {
	controller.Work(ctx, c.queue, "look for the account of a token's secret", c.look)
}

func (c *Controller) look(ctx context.Context, key types.NamespacedName) error {
	ctx = request.WithNamespace(ctx, key.Namespace)
	found, err := c.secrets.Get(ctx, key.Name, &metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read secret %s: %w", key, err)
	}
	secret := found.(*corev1.Secret)
	name, ok := accountOf(secret)
	if !ok || secret.DeletionTimestamp != nil {
		return nil
	}
	uid, noted := types.UID(""), types.UID(secret.Annotations[corev1.ServiceAccountUIDKey])
	account, err := c.accounts.Get(ctx, name, &metav1.GetOptions{})
	switch {
	case err == nil:
		uid = account.(*corev1.ServiceAccount).UID
	case !apierrors.IsNotFound(err):
		return fmt.Errorf("read service account %s/%s: %w", key.Namespace, name, err)
	}
	switch {
	case uid == "" || noted != "" && noted != uid:
		return c.remove(ctx, secret)
	case noted == "":
		return c.note(ctx, secret, uid)
	}
	return nil
}

// remove takes away the Secret as it was looked at: it may be given to another account meanwhile.
func (c *Controller) remove(ctx context.Context, secret *corev1.Secret) error {
	only := metav1.Preconditions{UID: &secret.UID, ResourceVersion: &secret.ResourceVersion}
	_, _, err := c.secrets.Delete(ctx, secret.Name, rest.ValidateAllObjectFunc, &metav1.DeleteOptions{Preconditions: &only})
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		return fmt.Errorf("remove secret %s/%s: %w", secret.Namespace, secret.Name, err)
	}
	klog.InfoS("Removed a service account token secret whose account is gone", "secret", klog.KObj(secret))
	return nil
}

// note remembers in the Secret which account it belongs to, so that one made later under the same name does not keep it.
func (c *Controller) note(ctx context.Context, looked *corev1.Secret, uid types.UID) error {
	set := controller.Change(func(secret *corev1.Secret) {
		if secret.UID == looked.UID && secret.Annotations[corev1.ServiceAccountUIDKey] == "" {
			metav1.SetMetaDataAnnotation(&secret.ObjectMeta, corev1.ServiceAccountUIDKey, string(uid))
		}
	})
	_, _, err := c.secrets.Update(ctx, looked.Name, set, rest.ValidateAllObjectFunc, rest.ValidateAllObjectUpdateFunc, false, &metav1.UpdateOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("note the account of secret %s/%s: %w", looked.Namespace, looked.Name, err)
	}
	return nil
}

// accountOf is the name of the account that a token's Secret is for.
func accountOf(secret *corev1.Secret) (string, bool) {
	name := secret.Annotations[corev1.ServiceAccountNameKey]
	return name, secret.Type == corev1.SecretTypeServiceAccountToken && name != ""
}

// remember keeps which Secrets an account has. account is empty for a Secret that is gone, or is none of an account.
func (c *Controller) remember(secret types.NamespacedName, account string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if was, ok := c.account[secret]; ok {
		owner := types.NamespacedName{Namespace: secret.Namespace, Name: was}
		if delete(c.of[owner], secret.Name); len(c.of[owner]) == 0 {
			delete(c.of, owner)
		}
		delete(c.account, secret)
	}
	if account == "" {
		return
	}
	owner := types.NamespacedName{Namespace: secret.Namespace, Name: account}
	if c.of[owner] == nil {
		c.of[owner] = map[string]bool{}
	}
	c.of[owner][secret.Name], c.account[secret] = true, account
}

// Secrets listens to the feed of secrets.
func (c *Controller) Secrets() *Secrets { return &Secrets{c} }

// Accounts listens to the feed of service accounts.
func (c *Controller) Accounts() *Accounts { return &Accounts{c} }

// Secrets tells of secrets. It is a mirror.Listener.
type Secrets struct{ c *Controller }

// Set implements mirror.Listener.
func (l *Secrets) Set(obj runtime.Object) {
	secret, ok := obj.(*corev1.Secret)
	if !ok {
		return
	}
	key := types.NamespacedName{Namespace: secret.Namespace, Name: secret.Name}
	account, ok := accountOf(secret)
	if !ok {
		account = ""
	}
	if l.c.remember(key, account); ok {
		l.c.queue.Add(key)
	}
}

// Delete implements mirror.Listener.
func (l *Secrets) Delete(obj runtime.Object) {
	if m, err := meta.Accessor(obj); err == nil {
		l.c.remember(types.NamespacedName{Namespace: m.GetNamespace(), Name: m.GetName()}, "")
	}
}

// Accounts tells of service accounts. It is a mirror.Listener.
type Accounts struct{ c *Controller }

// Set implements mirror.Listener. An account made again under its name may not have been seen to go.
func (l *Accounts) Set(obj runtime.Object) { l.Delete(obj) }

// Delete implements mirror.Listener.
func (l *Accounts) Delete(obj runtime.Object) {
	m, err := meta.Accessor(obj)
	if err != nil {
		return
	}
	l.c.mu.Lock()
	defer l.c.mu.Unlock()
	for name := range l.c.of[types.NamespacedName{Namespace: m.GetNamespace(), Name: m.GetName()}] {
		l.c.queue.Add(types.NamespacedName{Namespace: m.GetNamespace(), Name: name})
	}
}
