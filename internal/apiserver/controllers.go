package apiserver

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/google/uuid"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"lanyard.dev/internal/apiserver/issuance"
	"lanyard.dev/internal/apiserver/loopback"
	namespaceregistry "lanyard.dev/internal/apiserver/registry/namespace"
	"lanyard.dev/internal/controller"
	"lanyard.dev/internal/controller/aggregation"
	"lanyard.dev/internal/controller/certificates"
	"lanyard.dev/internal/controller/namespace"
	"lanyard.dev/internal/controller/namespacedefaults"
	"lanyard.dev/internal/controller/nodelifecycle"
	"lanyard.dev/internal/controller/podgc"
	defaultpolicy "lanyard.dev/internal/controller/policy"
	"lanyard.dev/internal/controller/scheduler"
	"lanyard.dev/internal/controller/tokensecrets"
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

// close ends loops that were not run. Each has a queue with goroutines, which ends with the loop.
func (c controllers) close() {
	ended, end := context.WithCancel(context.Background())
	end()
	for _, each := range c {
		each.Run(ended)
	}
}

// clients are the clients of the controllers, by the names of the controllers.
type clients struct {
	byName map[string]kubernetes.Interface
	// contents is another client of the namespace controller, for objects of every kind.
	contents metadata.Interface
}

// newClients returns the clients. Their calls fail until the server exists.
func newClients(l *loopback.Loopback) (clients, error) {
	c := clients{byName: map[string]kubernetes.Interface{}}
	for _, name := range bootstrap.Controllers() {
		client, err := l.Client(bootstrap.ControllerUser(name))
		if err != nil {
			return clients{}, fmt.Errorf("controller %s: %w", name, err)
		}
		c.byName[name] = client
	}
	var err error
	c.contents, err = metadata.NewForConfig(l.Config(bootstrap.ControllerUser(bootstrap.NamespaceController)))
	return c, err
}

// newNamespaceDefaults returns the controller that keeps the default objects in each namespace. Its method Ensure is
// called in each request that creates a namespace.
func newNamespaceDefaults(k *keys, s *storage, c clients) *namespacedefaults.Controller {
	made := namespacedefaults.New(namespacedefaults.Config{
		Accounts: c.byName[bootstrap.ServiceAccountController], ConfigMaps: c.byName[bootstrap.RootCAPublisher],
		RootCA: k.rootCA, NodesCA: k.nodesCA,
	})
	s.feed("serviceaccounts").Listen(made.Accounts())
	s.feed("configmaps").Listen(made.RootCAs())
	s.feed("configmaps").Listen(made.NodesCA())
	s.feed("namespaces").Listen(made.Namespaces())
	return made
}

// newControllers returns every controller. Each listens to the feeds of its resources, and writes through its own
// client.
func newControllers(o *Options, k *keys, s *storage, p policy, i identity, journal *issuance.Journal, c clients, defaults *namespacedefaults.Controller) controllers {
	all := controllers{defaults, newTerminator(s, c), newAggregator(s, c)}
	all = append(all, newTokenControllers(s, c)...)
	all = append(all, newCertificateControllers(o, k, s, p, i, journal, c)...)
	return append(all, newPodControllers(s, p, c, o.Etcd.SoleWriter)...)
}

// newTerminator returns the controller that deletes the content of namespaces that are being deleted.
func newTerminator(s *storage, c clients) *namespace.Controller {
	made := namespace.New(c.byName[bootstrap.NamespaceController], c.contents, s.namespacedResources())
	s.feed("namespaces").Listen(made)
	return made
}

// namespacedResources returns the stored resources that are in namespaces, each in the version in which it is stored.
func (s *storage) namespacedResources() (all []schema.GroupVersionResource) {
	stored := s.stores.Namespaced()
	for _, group := range s.tables {
		for resource := range stored {
			if resource.Group == group.Name {
				all = append(all, resource.WithVersion(group.Versions[0].Name))
			}
		}
	}
	slices.SortFunc(all, func(a, b schema.GroupVersionResource) int { return strings.Compare(a.String(), b.String()) })
	return all
}

// newAggregator returns the controller that computes the rules of aggregated ClusterRoles.
func newAggregator(s *storage, c clients) *aggregation.Controller {
	made := aggregation.New(c.byName[bootstrap.ClusterRoleAggregationController])
	s.mirror.Feed(rbacv1.Resource("clusterroles")).Listen(made)
	return made
}

// newTokenControllers returns the controllers that delete the Secrets of bootstrap tokens that have expired, and of
// service accounts that are gone.
func newTokenControllers(s *storage, c clients) controllers {
	accounts := tokensecrets.NewAccountCleaner(c.byName[bootstrap.ServiceAccountTokenController])
	s.feed("secrets").Listen(accounts.Secrets())
	s.feed("serviceaccounts").Listen(accounts.Accounts())
	expired := tokensecrets.NewBootstrapCleaner(c.byName[bootstrap.TokenCleaner], clock.RealClock{})
	s.feed("secrets").Listen(expired)
	return controllers{accounts, expired}
}

