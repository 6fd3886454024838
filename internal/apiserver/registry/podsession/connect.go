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

// ConnectREST serves a subresource of pods that opens a session with the agent: exec, attach or portforward.
type ConnectREST struct {
	pods       rest.Getter
	nodes      Nodes
	authorizer authorizer.UnconditionalAuthorizer
	kind       connectKind
}

// connectKind is the difference between the three subresources.
type connectKind struct {
	options func() runtime.Object
	// target returns the path and the query of the session at the agent.
	target func(*corev1.Pod, runtime.Object) (*url.URL, error)
	// translate returns a handler for clients that speak WebSocket, where the agent speaks SPDY. It passes other requests
	// to plain.
	translate func(plain http.Handler, to *url.URL, transport http.RoundTripper, options runtime.Object) http.Handler
}

var _ rest.Connecter = &ConnectREST{}

// NewExecREST returns pods/exec. The client must be allowed to create the subresource, whatever the method of the request
// is.
func NewExecREST(pods rest.Getter, nodes Nodes, az authorizer.UnconditionalAuthorizer) *ConnectREST {
	return &ConnectREST{pods, nodes, az, connectKind{
		options: func() runtime.Object { return &corev1.PodExecOptions{} }, target: execTarget, translate: translateStreams,
	}}
}

// NewAttachREST returns pods/attach, with the permissions of NewExecREST.
func NewAttachREST(pods rest.Getter, nodes Nodes, az authorizer.UnconditionalAuthorizer) *ConnectREST {
	return &ConnectREST{pods, nodes, az, connectKind{
		options: func() runtime.Object { return &corev1.PodAttachOptions{} }, target: attachTarget, translate: translateStreams,
	}}
}

// NewPortForwardREST returns pods/portforward, with the permissions of NewExecREST.
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
	if err := r.authorizeCreate(ctx); err != nil {
		return nil, err
	}
	pod, err := findPod(ctx, r.pods, name)
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

// authorizeCreate requires the permission to create the subresource. A WebSocket begins with a GET, so a client that may
// only read would get a shell otherwise.
func (r *ConnectREST) authorizeCreate(ctx context.Context) error {
	attributes, err := filters.GetAuthorizerAttributes(ctx)
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	create := createAttributes{attributes}
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

// createAttributes are the attributes of a request with the verb create.
type createAttributes struct{ authorizer.Attributes }

// GetVerb implements authorizer.Attributes.
func (createAttributes) GetVerb() string { return "create" }

// IsReadOnly implements authorizer.Attributes.
func (createAttributes) IsReadOnly() bool { return false }

func (r *ConnectREST) handler(node *nodeclient.Connection, target *url.URL, options runtime.Object, responder rest.Responder) http.Handler {
	target.Scheme, target.Host = "https", node.Host
	plain := proxy.NewUpgradeAwareHandler(target, node.Transport, false, true, proxy.NewErrorResponder(responder))
	plain.UseLocationHost, plain.RejectForwardingRedirects = true, true
	return onlyUpgradeHeaders(r.kind.translate(plain, target, node.Transport, options))
}

// upgradeHeaders are the headers that negotiate a change of protocols. Other headers are not sent to a node, which must not
// learn the caller's identity and credentials.
var upgradeHeaders = []string{
	"Connection", "Upgrade", "X-Stream-Protocol-Version", "User-Agent",
	"Sec-Websocket-Key", "Sec-Websocket-Version", "Sec-Websocket-Protocol", "Sec-Websocket-Extensions",
}

// onlyUpgradeHeaders removes the other headers of a request. It also keeps the session out of the library's log, which
// would contain commands.
func onlyUpgradeHeaders(h http.Handler) http.Handler {
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

// bearerProtocol is the beginning of the WebSocket subprotocol in which browsers send a bearer token to kube-apiserver.
const bearerProtocol = "base64url.bearer.authorization.k8s.io."

// withoutBearers removes tokens from lists of subprotocols. Other headers of upgradeHeaders contain none.
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
	container, err := chooseContainer(pod, o.Container)
	if err != nil {
		return nil, err
	}
	streams := podoptions.Streams{Stdin: o.Stdin, Stdout: o.Stdout, Stderr: o.Stderr, TTY: o.TTY}
	return &url.URL{Path: path.Join("/exec", pod.Namespace, pod.Name, container), RawQuery: streams.Query(o.Command).Encode()}, nil
}

func attachTarget(pod *corev1.Pod, options runtime.Object) (*url.URL, error) {
	o := options.(*corev1.PodAttachOptions)
	container, err := chooseContainer(pod, o.Container)
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

// translateStreams translates between the channels of a WebSocket and SPDY streams.
func translateStreams(plain http.Handler, to *url.URL, transport http.RoundTripper, options runtime.Object) http.Handler {
	var streams translator.Options
	switch o := options.(type) {
	case *corev1.PodExecOptions:
		streams = translator.Options{Stdin: o.Stdin, Stdout: o.Stdout, Stderr: o.Stderr, Tty: o.TTY}
	case *corev1.PodAttachOptions:
		streams = translator.Options{Stdin: o.Stdin, Stdout: o.Stdout, Stderr: o.Stderr, Tty: o.TTY}
	}
	channels := translator.NewStreamTranslatorHandler(to, transport, 0, streams)
	return translator.NewTranslatingHandler(plain, channels, wsstream.IsWebSocketRequestWithStreamCloseProtocol)
}

// tunnel tunnels SPDY through a WebSocket.
func tunnel(plain http.Handler, _ *url.URL, _ http.RoundTripper, _ runtime.Object) http.Handler {
	return translator.NewTranslatingHandler(plain, translator.NewTunnelingHandler(plain), wsstream.IsWebSocketRequestWithTunnelingProtocol)
}

// defaultContainerAnnotation names the container of a pod that is used if a request names none.
const defaultContainerAnnotation = "kubectl.kubernetes.io/default-container"

// Nodes opens connections to the agents of nodes.
type Nodes interface {
	// Connect returns a connection to a node that is valid until ctx ends.
	Connect(ctx context.Context, node string) (*nodeclient.Connection, error)
}

// findPod returns the pod, unless it is the pod of a process, to which no session is possible.
func findPod(ctx context.Context, pods rest.Getter, name string) (*corev1.Pod, error) {
	found, err := pods.Get(ctx, name, &metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	pod, ok := found.(*corev1.Pod)
	if !ok {
		return nil, apierrors.NewInternalError(fmt.Errorf("unexpected object type: %T", found))
	}
	if podannotation.IsProcess(pod) {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("pod %s represents a process that was started with lanyard exec: "+
			"no agent runs it, so it has no logs and accepts no sessions; its output is where the process was started", name))
	}
	return pod, nil
}

// chooseContainer returns the named container, or the only or the default container of the pod if name is "".
func chooseContainer(pod *corev1.Pod, name string) (string, error) {
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
