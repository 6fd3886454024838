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
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
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
	if err := o.Validate(); err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return errNotRoot
	}
	release, err := claim(o.RootDir)
	if err != nil {
		return err
	}
	defer release()
	a := &agent{options: &o, clock: clock.RealClock{}, metrics: metrics.NewKubeRegistry()}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := a.assemble(ctx); err != nil {
		return errors.Join(err, a.close())
	}
	return errors.Join(a.run(ctx), a.close())
}

// agent holds the parts of one agent.
type agent struct {
	options *Options
	clock   clock.WithTicker

	identity  *identity
	id        string // marks what is this agent's, in the runtime and at the authority
	holder    *holder
	authority authority
	addresses []net.IP
	listener  net.Listener
	machine   machine // as it was at the start
	runtime   *cri.Runtime
	events    record.EventBroadcaster
	recorder  record.EventRecorder
	relays    *relays // nil where pods reach the authority by themselves
	objects   *objects.Store
	volumes   *volume.Volumes
	pods      *pod.Pods
	server    *server.Server
	register  *registration
	metrics   metrics.KubeRegistry
}

// claim makes the root directory and takes it for this process alone.
func claim(dir string) (release func(), err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the agent's directory: %w", err)
	}
	lock, err := files.TryLock(filepath.Join(dir, "lock"))
	if errors.Is(err, files.ErrLocked) {
		return nil, inUse(dir)
	}
	if err != nil {
		return nil, fmt.Errorf("lock the agent's directory: %w", err)
	}
	return func() { _ = lock.Release() }, nil
}

func (a *agent) assemble(ctx context.Context) error {
	for _, step := range []func(context.Context) error{a.connect, a.hold, a.listen, a.dial, a.deliver, a.serve} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// connect finds the authority and becomes the node.
func (a *agent) connect(ctx context.Context) (err error) {
	if a.identity, err = join(ctx, a.options); err != nil {
		return err
	}
	if a.authority, err = parseAuthority(a.identity.config.Host); err != nil {
		return err
	}
	if isNeeded(a.authority.host) {
		a.relays = newRelays(a.authority.address())
	}
	a.events = record.NewBroadcaster()
	a.events.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: a.identity.client.CoreV1().Events("")})
	a.recorder = a.events.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "lanyard-agent", Host: a.options.NodeName})
	return nil
}

// hold makes sure that no other agent runs as this node, before anything of it is written.
func (a *agent) hold(ctx context.Context) (err error) {
	if a.id, err = agentID(filepath.Join(a.options.RootDir, "agent-id")); err != nil {
		return err
	}
	a.holder = &holder{
		leases: a.identity.client.CoordinationV1().Leases(corev1.NamespaceNodeLease), nodes: a.identity.client.CoreV1().Nodes(),
		name: a.options.NodeName, agent: a.id, bootID: systemInfo().BootID, clock: a.clock,
	}
	return a.holder.take(ctx)
}

// listen takes the address at which the authority will look for this agent. An authority that cannot be reached yet is
// waited for, as after both machines lost their power.
func (a *agent) listen(ctx context.Context) (err error) {
	ip := a.options.NodeIP
	for delay := pace(10 * time.Second); ip == nil; {
		if ip, err = a.authority.localAddress(ctx); err == nil {
			break
		}
		klog.ErrorS(err, "Trying again", "authority", a.authority.address())
		if !pause(ctx, a.clock, delay.Step()) {
			return context.Cause(ctx)
		}
	}
	a.addresses = []net.IP{ip}
	a.listener, err = net.Listen("tcp", net.JoinHostPort(ip.String(), strconv.Itoa(a.options.Port)))
	if err != nil {
		return fmt.Errorf("listen for logs and exec: %w", err)
	}
	return nil
}

// dial connects to the container runtime. Whether it answers is the Node's condition, not a reason to end.
func (a *agent) dial(ctx context.Context) (err error) {
	if a.machine, err = readMachine(a.options.RootDir); err != nil {
		return err
	}
	a.runtime, err = cri.Dial(ctx, cri.Config{
		Endpoint: a.options.RuntimeEndpoint, AgentID: a.id, LogDir: filepath.Join(a.options.RootDir, "logs"), CgroupDriver: a.options.CgroupDriver,
		Memory: a.machine.memory,
	})
	if err != nil {
		return fmt.Errorf("connect to the container runtime at %s: %w", a.options.RuntimeEndpoint, err)
	}
	return nil
}