// newCertificateControllers returns the controllers that approve the certificate requests of nodes and sign approved
// requests.
func newCertificateControllers(o *Options, k *keys, s *storage, p policy, i identity, journal *issuance.Journal, c clients) controllers {
	// servesAs reports whether clients would accept a server with a node's certificate for this name as this authority.
	servesAs := func(name string) bool {
		if o.Signing.ServingCertFile != "" {
			return false // clients do not trust that CA
		}
		text, _ := k.serving.CurrentCertKeyContent()
		chain, err := pki.ParseChain(text)
		return err != nil || chain[0].VerifyHostname(name) == nil // if the certificate cannot be read, assume that it has this name
	}
	client, feed := c.byName[bootstrap.CertificateController], s.mirror.Feed(certificateRequests)
	approver := certificates.NewApprover(certificates.ApproverConfig{
		Client: client, Authorizer: p.authorizer, Taken: servesAs, Admits: i.evictions.AdmitsUser, Clock: clock.RealClock{},
	})
	feed.Listen(approver)
	signer := certificates.NewSigner(certificates.SignerConfig{
		Client: client, CA: k.signing, Nodes: i.evictions, Record: journal.RecordCertificate, Longest: o.Signing.Duration, Clock: clock.RealClock{},
	})
	feed.Listen(signer)
	return controllers{approver, signer}
}

// newPodControllers returns the controllers of pods and of the nodes that run them. The index of pods by node listens
// before them.
func newPodControllers(s *storage, p policy, c clients, soleWriter bool) controllers {
	events := func(component, name string) *controller.Recorder {
		return controller.NewRecorder(component, c.byName[name])
	}
	schedulerEvents := events(scheduler.Component, bootstrap.Scheduler)
	nodeEvents := events(nodelifecycle.Component, bootstrap.NodeController)
	processEvents := events(podgc.ProcessComponent, bootstrap.PodGarbageCollector)
	identity := ""
	if !soleWriter {
		identity = replicaName()
	}
	binding := scheduler.New(scheduler.Config{
		Client: c.byName[bootstrap.Scheduler], Pods: p.pods, Events: schedulerEvents, Clock: clock.RealClock{}, Identity: identity,
	})
	life := nodelifecycle.New(nodelifecycle.Config{
		Client: c.byName[bootstrap.NodeController], Pods: p.pods, Events: nodeEvents, Clock: clock.RealClock{},
	})
	orphans := podgc.NewOrphans(c.byName[bootstrap.PodGarbageCollector], p.pods, clock.RealClock{})
	processes := podgc.NewProcesses(c.byName[bootstrap.PodGarbageCollector], processEvents, clock.RealClock{})

	pods, nodes := s.feed("pods"), s.feed("nodes")
	pods.Listen(binding.PodListener())
	pods.Listen(orphans.Pods())
	pods.Listen(processes)
	nodes.Listen(binding.NodeListener())
	nodes.Listen(life.Nodes())
	nodes.Listen(orphans.Nodes())
	s.mirror.Feed(coordinationv1.Resource("leases")).Listen(life.Leases())
	return controllers{schedulerEvents, nodeEvents, processEvents, binding, life, orphans, processes}
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
// exists, except for adding to the default roles and bindings what they lack. The cluster-wide policy comes first,
// since the controller that puts the default objects into namespaces has its rights from it.
func writeDefaults(ctx context.Context, s *storage, addDefaults namespaceregistry.AddDefaults) error {
	ctx = request.WithNamespace(ctx, metav1.NamespaceNone)
	into := defaultpolicy.Stores{
		ClusterRoles: s.stores.clusterRoles, ClusterRoleBindings: s.stores.clusterRoleBindings, Roles: s.stores.roles, RoleBindings: s.stores.roleBindings,
	}
	err := defaultpolicy.Reconcile(ctx, into, defaultpolicy.Defaults{
		ClusterRoles:        slices.Concat(bootstrap.ClusterRoles(), bootstrap.ControllerRoles()),
		ClusterRoleBindings: slices.Concat(bootstrap.ClusterRoleBindings(), bootstrap.ControllerRoleBindings()),
	})
	if err != nil {
		return err
	}
	namespaces := namespaceregistry.NewREST(s.stores.namespaces, addDefaults)
	for _, name := range systemNamespaces {
		made := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
		s.scheme.Default(made)
		stored, err := namespaces.Create(ctx, made, rest.ValidateAllObjectFunc, &metav1.CreateOptions{})
		switch {
		case err == nil || apierrors.IsAlreadyExists(err):
		case stored == nil:
			return fmt.Errorf("make namespace %s: %w", name, err)
		default:
			// A strict audit log that cannot be written refuses the calls of controllers too. They try again later.
			klog.ErrorS(err, "Could not add the default objects to a namespace; trying again later", "namespace", name)
		}
	}
	return defaultpolicy.Reconcile(ctx, into, defaultpolicy.Defaults{Roles: bootstrap.Roles(), RoleBindings: bootstrap.RoleBindings()})
}
