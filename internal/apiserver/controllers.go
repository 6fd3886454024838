package apiserver

import (
	"context"
	"fmt"
	"os"

	"github.com/google/uuid"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/utils/clock"

	namespaceregistry "lanyard.dev/internal/apiserver/registry/namespace"
	"lanyard.dev/internal/controller/accountsecrets"
	"lanyard.dev/internal/controller/aggregation"
	"lanyard.dev/internal/controller/certificates"
	"lanyard.dev/internal/controller/events"
	"lanyard.dev/internal/controller/execlease"
	"lanyard.dev/internal/controller/namespace"
	"lanyard.dev/internal/controller/namespacedefaults"
	"lanyard.dev/internal/controller/nodeapproval"
	"lanyard.dev/internal/controller/nodelife"
	"lanyard.dev/internal/controller/orphans"
	defaultpolicy "lanyard.dev/internal/controller/policy"
	"lanyard.dev/internal/controller/scheduler"
	"lanyard.dev/internal/controller/tokencleaner"
	"lanyard.dev/internal/pki"
	"lanyard.dev/internal/rbac/bootstrap"
)

// loop is a controller, or a part of one, that runs until its context ends.
type loop interface {
	Run(ctx context.Context)
}

// controllers are all loops that change objects in the background.
type controllers []loop

// run starts every loop. They end with ctx.
func (c controllers) run(ctx context.Context) {
	for _, each := range c {
		go each.Run(ctx)
	}
}

// newNamespaceDefaults returns the controller that keeps the default objects in each namespace. Its method Namespace is
// called in each request that makes a namespace.
func newNamespaceDefaults(k *keys, s *storage) *namespacedefaults.Controller {
	c := namespacedefaults.New(s.stores.namespaces.Namespace, s.stores.serviceAccounts, s.stores.configMaps, k.rootCA, k.nodesCA)
	s.feed("serviceaccounts").Listen(c.Accounts())
	s.feed("configmaps").Listen(c.ConfigMaps())
	s.feed("configmaps").Listen(c.NodesCA())
	s.feed("namespaces").Listen(c.Namespaces())
	return c
}

// newControllers returns every controller. Each listens to the feeds of its resources.
func newControllers(o *Options, k *keys, s *storage, p policy, i identity, defaults *namespacedefaults.Controller) controllers {
	recorder := events.New(s.stores.events, s.stores.namespaces.Namespace)
	all := controllers{defaults, recorder, newTerminator(s), newAggregator(s), newAccountSecrets(s), newTokenCleaner(s)}
	all = append(all, newCertificateControllers(o, k, s, p, i)...)
	return append(all, newPodControllers(s, recorder, o.Etcd.SoleWriter)...)
}

// newTerminator returns the controller that empties namespaces that are deleted.
func newTerminator(s *storage) *namespace.Controller {
	contents := map[schema.GroupResource]namespace.Content{}
	for resource, store := range s.stores.Namespaced() {
		contents[resource] = store
	}
	namespaces := s.stores.namespaces
	c := namespace.New(namespaces.Namespace, namespaces.Finalize, namespaces.Status, contents)
	s.feed("namespaces").Listen(c)
	return c
}

// newAggregator returns the controller that computes the rules of aggregated ClusterRoles.
func newAggregator(s *storage) *aggregation.Controller {
	c := aggregation.New(s.stores.clusterRoles)
	s.mirror.Feed(rbacv1.Resource("clusterroles")).Listen(c)
	return c
}

// newAccountSecrets returns the controller that removes the token Secrets of accounts that are deleted.
func newAccountSecrets(s *storage) *accountsecrets.Controller {
	c := accountsecrets.New(s.stores.secrets, s.stores.serviceAccounts)
	s.feed("secrets").Listen(c.Secrets())
	s.feed("serviceaccounts").Listen(c.Accounts())
	return c
}

// newTokenCleaner returns the controller that removes bootstrap tokens that have expired.
func newTokenCleaner(s *storage) *tokencleaner.Controller {
	c := tokencleaner.New(s.stores.secrets, clock.RealClock{})
	s.feed("secrets").Listen(c)
	return c
}

