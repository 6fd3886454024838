//go:build linux

package node

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/component-base/metrics"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"lanyard.dev/internal/files"
	"lanyard.dev/internal/node/cri"
	"lanyard.dev/internal/node/objects"
	"lanyard.dev/internal/node/pod"
	"lanyard.dev/internal/node/server"
	"lanyard.dev/internal/node/volume"
	"lanyard.dev/internal/tokenvolume"
)

// Run runs the agent until ctx ends. The pods go on running then, and the next agent with the same root directory finds
// them again.
func Run(ctx context.Context, o Options) error {
	if faults := o.Validate(); len(faults) > 0 {
		return faults.ToAggregate()
	}
	if os.Geteuid() != 0 {
		return errNotRoot
	}
	unlock, err := lockRootDir(o.RootDir)
	if err != nil {
		return err
	}
	defer unlock()
	return run(ctx, &o, clock.RealClock{})
}

// run joins the authority, takes the node's name, opens what the agent needs, and runs the agent. It closes what it opened,
// also if a later step fails. The containers and volumes of pods stay.
func run(ctx context.Context, o *Options, clock clock.WithTicker) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	identity, err := join(ctx, o)
	if err != nil {
		return err
	}
	// An authority that shuts down waits for open connections. A request that outlives its connection would open another.
	defer func() { cancel(); identity.connections.CloseAll() }()
	holder, err := takeLease(ctx, o, identity, clock)
	if err != nil {
		return err
	}
	endpoint, err := listen(ctx, o, identity.authority, clock)
	if err != nil {
		return err
	}
	defer func() { _ = endpoint.listener.Close() }()
	machine, err := readMachine(o.RootDir)
	if err != nil {
		return err
	}
	runtime, err := dialRuntime(ctx, o, holder.agent, machine.memory)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, runtime.Close()) }()
	events := newEvents(identity.client, o.NodeName)
	defer events.broadcaster.Shutdown()
	relays := newRelays(identity.authority.address())
	defer relays.CloseAll()
	agent, err := newAgent(ctx, o, &resources{identity, holder, endpoint, machine, runtime, events.recorder, relays, clock})
	if err != nil {
		return err
	}
	return agent.run(ctx)
}

// resources are what run has opened for an agent.
type resources struct {
	identity *identity
	holder   *holder
	endpoint *endpoint
	machine  machine // as it was at the start
	runtime  *cri.Runtime
	recorder record.EventRecorder
	relays   *relays
	clock    clock.WithTicker
}

// lockRootDir makes the root directory, and locks it so that no other agent uses it.
func lockRootDir(dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the agent's directory: %w", err)
	}
	lock, err := files.TryLock(filepath.Join(dir, "lock"))
	if errors.Is(err, files.ErrLocked) {
		return nil, errDirectoryInUse(dir)
	}
	if err != nil {
		return nil, fmt.Errorf("lock the agent's directory: %w", err)
	}
	return func() { _ = lock.Release() }, nil
}

// takeLease returns once no other agent runs as this node. Nothing of the node is written before.
func takeLease(ctx context.Context, o *Options, identity *identity, clock clock.Clock) (*holder, error) {
	id, err := agentID(filepath.Join(o.RootDir, "agent-id"))
	if err != nil {
		return nil, err
	}
	h := &holder{
		leases: identity.client.CoordinationV1().Leases(corev1.NamespaceNodeLease), nodes: identity.client.CoreV1().Nodes(),
		name: o.NodeName, agent: id, bootID: systemInfo().BootID, clock: clock,
	}
	return h, h.take(ctx)
}

// agentID returns the UUID in the file, which it makes if it is missing. The UUID marks this agent's Lease at the authority,
// and its containers in the runtime, which other programs may use too.
func agentID(file string) (string, error) {
	data, err := files.Read(file, files.MaxText)
	if err == nil {
		if id, err := uuid.ParseBytes([]byte(strings.TrimSpace(string(data)))); err == nil {
			return id.String(), nil
		}
		return "", fmt.Errorf("%s does not contain a UUID: restore the file, or remove the containers that the agent has started and then the file", file)
	}
	if !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	id := uuid.NewString()
	return id, files.Write(file, []byte(id+"\n"), 0o600)
}

// endpoint is where the authority reaches this agent for logs and exec.
type endpoint struct {
	addresses []net.IP
	listener  net.Listener
}

// listen listens at the node's address. If the options name none, it waits until the authority can be reached, for instance
// after both machines lost their power, and takes the address from which this machine reaches it.
func listen(ctx context.Context, o *Options, authority authority, clock clock.Clock) (*endpoint, error) {
	ip := o.NodeIP
	for delay := retryBackoff(10 * time.Second); ip == nil; {
		var err error
		if ip, err = authority.localAddress(ctx); err == nil {
			break
		}
		klog.ErrorS(err, "Could not reach the authority; trying again", "authority", authority.address())
		if !sleep(ctx, clock, delay.Step()) {
			return nil, context.Cause(ctx)
		}
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(ip.String(), strconv.Itoa(o.Port)))
	if err != nil {
		return nil, fmt.Errorf("listen for logs and exec: %w", err)
	}
	return &endpoint{[]net.IP{ip}, listener}, nil
}

