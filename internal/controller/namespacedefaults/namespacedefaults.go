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

// checkDelay is how long after a change of a namespace its objects are checked.
const checkDelay = 200 * time.Millisecond

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
	if complete, err := c.isComplete(ctx, name); err != nil || complete {
		return err
	}
	return c.Ensure(ctx, name)
}

// isComplete reports whether a namespace has its objects. It only reads, since most namespaces do.
func (c *Controller) isComplete(ctx context.Context, name string) (bool, error) {
	_, err := c.accounts.ServiceAccounts(name).Get(ctx, bootstrap.DefaultServiceAccount, metav1.GetOptions{})
	for _, want := range c.wanted(name) {
		var stored *corev1.ConfigMap
		if err == nil {
			stored, err = c.configMaps.ConfigMaps(name).Get(ctx, want.Name, metav1.GetOptions{})
		}
		if err == nil && !isAsWanted(stored, want) {
			return false, nil
		}
	}
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read the default objects of namespace %s: %w", name, err)
	}
	return true, nil
}

// wanted returns the ConfigMaps of a namespace.
func (c *Controller) wanted(namespace string) []*corev1.ConfigMap {
	made := func(name, description, ca string) *corev1.ConfigMap {
		return &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{descriptionKey: description}},
			Data:       map[string]string{caKey: ca},
		}
	}
	all := []*corev1.ConfigMap{made(bootstrap.RootCAConfigMap, descriptionText, c.rootCA)}
	if namespace == metav1.NamespacePublic && c.nodesCA != "" {
		all = append(all, made(bootstrap.NodesCAConfigMap, nodesCAText, c.nodesCA))
	}
	return all
}

func isAsWanted(stored, want *corev1.ConfigMap) bool {
	return maps.Equal(stored.Data, want.Data) && len(stored.BinaryData) == 0 &&
		stored.Annotations[descriptionKey] == want.Annotations[descriptionKey]
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
	for _, want := range c.wanted(name) {
		if err := c.ensureConfigMap(ctx, name, want); err != nil {
			return fmt.Errorf("create config map %s/%s: %w", name, want.Name, err)
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

func (c *Controller) ensureConfigMap(ctx context.Context, namespace string, want *corev1.ConfigMap) error {
	configMaps := c.configMaps.ConfigMaps(namespace)
	_, err := configMaps.Create(ctx, want, metav1.CreateOptions{})
	if !apierrors.IsAlreadyExists(err) {
		return err
	}
	_, err = controller.Change(ctx, want.Name, configMaps.Get, configMaps.Update, func(stored *corev1.ConfigMap) bool {
		if isAsWanted(stored, want) {
			return false
		}
		stored.Data, stored.BinaryData = maps.Clone(want.Data), nil
		metav1.SetMetaDataAnnotation(&stored.ObjectMeta, descriptionKey, want.Annotations[descriptionKey])
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
		// The request that creates a namespace adds the objects itself. The controller checks afterwards.
		l.controller.queue.AddAfter(key.Name, checkDelay)
	case l.name == key.Name:
		l.controller.queue.Add(key.Namespace)
	}
}