// newCertificateControllers returns the controllers that approve the certificate requests of nodes and sign approved
// requests.
func newCertificateControllers(o *Options, k *keys, s *storage, p policy, i identity) controllers {
	// servesAs reports whether clients would accept a server with a node's certificate for this name as this authority.
	servesAs := func(name string) bool {
		if o.Signing.ServingCertFile != "" {
			return false // clients do not trust that CA
		}
		text, _ := k.serving.CurrentCertKeyContent()
		chain, err := pki.ParseChain(text)
		return err != nil || chain[0].VerifyHostname(name) == nil // if the certificate cannot be read, assume that it has this name
	}
	requests, feed := s.stores.requests, s.mirror.Feed(certificateRequests)
	approver := nodeapproval.New(requests.Request, requests.Approval, p.authorizer, servesAs, i.evictions.AdmitsUser, clock.RealClock{})
	feed.Listen(approver)
	signer := certificates.New(requests.Request, requests.Status, k.signing, i.evictions, o.Signing.Duration, clock.RealClock{})
	feed.Listen(signer)
	return controllers{approver, signer}
}

// newPodControllers returns the controllers of pods and of the nodes that run them.
func newPodControllers(s *storage, recorder *events.Recorder, soleWriter bool) controllers {
	st, real := s.stores, clock.RealClock{}
	scheduling := scheduler.Config{
		Pods: st.pods.Pod, Status: st.pods.Status, Binding: st.pods.Binding, Events: recorder.For(scheduler.Name), Clock: real,
	}
	if !soleWriter {
		scheduling.Leases, scheduling.Identity = st.leases, replicaName()
	}
	placing := scheduler.New(scheduling)
	life := nodelife.New(nodelife.Config{
		Nodes: st.nodes, NodeStatus: st.nodeStatus, PodStatus: st.pods.Status, Leases: st.leases, Events: recorder.For(nodelife.Name), Clock: real,
	})
	orphaned := orphans.New(st.pods.Pod, st.nodes, real)
	processes := execlease.New(st.pods.Pod, recorder.For(execlease.Name), real)

	pods, nodes := s.feed("pods"), s.feed("nodes")
	pods.Listen(placing.PodFeed())
	pods.Listen(life.PodFeed())
	pods.Listen(orphaned.PodFeed())
	pods.Listen(processes)
	nodes.Listen(placing.NodeFeed())
	nodes.Listen(life.NodeFeed())
	nodes.Listen(orphaned.NodeFeed())
	s.mirror.Feed(coordinationv1.Resource("leases")).Listen(life.LeaseFeed())
	return controllers{placing, life, orphaned, processes}
}

// replicaName returns a name of this process that no other replica has, for Leases.
func replicaName() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return host + "_" + uuid.NewString()
}

// systemNamespaces exist in every authority, as in every cluster.
var systemNamespaces = []string{
	metav1.NamespaceDefault, metav1.NamespaceSystem, metav1.NamespacePublic, corev1.NamespaceNodeLease,
}

// writeDefaults makes the system namespaces and the default policy. It runs at each start and changes no object that
// exists, except for adding to the default roles and bindings what they lack.
func writeDefaults(ctx context.Context, s *storage, addDefaults namespaceregistry.AddDefaults) error {
	ctx = request.WithNamespace(ctx, metav1.NamespaceNone)
	namespaces := namespaceregistry.NewREST(s.stores.namespaces.Namespace, addDefaults)
	for _, name := range systemNamespaces {
		made := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
		s.scheme.Default(made)
		_, err := namespaces.Create(ctx, made, rest.ValidateAllObjectFunc, &metav1.CreateOptions{})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("make namespace %s: %w", name, err)
		}
	}
	into := defaultpolicy.Stores{
		ClusterRoles: s.stores.clusterRoles, ClusterRoleBindings: s.stores.clusterRoleBindings, Roles: s.stores.roles, RoleBindings: s.stores.roleBindings,
	}
	return defaultpolicy.Reconcile(ctx, into, defaultpolicy.Defaults{
		ClusterRoles: bootstrap.ClusterRoles(), ClusterRoleBindings: bootstrap.ClusterRoleBindings(),
		Roles: bootstrap.Roles(), RoleBindings: bootstrap.RoleBindings(),
	})
}