// agentID returns what marks this agent's containers in the runtime, which others may use too.
func agentID(file string) (string, error) {
	data, err := os.ReadFile(file)
	if err == nil {
		if id, err := uuid.ParseBytes([]byte(strings.TrimSpace(string(data)))); err == nil {
			return id.String(), nil
		}
		return "", fmt.Errorf("%s holds no UUID: put back the one that was there, or remove the containers it marked and then the file", file)
	}
	if !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	id := uuid.NewString()
	return id, files.Write(file, []byte(id+"\n"), 0o600)
}

// deliver puts together what gives pods their volumes and runs them.
func (a *agent) deliver(ctx context.Context) error {
	core := a.identity.client.CoreV1()
	a.objects = objects.New(ctx, core)
	allocatable := a.machine.capacity(a.options.MaxPods)
	a.volumes = volume.New(volume.Config{
		Root: filepath.Join(a.options.RootDir, "volumes"), Objects: a.objects, Request: tokenvolume.RequestBy(core), Clock: a.clock,
		Review:      tokenvolume.ReviewBy(a.identity.client.AuthenticationV1()),
		Allocatable: func() corev1.ResourceList { return allocatable },
		OnRenew:     func(pod *corev1.Pod, volumes []string) { a.pods.Renewed(pod, volumes) },
		Failed: func(pod *corev1.Pod, err error) {
			a.recorder.Event(pod, corev1.EventTypeWarning, "FailedRenewal", err.Error())
		},
		Refused: func(pod *corev1.Pod, why string) {
			a.recorder.Eventf(pod, corev1.EventTypeWarning, "TokenRefused", "The pod's token is replaced, since %s", why)
		},
	})
	a.volumes.Register(a.metrics)
	a.pods = pod.New(pod.Config{
		Runtime: a.runtime, Volumes: a.volumes, Objects: a.objects, API: pod.NewAPI(core), Recorder: a.recorder, Clock: a.clock,
		NodeName: a.options.NodeName, HostIPs: a.hostIPs(), Allocatable: allocatable, ServiceEnv: a.authority.env(),
		Root: filepath.Join(a.options.RootDir, "pods"), OnSandbox: a.relay,
	})
	a.pods.Register(a.metrics)
	a.objects.OnChange(a.pods.ObjectChanged)
	return nil
}

// runtimeName waits for the runtime to say what it is: containers' IDs are told with it.
func (a *agent) runtimeName(ctx context.Context) (string, error) {
	delay := pace(5 * time.Second)
	for {
		name, version, err := a.runtime.Version(ctx)
		if err == nil {
			klog.InfoS("The container runtime answers", "endpoint", a.options.RuntimeEndpoint, "name", name, "version", version)
			return name, nil
		}
		klog.ErrorS(err, "The container runtime does not answer; trying again", "endpoint", a.options.RuntimeEndpoint)
		if !pause(ctx, a.clock, delay.Step()) {
			return "", context.Cause(ctx)
		}
	}
}

func (a *agent) hostIPs() []string {
	var all []string
	for _, ip := range a.addresses {
		all = append(all, ip.String())
	}
	return all
}

// relay lets a pod with a network of its own reach an authority on this machine's loopback.
func (a *agent) relay(pod *corev1.Pod, sandboxID string, up bool) error {
	if a.relays == nil || pod.Spec.HostNetwork {
		return nil
	}
	if !up {
		a.relays.Close(sandboxID)
		return nil
	}
	path, err := a.runtime.NetworkNamespace(context.Background(), sandboxID)
	if err == nil && path != "" {
		err = a.relays.Open(sandboxID, path)
	}
	if err != nil {
		klog.ErrorS(err, "The pod cannot reach the authority", "pod", klog.KObj(pod))
		a.recorder.Eventf(pod, corev1.EventTypeWarning, "AuthorityUnreachable", "the authority cannot be reached from this pod: %v", err)
	}
	return err
}

