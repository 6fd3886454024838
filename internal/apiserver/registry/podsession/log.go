package podsession

import (
	"context"
	"fmt"
	"net/url"
	"path"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	genericrest "k8s.io/apiserver/pkg/registry/generic/rest"
	"k8s.io/apiserver/pkg/registry/rest"

	"lanyard.dev/internal/podoptions"
)

// LogREST serves pods/log: the log of a container, read from the agent that runs it.
type LogREST struct {
	pods  rest.Getter
	nodes Nodes
}

var (
	_ rest.GetterWithOptions = &LogREST{}
	_ rest.StorageMetadata   = &LogREST{}
)

// NewLogREST returns pods/log.
func NewLogREST(pods rest.Getter, nodes Nodes) *LogREST { return &LogREST{pods, nodes} }

// New implements rest.Storage.
func (r *LogREST) New() runtime.Object { return &corev1.Pod{} }

// Destroy implements rest.Storage; the store of pods owns the connection.
func (r *LogREST) Destroy() {}

// ProducesMIMETypes implements rest.StorageMetadata.
func (r *LogREST) ProducesMIMETypes(string) []string { return []string{"text/plain"} }

// ProducesObject implements rest.StorageMetadata.
func (r *LogREST) ProducesObject(string) any { return "" }

// NewGetOptions implements rest.GetterWithOptions.
func (r *LogREST) NewGetOptions() (runtime.Object, bool, string) {
	return &corev1.PodLogOptions{}, false, ""
}

// Get implements rest.GetterWithOptions. A pod that is on no node yet has an empty log, as in Kubernetes.
func (r *LogREST) Get(ctx context.Context, name string, options runtime.Object) (runtime.Object, error) {
	o, ok := options.(*corev1.PodLogOptions)
	if !ok {
		return nil, apierrors.NewInternalError(fmt.Errorf("invalid options object: %#v", options))
	}
	if errs := podoptions.ValidateLog(o); len(errs) > 0 {
		return nil, apierrors.NewInvalid(corev1.SchemeGroupVersion.WithKind("PodLogOptions").GroupKind(), name, errs)
	}
	if o.InsecureSkipTLSVerifyBackend {
		return nil, apierrors.NewBadRequest("insecureSkipTLSVerifyBackend is not supported: the certificate of a node is always verified")
	}
	pod, err := findPod(ctx, r.pods, name)
	if err != nil {
		return nil, err
	}
	container, err := chooseContainer(pod, o.Container)
	if err != nil || pod.Spec.NodeName == "" {
		return &genericrest.LocationStreamer{}, err
	}
	return r.stream(ctx, pod, container, o)
}

func (r *LogREST) stream(ctx context.Context, pod *corev1.Pod, container string, o *corev1.PodLogOptions) (runtime.Object, error) {
	node, err := r.nodes.Connect(ctx, pod.Spec.NodeName)
	if err != nil {
		return nil, err
	}
	return &genericrest.LocationStreamer{
		Location: &url.URL{
			Scheme: "https", Host: node.Host, Path: path.Join("/containerLogs", pod.Namespace, pod.Name, container),
			RawQuery: podoptions.LogQuery(o).Encode(),
		},
		Transport: node.Transport, ContentType: "text/plain", Flush: o.Follow,
		ResponseChecker: genericrest.NewGenericHttpResponseChecker(corev1.Resource("pods/log"), pod.Name),
		RedirectChecker: genericrest.PreventRedirects,
	}, nil
}
