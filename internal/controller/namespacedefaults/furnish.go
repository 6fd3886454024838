// Package namespacedefaults keeps in every namespace what every namespace holds: the service account "default" and the ConfigMap
// kube-root-ca.crt. In kube-public it also keeps the ConfigMap kubelet-serving-ca.
//
// The server calls Namespace before it answers the request that made a namespace; the loop restores what is deleted or
// changed later. It knows stores, not HTTP.
package namespacedefaults

import (
	"context"
	"fmt"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/client-go/util/workqueue"

	"lanyard.dev/internal/controller"
	"lanyard.dev/internal/rbac/bootstrap"
)

const (
	// AccountName and ConfigMapName are the objects every namespace holds.
	AccountName   = "default"
	ConfigMapName = "kube-root-ca.crt"
	// NodesCAName is the ConfigMap, in kube-public alone, with the CA of what nodes serve with. It must not be trusted for the API
	// server, and so is kept apart.
	NodesCAName = bootstrap.NodesCAConfigMap

	caKey           = "ca.crt"
	descriptionKey  = "kubernetes.io/description"
	descriptionText = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters."
	nodesCAText     = "Contains a CA bundle that can be used to verify what nodes serve with, such as their metrics. It is not to be used for the API server."
)

// Store is the part of a resource's store that is used.
type Store interface {
	rest.Getter
	rest.Creater
	rest.Updater
	rest.GracefulDeleter
}

// Controller furnishes namespaces.
type Controller struct {
	namespaces           rest.Getter
	accounts, configMaps Store
	rootCA, nodesCA      string
	queue                workqueue.TypedRateLimitingInterface[string]
}

// New returns a controller that publishes rootCA in every namespace, and nodesCA in kube-public unless it is empty. Both are
// certificates in PEM.
func New(namespaces rest.Getter, accounts, configMaps Store, rootCA, nodesCA []byte) *Controller {
	return &Controller{
		namespaces: namespaces, accounts: accounts, configMaps: configMaps, rootCA: string(rootCA), nodesCA: string(nodesCA),
		queue: workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[string](20*time.Millisecond, time.Minute)),
	}
}

// Run restores what goes missing until ctx ends.
func (c *Controller) Run(ctx context.Context) {
	controller.Work(ctx, c.queue, "furnish namespace", c.restore)
}

func (c *Controller) restore(ctx context.Context, name string) error {
	if ending, err := c.ending(ctx, name); err != nil || ending {
		return err
	}
	return c.Namespace(ctx, name)
}

func (c *Controller) ending(ctx context.Context, name string) (bool, error) {
	found, err := c.namespaces.Get(ctx, name, &metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("look up namespace %s: %w", name, err)
	}
	return found.(*corev1.Namespace).Status.Phase == corev1.NamespaceTerminating, nil
}

// Namespace puts these objects into a namespace that exists. It is idempotent.
func (c *Controller) Namespace(ctx context.Context, name string) error {
	ctx = request.WithNamespace(ctx, name)
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: AccountName, Namespace: name}}
	if _, err := c.accounts.Create(ctx, account, rest.ValidateAllObjectFunc, &metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("make service account %s/%s: %w", name, AccountName, err)
	}
	if err := c.configMap(ctx, name, ConfigMapName, descriptionText, c.rootCA); err != nil {
		return fmt.Errorf("make config map %s/%s: %w", name, ConfigMapName, err)
	}
	if name == metav1.NamespacePublic && c.nodesCA != "" {
		if err := c.configMap(ctx, name, NodesCAName, nodesCAText, c.nodesCA); err != nil {
			return fmt.Errorf("make config map %s/%s: %w", name, NodesCAName, err)
		}
	}
	return c.retreat(ctx, name)
}

// retreat takes the objects back where the namespace has begun to end meanwhile: whoever empties it may have looked
// before they came, and would then leave them behind.
func (c *Controller) retreat(ctx context.Context, name string) error {
	if ending, err := c.ending(ctx, name); err != nil || !ending {
		return err
	}
	made := map[string]Store{AccountName: c.accounts, ConfigMapName: c.configMaps}
	if name == metav1.NamespacePublic {
		made[NodesCAName] = c.configMaps
	}
	for object, store := range made {
		_, _, err := store.Delete(ctx, object, rest.ValidateAllObjectFunc, &metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("take %s out of namespace %s, which is ending: %w", object, name, err)
		}
	}
	return nil
}

func (c *Controller) configMap(ctx context.Context, namespace, name, description, ca string) error {
	want := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Namespace: namespace, Annotations: map[string]string{descriptionKey: description},
		},
		Data: map[string]string{caKey: ca},
	}
	_, err := c.configMaps.Create(ctx, want, rest.ValidateAllObjectFunc, &metav1.CreateOptions{})
	if !apierrors.IsAlreadyExists(err) {
		return err
	}
	set := controller.Change(func(stored *corev1.ConfigMap) {
		stored.Data, stored.BinaryData = maps.Clone(want.Data), nil
		metav1.SetMetaDataAnnotation(&stored.ObjectMeta, descriptionKey, description)
	})
	_, _, err = c.configMaps.Update(ctx, name, set,
		rest.ValidateAllObjectFunc, rest.ValidateAllObjectUpdateFunc, false, &metav1.UpdateOptions{})
	return err
}

// Listener tells the controller of changes to one of its three resources.
type Listener struct {
	controller *Controller
	// name picks the objects that matter; empty means the namespaces themselves.
	name string
	// setAlso says that a change means work too, not only a removal.
	setAlso bool
}

// Accounts listens to the feed of service accounts.
func (c *Controller) Accounts() *Listener { return &Listener{controller: c, name: AccountName} }

// ConfigMaps listens to the feed of config maps.
func (c *Controller) ConfigMaps() *Listener {
	return &Listener{controller: c, name: ConfigMapName, setAlso: true}
}

// NodesCA listens to the feed of config maps.
func (c *Controller) NodesCA() *Listener {
	return &Listener{controller: c, name: NodesCAName, setAlso: true}
}

// Namespaces listens to the feed of namespaces.
func (c *Controller) Namespaces() *Listener { return &Listener{controller: c, setAlso: true} }

// Set implements mirror.Listener.
func (l *Listener) Set(obj runtime.Object) {
	if l.setAlso {
		l.Delete(obj)
	}
}

// Delete implements mirror.Listener.
func (l *Listener) Delete(obj runtime.Object) {
	m, err := meta.Accessor(obj)
	if err != nil {
		return
	}
	switch l.name {
	case "":
		l.controller.queue.Add(m.GetName())
	case m.GetName():
		l.controller.queue.Add(m.GetNamespace())
	}
}
