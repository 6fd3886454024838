package podsession

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/proxy"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/filters"
	"k8s.io/apiserver/pkg/endpoints/handlers/responsewriters"
	"k8s.io/apiserver/pkg/registry/rest"
	translator "k8s.io/apiserver/pkg/util/proxy"
	"k8s.io/klog/v2"
	"k8s.io/streaming/pkg/httpstream/wsstream"

	"lanyard.dev/internal/apiserver/nodeclient"
	"lanyard.dev/internal/apiserver/outage"
	"lanyard.dev/internal/podannotation"
	"lanyard.dev/internal/podoptions"
)

// ConnectREST serves a subresource of pods that is a conversation with the agent: exec, attach or portforward.
type ConnectREST struct {
	pods       rest.Getter
	nodes      Nodes
	authorizer authorizer.UnconditionalAuthorizer
	kind       connectKind
}

// connectKind is what the three do differently.
type connectKind struct {
	options func() runtime.Object
	// target is the path and query at the agent.
	target func(*corev1.Pod, runtime.Object) (*url.URL, error)
	// translate serves a client that speaks WebSocket where the agent speaks SPDY; plain serves all others.
	translate func(plain http.Handler, to *url.URL, by http.RoundTripper, options runtime.Object) http.Handler
}

var _ rest.Connecter = &ConnectREST{}

// NewExecREST returns pods/exec. Who connects must be allowed to create it, whatever the method.
func NewExecREST(pods rest.Getter, nodes Nodes, az authorizer.UnconditionalAuthorizer) *ConnectREST {
	return &ConnectREST{pods, nodes, az, connectKind{
		options: func() runtime.Object { return &corev1.PodExecOptions{} }, target: execTarget, translate: translateStreams,
	}}
}

// NewAttachREST returns pods/attach, for whom NewExecREST says.
func NewAttachREST(pods rest.Getter, nodes Nodes, az authorizer.UnconditionalAuthorizer) *ConnectREST {
	return &ConnectREST{pods, nodes, az, connectKind{
		options: func() runtime.Object { return &corev1.PodAttachOptions{} }, target: attachTarget, translate: translateStreams,
	}}
}

// NewPortForwardREST returns pods/portforward, for whom NewExecREST says.
func NewPortForwardREST(pods rest.Getter, nodes Nodes, az authorizer.UnconditionalAuthorizer) *ConnectREST {
	return &ConnectREST{pods, nodes, az, connectKind{
		options: func() runtime.Object { return &corev1.PodPortForwardOptions{} }, target: portForwardTarget, translate: tunnel,
	}}
}

// New implements rest.Storage.
func (r *ConnectREST) New() runtime.Object { return r.kind.options() }

// Destroy implements rest.Storage; the store of pods owns the connection.
func (r *ConnectREST) Destroy() {}

// ConnectMethods implements rest.Connecter.
func (r *ConnectREST) ConnectMethods() []string { return []string{http.MethodGet, http.MethodPost} }

// NewConnectOptions implements rest.Connecter.
func (r *ConnectREST) NewConnectOptions() (runtime.Object, bool, string) {
	return r.kind.options(), false, ""
}

// Connect implements rest.Connecter. The session ends when ctx does.
func (r *ConnectREST) Connect(ctx context.Context, name string, options runtime.Object, responder rest.Responder) (http.Handler, error) {
	if err := r.mayCreate(ctx); err != nil {
		return nil, err
	}
	pod, err := find(ctx, r.pods, name)
	if err != nil {
		return nil, err
	}
	target, err := r.kind.target(pod, options)
	if err != nil {
		return nil, err
	}
	if pod.Spec.NodeName == "" {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("pod %s does not have a host assigned", name))
	}
	node, err := r.nodes.Connect(ctx, pod.Spec.NodeName)
	if err != nil {
		return nil, err
	}
	return r.handler(node, target, options, responder), nil
}

// mayCreate asks for the right to create, since a WebSocket comes as a GET: who may only read would get a shell by it.
func (r *ConnectREST) mayCreate(ctx context.Context) error {
	asked, err := filters.GetAuthorizerAttributes(ctx)
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	create := creation{asked}
	decision, reason, err := r.authorizer.Authorize(ctx, create)
	switch {
	case decision == authorizer.DecisionAllow:
		return nil
	case outage.Of(err) != nil:
		return outage.Of(err)
	case err != nil:
		return apierrors.NewInternalError(err)
	}
	return responsewriters.ForbiddenStatusError(create, reason)
}

// creation is a request as it would be if it created what it names.
type creation struct{ authorizer.Attributes }

// GetVerb implements authorizer.Attributes.
func (creation) GetVerb() string { return "create" }

// IsReadOnly implements authorizer.Attributes.
func (creation) IsReadOnly() bool { return false }

func (r *ConnectREST) handler(node *nodeclient.Connection, target *url.URL, options runtime.Object, responder rest.Responder) http.Handler {
	target.Scheme, target.Host = "https", node.Host
	plain := proxy.NewUpgradeAwareHandler(target, node.Transport, false, true, proxy.NewErrorResponder(responder))
	plain.UseLocationHost, plain.RejectForwardingRedirects = true, true
	return bare(r.kind.translate(plain, target, node.Transport, options))
}

// upgradeHeaders are those that a change of protocols is agreed on with. No other goes to a node: it is not the node's to
// know who asks, and by what credential.
var upgradeHeaders = []string{
	"Connection", "Upgrade", "X-Stream-Protocol-Version", "User-Agent",
	"Sec-Websocket-Key", "Sec-Websocket-Version", "Sec-Websocket-Protocol", "Sec-Websocket-Extensions",
}

