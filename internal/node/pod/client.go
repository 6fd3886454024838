package pod

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
)

// NewAPI returns the API of an authority that is reached by a client.
func NewAPI(client typedcorev1.PodsGetter) API { return remote{client} }

type remote struct{ client typedcorev1.PodsGetter }

func (r remote) PatchStatus(ctx context.Context, namespace, name string, patch []byte) (*corev1.Pod, error) {
	return r.client.Pods(namespace).Patch(ctx, name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
}

func (r remote) Delete(ctx context.Context, namespace, name string, uid types.UID) error {
	options := metav1.NewDeleteOptions(0)
	options.Preconditions = metav1.NewUIDPreconditions(string(uid))
	return r.client.Pods(namespace).Delete(ctx, name, *options)
}