// serve puts together what kubectl's logs and exec meet, and what the Node says.
func (a *agent) serve(ctx context.Context) error {
	certificate, err := a.identity.serving(ctx, a.options, a.addresses)
	if err != nil {
		return err
	}
	clients, err := a.identity.clientCAs(a.options)
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(clients) {
		return errors.New("the client CA holds no certificate")
	}
	a.server, err = server.New(server.Config{
		NodeName: a.options.NodeName, Pods: server.View(a.pods.Find), Runtime: a.runtime,
		Certificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return certificate() },
		ClientCAs:   func() *x509.CertPool { return pool },
		Reviews:     a.identity.client.AuthorizationV1().SubjectAccessReviews(), Tokens: a.identity.client.AuthenticationV1().TokenReviews(),
		Metrics: a.metrics,
	})
	if err != nil {
		return err
	}
	observer := &observer{
		runtime: a.runtime, system: systemInfo(), rootDir: a.options.RootDir, name: a.options.NodeName, addresses: a.addresses,
		port: int32(a.listener.Addr().(*net.TCPAddr).Port), maxPods: a.options.MaxPods, clock: a.clock,
	}
	a.register = &registration{
		client: a.identity.client, heartbeats: a.identity.heartbeats, reconnect: a.identity.connections.CloseAll, name: a.options.NodeName, labels: a.options.Labels, observe: observer.status, holder: a.holder, clock: a.clock,
	}
	return nil
}

// run runs the parts until ctx ends, or one of them does.
func (a *agent) run(ctx context.Context) error {
	parts, ctx := errgroup.WithContext(ctx)
	parts.Go(func() error { return a.server.Serve(ctx, a.listener) })
	parts.Go(func() error { a.volumes.Run(ctx); return nil })
	parts.Go(func() error { return a.runPods(ctx) })
	parts.Go(func() error { a.rotateLogs(ctx); return nil })
	parts.Go(func() error {
		return a.register.run(ctx, func(node *corev1.Node) {
			parts.Go(func() error { return a.watchPods(ctx) })
		})
	})
	return parts.Wait()
}

// runPods runs the pods once the runtime has said what it is. The node is registered meanwhile: that it is not ready, and
// why, is what its conditions say.
func (a *agent) runPods(ctx context.Context) (err error) {
	if a.pods.RuntimeName, err = a.runtimeName(ctx); err != nil {
		return nil // ctx has ended
	}
	return a.pods.Run(ctx)
}

// rotateEvery is how often it is looked for logs that have become long: as often as kubelets do.
const rotateEvery = 10 * time.Second

func (a *agent) rotateLogs(ctx context.Context) {
	for pause(ctx, a.clock, rotateEvery) {
		if err := a.runtime.RotateLogs(ctx); err != nil && ctx.Err() == nil {
			klog.V(2).InfoS("Not every long log was rotated", "err", err)
		}
	}
}

// watchPods tells of the pods that are bound to this node, as the authority has them.
func (a *agent) watchPods(ctx context.Context) error {
	pods := a.identity.client.CoreV1().Pods(metav1.NamespaceAll)
	mine := fields.OneTermEqualSelector("spec.nodeName", a.options.NodeName).String()
	store, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: &cache.ListWatch{
			ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
				options.FieldSelector = mine
				return pods.List(ctx, options)
			},
			WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
				options.FieldSelector = mine
				return pods.Watch(ctx, options)
			},
		},
		ObjectType: &corev1.Pod{},
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    func(obj any) { a.pods.Set(obj.(*corev1.Pod)) },
			UpdateFunc: func(_, obj any) { a.pods.Set(obj.(*corev1.Pod)) },
			DeleteFunc: a.removed,
		},
	})
	_ = store
	go func() {
		if cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
			a.pods.Synced()
		}
	}()
	informer.RunWithContext(ctx)
	return nil
}

func (a *agent) removed(obj any) {
	if last, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = last.Obj
	}
	if pod, ok := obj.(*corev1.Pod); ok {
		a.pods.Remove(pod.Namespace, pod.Name, pod.UID)
	}
}

// close gives back what assemble took. Containers and their volumes stay.
func (a *agent) close() error {
	if a.relays != nil {
		a.relays.CloseAll()
	}
	if a.events != nil {
		a.events.Shutdown()
	}
	if a.listener != nil {
		_ = a.listener.Close()
	}
	if a.identity != nil {
		a.identity.connections.CloseAll() // an authority that ends would wait for them
	}
	if a.runtime != nil {
		return a.runtime.Close()
	}
	return nil
}
