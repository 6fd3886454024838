// Package namespacedefaults keeps the objects that every namespace has: the service account "default" and the ConfigMap
// kube-root-ca.crt. In kube-public it also keeps the ConfigMap kubelet-serving-ca.
//
// The server calls Ensure before it answers the request that creates a namespace. The controller restores what is
// deleted or changed later.
package namespacedefaults

import (
	"context"
	"fmt"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/utils/clock"

	"lanyard.dev/internal/controller"
	"lanyard.dev/internal/rbac/bootstrap"
)

const (
	caKey           = "ca.crt"
	descriptionKey  = "kubernetes.io/description"
	descriptionText = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters."
	nodesCAText     = "Contains a CA bundle that can be used to verify what nodes serve with, such as their metrics. It is not to be used for the API server."
)

// Config configures the controller.
type Config struct {
	// Accounts is the client of bootstrap.ServiceAccountController, and ConfigMaps the client of bootstrap.RootCAPublisher.
	Accounts, ConfigMaps kubernetes.Interface
	// RootCA is published in every namespace, and NodesCA in kube-public unless it is empty. Both are certificates in
	// PEM. NodesCA is in a ConfigMap of its own, since clients must not trust it for the API server.
	RootCA, NodesCA []byte
}

// Controller keeps the objects that every namespace has. It listens to the feeds of namespaces, service accounts and
// ConfigMaps.
type Controller struct {
	accounts, configMaps corev1client.CoreV1Interface
	rootCA, nodesCA      string
	queue                *controller.Queue[string]
}

// New returns a controller.
func New(c Config) *Controller {
	return &Controller{
		accounts: c.Accounts.CoreV1(), configMaps: c.ConfigMaps.CoreV1(), rootCA: string(c.RootCA), nodesCA: string(c.NodesCA),
		queue: controller.NewQueue[string]("keep the default objects of namespace", 20*time.Millisecond, time.Minute, clock.RealClock{}),
	}
}

// Run restores missing objects until ctx ends.
func (c *Controller) Run(ctx context.Context) { c.queue.Run(ctx, c.restore) }

func (c *Controller) restore(ctx context.Context, name string) error {
	if ending, err := c.isEnding(ctx, name); err != nil || ending {
		return err
	}
	return c.Ensure(ctx, name)
}

func (c *Controller) isEnding(ctx context.Context, name string) (bool, error) {
	namespace, err := c.accounts.Namespaces().Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("look up namespace %s: %w", name, err)
	}
	return namespace.Status.Phase == corev1.NamespaceTerminating, nil
}

// Ensure creates the objects in a namespace, or restores them. If the namespace is being deleted, it deletes them
// instead: the namespace controller may have emptied the namespace before they were created, and would then leave them
// behind.
func (c *Controller) Ensure(ctx context.Context, name string) error {
	if err := c.ensure(ctx, name); err != nil && !refusedByEnd(err) {
		return err
	}
	return c.undoIfEnding(ctx, name)
}

// refusedByEnd reports whether a namespace takes no new objects because it is being deleted or gone.
func refusedByEnd(err error) bool {
	return apierrors.IsNotFound(err) || apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause)
}

func (c *Controller) ensure(ctx context.Context, name string) error {
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: bootstrap.DefaultServiceAccount}}
	if _, err := c.accounts.ServiceAccounts(name).Create(ctx, account, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create service account %s/%s: %w", name, bootstrap.DefaultServiceAccount, err)
	}
	if err := c.ensureConfigMap(ctx, name, bootstrap.RootCAConfigMap, descriptionText, c.rootCA); err != nil {
		return fmt.Errorf("create config map %s/%s: %w", name, bootstrap.RootCAConfigMap, err)
	}
	if name == metav1.NamespacePublic && c.nodesCA != "" {
		if err := c.ensureConfigMap(ctx, name, bootstrap.NodesCAConfigMap, nodesCAText, c.nodesCA); err != nil {
			return fmt.Errorf("create config map %s/%s: %w", name, bootstrap.NodesCAConfigMap, err)
		}
	}
	return nil
}

// undoIfEnding deletes the objects if the namespace is being deleted.
func (c *Controller) undoIfEnding(ctx context.Context, namespace string) error {
	if ending, err := c.isEnding(ctx, namespace); err != nil || !ending {
		return err
	}
	undo := func(remove func(context.Context, string, metav1.DeleteOptions) error, name string) error {
		if err := remove(ctx, name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("remove %s from namespace %s, which is being deleted: %w", name, namespace, err)
		}
		return nil
	}
	if err := undo(c.accounts.ServiceAccounts(namespace).Delete, bootstrap.DefaultServiceAccount); err != nil {
		return err
	}
	names := []string{bootstrap.RootCAConfigMap}
	if namespace == metav1.NamespacePublic {
		names = append(names, bootstrap.NodesCAConfigMap)
	}
	for _, name := range names {
		if err := undo(c.configMaps.ConfigMaps(namespace).Delete, name); err != nil {
			return err
		}
	}
	return nil
}

func (c *Controller) ensureConfigMap(ctx context.Context, namespace, name, description, ca string) error {
	configMaps := c.configMaps.ConfigMaps(namespace)
	want := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{descriptionKey: description}},
		Data:       map[string]string{caKey: ca},
	}
	_, err := configMaps.Create(ctx, want, metav1.CreateOptions{})
	if !apierrors.IsAlreadyExists(err) {
		return err
	}
	_, err = controller.Change(ctx, name, configMaps.Get, configMaps.Update, func(stored *corev1.ConfigMap) bool {
		if maps.Equal(stored.Data, want.Data) && len(stored.BinaryData) == 0 && stored.Annotations[descriptionKey] == description {
			return false
		}
		stored.Data, stored.BinaryData = maps.Clone(want.Data), nil
		metav1.SetMetaDataAnnotation(&stored.ObjectMeta, descriptionKey, description)
		return true
	})
	return err
}

// Listener queues the namespace of an object that the feed of its resource reports.
type Listener struct {
	controller *Controller
	// name selects the objects; empty selects all, which are namespaces.
	name string
	// onSet reports that a change of an object is of interest, not only its removal.
	onSet bool
}

// Accounts returns the listener for the feed of service accounts.
func (c *Controller) Accounts() *Listener {
	return &Listener{controller: c, name: bootstrap.DefaultServiceAccount}
}

// RootCAs returns a listener for the feed of ConfigMaps.
func (c *Controller) RootCAs() *Listener {
	return &Listener{controller: c, name: bootstrap.RootCAConfigMap, onSet: true}
}

// NodesCA returns another listener for the feed of ConfigMaps.
func (c *Controller) NodesCA() *Listener {
	return &Listener{controller: c, name: bootstrap.NodesCAConfigMap, onSet: true}
}

// Namespaces returns the listener for the feed of namespaces.
func (c *Controller) Namespaces() *Listener { return &Listener{controller: c, onSet: true} }

// Set implements mirror.Listener.
func (l *Listener) Set(obj runtime.Object) {
	if l.onSet {
		l.Delete(obj)
	}
}

// Delete implements mirror.Listener.
func (l *Listener) Delete(obj runtime.Object) {
	key, ok := controller.KeyOf(obj)
	switch {
	case !ok:
	case l.name == "":
		l.controller.queue.Add(key.Name)
	case l.name == key.Name:
		l.controller.queue.Add(key.Namespace)
	}
}
