package tokensecrets

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"lanyard.dev/internal/controller"
)

// AccountCleaner deletes the Secrets of type kubernetes.io/service-account-token whose account is gone.
//
// Like Kubernetes' token controller it writes the UID of the account into the Secret that names it, and deletes the
// Secret when no such account exists any more. Unlike that controller it never writes a token into a Secret.
type AccountCleaner struct {
	client corev1client.CoreV1Interface
	queue  *controller.Queue[types.NamespacedName]

	mu sync.Mutex
	// secretsOf holds the names of the Secrets of each account, and accountOf the name of the account of each Secret.
	secretsOf map[types.NamespacedName]map[string]bool
	accountOf map[types.NamespacedName]string
}

// NewAccountCleaner returns a controller that writes through the client of bootstrap.ServiceAccountTokenController.
func NewAccountCleaner(client kubernetes.Interface) *AccountCleaner {
	return &AccountCleaner{
		client:    client.CoreV1(),
		queue:     controller.NewQueue[types.NamespacedName]("look for the account of a token's secret", 50*time.Millisecond, time.Minute, clock.RealClock{}),
		secretsOf: map[types.NamespacedName]map[string]bool{}, accountOf: map[types.NamespacedName]string{},
	}
}

// Run deletes Secrets until ctx ends.
func (c *AccountCleaner) Run(ctx context.Context) { c.queue.Run(ctx, c.check) }

func (c *AccountCleaner) check(ctx context.Context, key types.NamespacedName) error {
	secret, err := c.client.Secrets(key.Namespace).Get(ctx, key.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read secret %s: %w", key, err)
	}
	name, ok := accountName(secret)
	if !ok || secret.DeletionTimestamp != nil {
		return nil
	}
	uid, noted := types.UID(""), types.UID(secret.Annotations[corev1.ServiceAccountUIDKey])
	account, err := c.client.ServiceAccounts(key.Namespace).Get(ctx, name, metav1.GetOptions{})
	switch {
	case err == nil:
		uid = account.UID
	case !apierrors.IsNotFound(err):
		return fmt.Errorf("read service account %s/%s: %w", key.Namespace, name, err)
	}
	switch {
	case uid == "" || noted != "" && noted != uid:
		return c.remove(ctx, secret)
	case noted == "":
		return c.noteUID(ctx, secret, uid)
	}
	return nil
}

// remove deletes the Secret as it was read: in the meantime it may have been given to another account.
func (c *AccountCleaner) remove(ctx context.Context, secret *corev1.Secret) error {
	err := c.client.Secrets(secret.Namespace).Delete(ctx, secret.Name, controller.IfUnchanged(secret))
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		return fmt.Errorf("remove secret %s/%s: %w", secret.Namespace, secret.Name, err)
	}
	klog.InfoS("Removed a service account token secret whose account is gone", "secret", klog.KObj(secret))
	return nil
}

// noteUID writes the UID of the account into its Secret, so that an account made later under the same name does not
// keep it.
func (c *AccountCleaner) noteUID(ctx context.Context, read *corev1.Secret, uid types.UID) error {
	secrets := c.client.Secrets(read.Namespace)
	_, err := controller.Change(ctx, read.Name, secrets.Get, secrets.Update, func(secret *corev1.Secret) bool {
		if secret.UID != read.UID || secret.Annotations[corev1.ServiceAccountUIDKey] != "" {
			return false
		}
		metav1.SetMetaDataAnnotation(&secret.ObjectMeta, corev1.ServiceAccountUIDKey, string(uid))
		return true
	})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("note the account of secret %s/%s: %w", read.Namespace, read.Name, err)
	}
	return nil
}

// accountName returns the name of the account that a token's Secret is for.
func accountName(secret *corev1.Secret) (string, bool) {
	name := secret.Annotations[corev1.ServiceAccountNameKey]
	return name, secret.Type == corev1.SecretTypeServiceAccountToken && name != ""
}

// assign records the account that a Secret belongs to; "" if the Secret is gone or belongs to no account.
func (c *AccountCleaner) assign(secret types.NamespacedName, account string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if was, ok := c.accountOf[secret]; ok {
		owner := types.NamespacedName{Namespace: secret.Namespace, Name: was}
		if delete(c.secretsOf[owner], secret.Name); len(c.secretsOf[owner]) == 0 {
			delete(c.secretsOf, owner)
		}
		delete(c.accountOf, secret)
	}
	if account == "" {
		return
	}
	owner := types.NamespacedName{Namespace: secret.Namespace, Name: account}
	if c.secretsOf[owner] == nil {
		c.secretsOf[owner] = map[string]bool{}
	}
	c.secretsOf[owner][secret.Name], c.accountOf[secret] = true, account
}

// Secrets returns the listener for the feed of secrets.
func (c *AccountCleaner) Secrets() *SecretListener { return &SecretListener{c} }

// Accounts returns the listener for the feed of service accounts.
func (c *AccountCleaner) Accounts() *AccountListener { return &AccountListener{c} }

// SecretListener listens to the feed of secrets.
type SecretListener struct{ c *AccountCleaner }

// Set implements mirror.Listener.
func (l *SecretListener) Set(obj runtime.Object) {
	secret, ok := obj.(*corev1.Secret)
	if !ok {
		return
	}
	key := types.NamespacedName{Namespace: secret.Namespace, Name: secret.Name}
	account, ok := accountName(secret)
	if !ok {
		account = ""
	}
	if l.c.assign(key, account); ok {
		l.c.queue.Add(key)
	}
}

// Delete implements mirror.Listener.
func (l *SecretListener) Delete(obj runtime.Object) {
	if key, ok := controller.KeyOf(obj); ok {
		l.c.assign(key, "")
	}
}

// AccountListener listens to the feed of service accounts.
type AccountListener struct{ c *AccountCleaner }

// Set implements mirror.Listener. The feed may not have reported the removal of an account that is made again.
func (l *AccountListener) Set(obj runtime.Object) { l.Delete(obj) }

// Delete implements mirror.Listener.
func (l *AccountListener) Delete(obj runtime.Object) {
	account, ok := controller.KeyOf(obj)
	if !ok {
		return
	}
	l.c.mu.Lock()
	defer l.c.mu.Unlock()
	for name := range l.c.secretsOf[account] {
		l.c.queue.Add(types.NamespacedName{Namespace: account.Namespace, Name: name})
	}
}
