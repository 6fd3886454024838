package process

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/utils/ptr"

	"lanyard.dev/internal/hint"
	"lanyard.dev/internal/podannotation"
)

const (
	// image is the image of the container. It does not exist, and is never pulled.
	image = "lanyard.dev/process"
	// createdByAnnotation names the machine and its user that created the Pod. The API server's audit log has the user of the API.
	createdByAnnotation = "identity.lanyard.dev/made-by"

	// maxBase leaves room for "-" and the generated suffix in names of 63 characters.
	maxBase = 57
)

// baseName derives the name of a Pod and its container from the name of a command.
func baseName(command string) string {
	replace := func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		case r >= 'A' && r <= 'Z':
			return r - 'A' + 'a'
		}
		return '-'
	}
	name := strings.Trim(strings.Map(replace, filepath.Base(command)), "-")
	name = strings.Trim(name[:min(len(name), maxBase)], "-")
	if name == "" {
		return "process"
	}
	return name
}

// newPod returns the Pod of a command. It contains the name of the program, but not its arguments, which may be secrets. It has no
// lease yet: the time of the authority's clock is known only when the authority has set the creation time.
func newPod(spec Spec, command, creator string) *corev1.Pod {
	base := baseName(command)
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: spec.Namespace, Name: spec.Name, Labels: spec.Labels,
			Annotations: map[string]string{podannotation.Process: "true", createdByAnnotation: creator},
		},
		Spec: corev1.PodSpec{
			ServiceAccountName: spec.ServiceAccount,
			// The account may disable mounting. The caller of lanyard exec requests the files explicitly.
			AutomountServiceAccountToken:  ptr.To(true),
			NodeName:                      spec.NodeName,
			RestartPolicy:                 corev1.RestartPolicyNever,
			TerminationGracePeriodSeconds: ptr.To(int64(spec.Grace / time.Second)),
			Containers:                    []corev1.Container{{Name: base, Image: image, ImagePullPolicy: corev1.PullNever, SecurityContext: unprivileged()}},
		},
	}
	if spec.Name == "" {
		pod.GenerateName = base + "-"
	}
	return pod
}