func (e *endpoint) ips() []string {
	var all []string
	for _, ip := range e.addresses {
		all = append(all, ip.String())
	}
	return all
}

func (e *endpoint) port() int32 { return int32(e.listener.Addr().(*net.TCPAddr).Port) }

// dialRuntime returns the container runtime, which need not answer yet: a runtime that does not answer is reported in the Node's
// conditions, and does not end the agent. memory is the memory of the machine, in bytes.
func dialRuntime(ctx context.Context, o *Options, agentID string, memory int64) (*cri.Runtime, error) {
	runtime, err := cri.Dial(ctx, cri.Config{
		Endpoint: o.RuntimeEndpoint, AgentID: agentID, LogDir: filepath.Join(o.RootDir, "logs"), CgroupDriver: o.CgroupDriver, Memory: memory,
	})
	if err != nil {
		return nil, fmt.Errorf("connect to the container runtime at %s: %w", o.RuntimeEndpoint, err)
	}
	return runtime, nil
}

// events writes Events about pods to the authority.
type events struct {
	broadcaster record.EventBroadcaster
	recorder    record.EventRecorder
}

func newEvents(client kubernetes.Interface, nodeName string) events {
	broadcaster := record.NewBroadcaster()
	broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: client.CoreV1().Events("")})
	return events{broadcaster, broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "lanyard-agent", Host: nodeName})}
}

// agent is the assembled agent.
type agent struct {
	client          typedcorev1.CoreV1Interface
	nodeName        string
	runtimeEndpoint string
	runtime         *cri.Runtime
	volumes         *volume.Volumes
	pods            *pod.Pods
	server          *server.Server
	listener        net.Listener
	registration    *registration
	clock           clock.WithTicker
}

// newAgent assembles an agent. The volumes listen to changes of the objects, and the pods listen to both: each constructor
// registers its listener with the parts that it is given.
func newAgent(ctx context.Context, o *Options, r *resources) (*agent, error) {
	core, registry := r.identity.client.CoreV1(), metrics.NewKubeRegistry()
	allocatable := r.machine.capacity(o.MaxPods)
	objects := objects.New(ctx, core)
	volumes := newVolumes(o, r, objects, allocatable, registry)
	pods := pod.New(pod.Config{
		Runtime: r.runtime, Volumes: volumes, Objects: objects, API: pod.NewAPI(core), Recorder: r.recorder, Clock: r.clock, Metrics: registry,
		NodeName: o.NodeName, HostIPs: r.endpoint.ips(), Allocatable: allocatable, ServiceEnv: r.identity.authority.env(),
		Root: filepath.Join(o.RootDir, "pods"), OnSandbox: relaySandboxes(r),
	})
	server, err := newServer(ctx, o, r, pods, registry)
	if err != nil {
		return nil, err
	}
	return &agent{
		client: core, nodeName: o.NodeName, runtimeEndpoint: o.RuntimeEndpoint, runtime: r.runtime, volumes: volumes, pods: pods,
		server: server, listener: r.endpoint.listener, registration: newRegistration(o, r), clock: r.clock,
	}, nil
}

func newVolumes(o *Options, r *resources, objects *objects.Store, allocatable corev1.ResourceList, registry metrics.KubeRegistry) *volume.Volumes {
	return volume.New(volume.Config{
		Root: filepath.Join(o.RootDir, "volumes"), Objects: objects, Clock: r.clock, Allocatable: allocatable, Metrics: registry,
		Request: tokenvolume.RequestBy(r.identity.client.CoreV1()), Review: tokenvolume.ReviewBy(r.identity.client.AuthenticationV1()),
		Failed: func(pod *corev1.Pod, err error) {
			r.recorder.Event(pod, corev1.EventTypeWarning, "FailedRenewal", err.Error())
		},
		Refused: func(pod *corev1.Pod, why string) {
			r.recorder.Eventf(pod, corev1.EventTypeWarning, "TokenRefused", "The pod's token is replaced because %s", why)
		},
	})
}