// bare takes the other headers off a request, and keeps what passes from the library's log, which would hold commands.
func bare(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r = r.WithContext(klog.NewContext(r.Context(), klog.Logger{}))
		sent := r.Header
		r.Header = http.Header{}
		for _, name := range upgradeHeaders {
			if values := sent.Values(name); len(values) > 0 {
				r.Header[name] = withoutBearers(values)
			}
		}
		h.ServeHTTP(w, r)
	})
}

// bearerProtocol begins the WebSocket subprotocol by which browsers send a bearer token to kube-apiserver.
const bearerProtocol = "base64url.bearer.authorization.k8s.io."

// withoutBearers takes tokens out of lists of subprotocols. Other headers hold none.
func withoutBearers(values []string) []string {
	var kept []string
	for _, value := range values {
		protocols := slices.DeleteFunc(strings.Split(value, ","), func(protocol string) bool {
			return strings.HasPrefix(strings.TrimSpace(protocol), bearerProtocol)
		})
		kept = append(kept, strings.Join(protocols, ","))
	}
	return kept
}

func execTarget(pod *corev1.Pod, options runtime.Object) (*url.URL, error) {
	o := options.(*corev1.PodExecOptions)
	container, err := chosen(pod, o.Container)
	if err != nil {
		return nil, err
	}
	streams := podoptions.Streams{Stdin: o.Stdin, Stdout: o.Stdout, Stderr: o.Stderr, TTY: o.TTY}
	return &url.URL{Path: path.Join("/exec", pod.Namespace, pod.Name, container), RawQuery: streams.Query(o.Command).Encode()}, nil
}

func attachTarget(pod *corev1.Pod, options runtime.Object) (*url.URL, error) {
	o := options.(*corev1.PodAttachOptions)
	container, err := chosen(pod, o.Container)
	if err != nil {
		return nil, err
	}
	streams := podoptions.Streams{Stdin: o.Stdin, Stdout: o.Stdout, Stderr: o.Stderr, TTY: o.TTY}
	return &url.URL{Path: path.Join("/attach", pod.Namespace, pod.Name, container), RawQuery: streams.Query(nil).Encode()}, nil
}

func portForwardTarget(pod *corev1.Pod, options runtime.Object) (*url.URL, error) {
	query := podoptions.PortQuery(options.(*corev1.PodPortForwardOptions).Ports)
	return &url.URL{Path: path.Join("/portForward", pod.Namespace, pod.Name), RawQuery: query.Encode()}, nil
}

// translateStreams makes SPDY streams of the channels of a WebSocket.
func translateStreams(plain http.Handler, to *url.URL, by http.RoundTripper, options runtime.Object) http.Handler {
	var streams translator.Options
	switch o := options.(type) {
	case *corev1.PodExecOptions:
		streams = translator.Options{Stdin: o.Stdin, Stdout: o.Stdout, Stderr: o.Stderr, Tty: o.TTY}
	case *corev1.PodAttachOptions:
		streams = translator.Options{Stdin: o.Stdin, Stdout: o.Stdout, Stderr: o.Stderr, Tty: o.TTY}
	}
	channels := translator.NewStreamTranslatorHandler(to, by, 0, streams)
	return translator.NewTranslatingHandler(plain, channels, wsstream.IsWebSocketRequestWithStreamCloseProtocol)
}

// tunnel carries SPDY inside a WebSocket.
func tunnel(plain http.Handler, _ *url.URL, _ http.RoundTripper, _ runtime.Object) http.Handler {
	return translator.NewTranslatingHandler(plain, translator.NewTunnelingHandler(plain), wsstream.IsWebSocketRequestWithTunnelingProtocol)
}

// defaultContainerAnnotation names the container of a pod which is meant where none is named.
const defaultContainerAnnotation = "kubectl.kubernetes.io/default-container"

// Nodes connects to the agents of nodes.
type Nodes interface {
	// Connect returns the way to a node for as long as ctx lasts.
	Connect(ctx context.Context, node string) (*nodeclient.Connection, error)
}

// find returns the pod, unless it is one that nobody can look into.
func find(ctx context.Context, pods rest.Getter, name string) (*corev1.Pod, error) {
	found, err := pods.Get(ctx, name, &metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	pod, ok := found.(*corev1.Pod)
	if !ok {
		return nil, apierrors.NewInternalError(fmt.Errorf("unexpected object type: %T", found))
	}
	if podannotation.IsProcess(pod) {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("pod %s stands for a process that was started with lanyard exec: "+
			"no agent runs it, so it has neither logs nor a way in here; its output is where it was started", name))
	}
	return pod, nil
}

// chosen returns the container that is meant: the one named, else the pod's only or default one.
func chosen(pod *corev1.Pod, name string) (string, error) {
	all := containers(&pod.Spec)
	if name != "" {
		if !slices.Contains(all, name) {
			return "", apierrors.NewBadRequest(fmt.Sprintf("container %s is not valid for pod %s", name, pod.Name))
		}
		return name, nil
	}
	if len(pod.Spec.Containers) == 1 {
		return pod.Spec.Containers[0].Name, nil
	}
	if name = pod.Annotations[defaultContainerAnnotation]; slices.Contains(all, name) {
		return name, nil
	}
	return "", apierrors.NewBadRequest(fmt.Sprintf("a container name must be specified for pod %s, choose one of: %s", pod.Name, all))
}

func containers(spec *corev1.PodSpec) []string {
	var names []string
	for _, c := range spec.InitContainers {
		names = append(names, c.Name)
	}
	for _, c := range spec.Containers {
		names = append(names, c.Name)
	}
	for _, c := range spec.EphemeralContainers {
		names = append(names, c.Name)
	}
	return names
}