// unprivileged returns the security context that the strictest Pod Security Standard requires, so that every namespace admits
// the Pod. It has no effect on the process.
func unprivileged() *corev1.SecurityContext {
	return &corev1.SecurityContext{
		RunAsNonRoot: ptr.To(true), AllowPrivilegeEscalation: ptr.To(false),
		Capabilities:   &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
}

// createAttempts is how many generated names are tried, since one may be taken.
const createAttempts = 5

func createPod(ctx context.Context, pods typedcorev1.PodInterface, pod *corev1.Pod) (created *corev1.Pod, err error) {
	for range createAttempts {
		created, err = pods.Create(ctx, pod, metav1.CreateOptions{})
		if err == nil || pod.Name != "" || !apierrors.IsAlreadyExists(err) {
			break
		}
	}
	if err != nil {
		return nil, explainRefusal(pod, fmt.Errorf("create the pod of the process: %w", err))
	}
	return created, nil
}

// explainRefusal replaces an error that means that the service account or the namespace does not exist. Kubernetes reports a
// missing service account as forbidden, so that only the text of the error distinguishes it from other reasons.
func explainRefusal(pod *corev1.Pod, err error) error {
	namespace, account := pod.Namespace, pod.Spec.ServiceAccountName
	var status apierrors.APIStatus
	switch {
	case apierrors.IsForbidden(err) && strings.Contains(err.Error(), fmt.Sprintf("serviceaccount %q not found", account)):
		return hint.New(
			fmt.Errorf("service account %s/%s does not exist", namespace, account),
			fmt.Sprintf("create it with lanyard kubectl create serviceaccount %s -n %s, or name another with --serviceaccount", account, namespace),
		)
	case isAbsent(err) && errors.As(err, &status) && status.Status().Details != nil && status.Status().Details.Kind == "namespaces":
		return hint.New(
			fmt.Errorf("namespace %s does not exist", namespace),
			fmt.Sprintf("create it with lanyard kubectl create namespace %s, or name another with --namespace", namespace),
		)
	}
	return err
}

// newPatch returns a patch for the Pod with this UID. It does not apply to a later Pod of the same name.
func newPatch(uid types.UID, annotations map[string]string, status *corev1.PodStatus) ([]byte, error) {
	patch := map[string]any{"metadata": map[string]any{"uid": uid}}
	if annotations != nil {
		patch["metadata"] = map[string]any{"uid": uid, "annotations": annotations}
	}
	if status != nil {
		patch["status"] = status
	}
	return json.Marshal(patch)
}

// extendLease sets the end of the Pod's lease and returns the current Pod.
func extendLease(ctx context.Context, pods typedcorev1.PodInterface, pod *corev1.Pod, until time.Time) (*corev1.Pod, error) {
	patch, err := newPatch(pod.UID, map[string]string{podannotation.Lease: podannotation.FormatLease(until)}, nil)
	if err != nil {
		return nil, err
	}
	return pods.Patch(ctx, pod.Name, types.MergePatchType, patch, metav1.PatchOptions{})
}

// isAbsent reports whether err is the API server's answer that the Pod does not exist. A proxy that finds no server answers
// with the same status code, but without a Kubernetes status.
func isAbsent(err error) bool {
	return apierrors.IsNotFound(err) && !apierrors.IsUnexpectedServerError(err)
}

// isGone reports whether an error of extendLease means that the Pod does not exist any more. Another Pod may have its name.
func isGone(err error) bool {
	if isAbsent(err) {
		return true
	}
	var status apierrors.APIStatus
	if !errors.As(err, &status) || !apierrors.IsInvalid(err) || status.Status().Details == nil {
		return false
	}
	return slices.ContainsFunc(status.Status().Details.Causes, func(c metav1.StatusCause) bool { return c.Field == "metadata.uid" })
}

// setRunning sets the status that kubectl get shows. It is optional: many callers do not have the permission.
func setRunning(ctx context.Context, pods typedcorev1.PodInterface, pod *corev1.Pod, since time.Time) error {
	at := metav1.NewTime(since)
	var conditions []corev1.PodCondition
	for _, kind := range []corev1.PodConditionType{corev1.PodScheduled, corev1.PodInitialized, corev1.ContainersReady, corev1.PodReady} {
		conditions = append(conditions, corev1.PodCondition{Type: kind, Status: corev1.ConditionTrue, LastTransitionTime: at})
	}
	container := pod.Spec.Containers[0]
	patch, err := newPatch(pod.UID, nil, &corev1.PodStatus{
		Phase: corev1.PodRunning, StartTime: &at, Conditions: conditions,
		ContainerStatuses: []corev1.ContainerStatus{{
			Name: container.Name, Image: container.Image, Ready: true, Started: ptr.To(true),
			State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: at}},
		}},
	})
	if err != nil {
		return err
	}
	_, err = pods.Patch(ctx, pod.Name, types.MergePatchType, patch, metav1.PatchOptions{}, "status")
	return err
}

const (
	// deleteTimeout bounds the deletion of the Pod if the authority does not answer, deleteAttempt each request.
	deleteTimeout = 10 * time.Second
	deleteAttempt = 3 * time.Second
	deletePause   = 250 * time.Millisecond
)

// requester calls request with a context that ends after the limit, and handles the connection after a failure.
type requester func(ctx context.Context, limit time.Duration, request func(context.Context) error) error

// deletePod deletes the Pod. It returns nil if the Pod does not exist any more, even if another has its name.
func deletePod(pods typedcorev1.PodInterface, pod *corev1.Pod, do requester) error {
	ctx, cancel := context.WithTimeout(context.Background(), deleteTimeout)
	defer cancel()
	options := metav1.DeleteOptions{GracePeriodSeconds: ptr.To(int64(0)), Preconditions: metav1.NewUIDPreconditions(string(pod.UID))}
	pause := time.NewTicker(deletePause)
	defer pause.Stop()
	for refused := false; ; {
		err := do(ctx, deleteAttempt, func(ctx context.Context) error { return pods.Delete(ctx, pod.Name, options) })
		switch {
		case err == nil || isAbsent(err) || apierrors.IsConflict(err):
			return nil
		case apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err) && refused:
			return err
		}
		refused = apierrors.IsUnauthorized(err) // The next connection may present a newer certificate.
		select {
		case <-pause.C:
		case <-ctx.Done():
			return err
		}
	}
}