// relaySandboxes returns the function that opens and closes the relay of a pod, so that a pod with a network of its own
// reaches an authority on this machine's loopback. It returns nil if pods reach the authority without a relay.
func relaySandboxes(r *resources) func(pod *corev1.Pod, sandboxID string, up bool) error {
	if !isLoopback(r.identity.authority.host) {
		return nil
	}
	return func(pod *corev1.Pod, sandboxID string, up bool) error {
		if pod.Spec.HostNetwork {
			return nil
		}
		if !up {
			r.relays.Close(sandboxID)
			return nil
		}
		path, err := r.runtime.NetworkNamespace(context.Background(), sandboxID)
		if err == nil && path != "" {
			err = r.relays.Open(sandboxID, path)
		}
		if err != nil {
			klog.ErrorS(err, "The pod cannot reach the authority", "pod", klog.KObj(pod))
			r.recorder.Eventf(pod, corev1.EventTypeWarning, "AuthorityUnreachable", "the authority cannot be reached from this pod: %v", err)
		}
		return err
	}
}

// newServer returns the server for logs, exec and metrics.
func newServer(ctx context.Context, o *Options, r *resources, pods *pod.Pods, registry metrics.KubeRegistry) (*server.Server, error) {
	clientCAs, err := r.identity.clientCAs(o)
	if err != nil {
		return nil, err
	}
	certificate, err := r.identity.servingCertificate(ctx, o, r.endpoint.addresses)
	if err != nil {
		return nil, err
	}
	return server.New(server.Config{
		NodeName: o.NodeName, Pods: server.View(pods.Find), Runtime: r.runtime,
		Certificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return certificate() },
		ClientCAs:   func() *x509.CertPool { return clientCAs },
		Reviews:     r.identity.client.AuthorizationV1().SubjectAccessReviews(), Tokens: r.identity.client.AuthenticationV1().TokenReviews(),
		Metrics: registry,
	})
}

func newRegistration(o *Options, r *resources) *registration {
	observer := &observer{
		runtime: r.runtime, system: systemInfo(), rootDir: o.RootDir, name: o.NodeName, addresses: r.endpoint.addresses,
		port: r.endpoint.port(), maxPods: o.MaxPods, clock: r.clock,
	}
	return &registration{
		client: r.identity.client, heartbeats: r.identity.heartbeats, reconnect: r.identity.connections.CloseAll,
		name: o.NodeName, labels: o.Labels, observe: observer.status, holder: r.holder, clock: r.clock,
	}
}

// run runs the parts until ctx ends, or one of them does.
func (a *agent) run(ctx context.Context) error {
	parts, ctx := errgroup.WithContext(ctx)
	parts.Go(func() error { return a.server.Serve(ctx, a.listener) })
	parts.Go(func() error { a.volumes.Run(ctx); return nil })
	parts.Go(func() error { return a.runPods(ctx) })
	parts.Go(func() error { a.rotateLogs(ctx); return nil })
	parts.Go(func() error {
		return a.registration.run(ctx, func() {
			parts.Go(func() error { a.watchPods(ctx); return nil })
		})
	})
	return parts.Wait()
}

// runPods waits until the runtime has returned its name, which is a part of containers' IDs, and runs the pods. The node is
// registered meanwhile, and its conditions report why it is not ready.
func (a *agent) runPods(ctx context.Context) error {
	for delay := retryBackoff(5 * time.Second); ; {
		name, version, err := a.runtime.Version(ctx)
		if err == nil {
			klog.InfoS("The container runtime answers", "endpoint", a.runtimeEndpoint, "name", name, "version", version)
			return a.pods.Run(ctx, name)
		}
		klog.ErrorS(err, "The container runtime does not answer; trying again", "endpoint", a.runtimeEndpoint)
		if !sleep(ctx, a.clock, delay.Step()) {
			return nil
		}
	}
}

// logRotationPeriod is how often containers' logs are checked for rotation, the same as kubelet's.
const logRotationPeriod = 10 * time.Second

func (a *agent) rotateLogs(ctx context.Context) {
	for sleep(ctx, a.clock, logRotationPeriod) {
		if err := a.runtime.RotateLogs(ctx); err != nil && ctx.Err() == nil {
			klog.V(2).InfoS("Not every long log was rotated", "err", err)
		}
	}
}

// watchPods passes the pods that are bound to this node to the workers, until ctx ends.
func (a *agent) watchPods(ctx context.Context) {
	bound := fields.OneTermEqualSelector("spec.nodeName", a.nodeName)
	_, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: cache.NewListWatchFromClient(a.client.RESTClient(), "pods", metav1.NamespaceAll, bound),
		ObjectType:    &corev1.Pod{},
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    func(obj any) { a.pods.Set(obj.(*corev1.Pod)) },
			UpdateFunc: func(_, obj any) { a.pods.Set(obj.(*corev1.Pod)) },
			DeleteFunc: a.removePod,
		},
	})
	go func() {
		if cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
			a.pods.Synced()
		}
	}()
	informer.RunWithContext(ctx)
}

func (a *agent) removePod(obj any) {
	if last, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = last.Obj
	}
	if pod, ok := obj.(*corev1.Pod); ok {
		a.pods.Remove(pod.Namespace, pod.Name, pod.UID)
	}
}
