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

	"lanyard.dev/internal/podannotation"
)

const (
	// image stands where a container's image does. Nobody pulls it.
	image = "lanyard.dev/process"
	// madeBy says who on which machine made the Pod; the API server's audit log says which of its users that was.
	madeBy = "identity.lanyard.dev/made-by"

	// maxBase leaves room for "-" and what is generated in names of 63 characters.
	maxBase = 57
)

// baseName makes a name that objects may have from a command's.
func baseName(command string) string {
	fit := func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		case r >= 'A' && r <= 'Z':
			return r - 'A' + 'a'
		}
		return '-'
	}
	name := strings.Trim(strings.Map(fit, filepath.Base(command)), "-")
	name = strings.Trim(name[:min(len(name), maxBase)], "-")
	if name == "" {
		return "process"
	}
	return name
}

// newPod returns the Pod of a command. It names the program and none of its arguments, which may be secrets. It has no
// lease yet: until the authority has said when it was made, nobody here knows what the authority's clock shows.
func newPod(spec Spec, command, maker string) *corev1.Pod {
	base := baseName(command)
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: spec.Namespace, Name: spec.Name, Labels: spec.Labels,
			Annotations: map[string]string{podannotation.Process: "true", madeBy: maker},
		},
		Spec: corev1.PodSpec{
			ServiceAccountName: spec.ServiceAccount,
			// The files are there whatever the account says: whoever names it here asks for them.
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

// unprivileged is what the strictest Pod Security Standard wants, so that every namespace admits the Pod. It asks for nothing of
// the machine, whoever the process runs as.
func unprivileged() *corev1.SecurityContext {
	return &corev1.SecurityContext{
		RunAsNonRoot: ptr.To(true), AllowPrivilegeEscalation: ptr.To(false),
		Capabilities:   &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
}

// nameTries is how often a name is generated before one that is free is given up.
const nameTries = 5

func createPod(ctx context.Context, pods typedcorev1.PodInterface, pod *corev1.Pod) (made *corev1.Pod, err error) {
	for range nameTries {
		made, err = pods.Create(ctx, pod, metav1.CreateOptions{})
		if err == nil || pod.Name != "" || !apierrors.IsAlreadyExists(err) {
			break
		}
	}
	if err != nil {
		return nil, refusedPod(pod, fmt.Errorf("make the pod of the process: %w", err))
	}
	return made, nil
}

// refusedPod names what is missing for the Pod, where err shows that. Kubernetes refuses a Pod of an unknown account as
// forbidden, and only the text of the refusal tells it from other reasons.
func refusedPod(pod *corev1.Pod, err error) error {
	namespace, account := pod.Namespace, pod.Spec.ServiceAccountName
	var status apierrors.APIStatus
	switch {
	case apierrors.IsForbidden(err) && strings.Contains(err.Error(), fmt.Sprintf("serviceaccount %q not found", account)):
		return &Error{
			Err:  fmt.Errorf("service account %s/%s does not exist", namespace, account),
			Next: fmt.Sprintf("create it with lanyard kubectl create serviceaccount %s -n %s, or name another with --serviceaccount", account, namespace),
		}
	case isAbsent(err) && errors.As(err, &status) && status.Status().Details != nil && status.Status().Details.Kind == "namespaces":
		return &Error{
			Err:  fmt.Errorf("namespace %s does not exist", namespace),
			Next: fmt.Sprintf("create it with lanyard kubectl create namespace %s, or name another with --namespace", namespace),
		}
	}
	return err
}

// patchOf returns a patch that changes this very Pod and none that came after it.
func patchOf(uid types.UID, annotations map[string]string, status *corev1.PodStatus) ([]byte, error) {
	patch := map[string]any{"metadata": map[string]any{"uid": uid}}
	if annotations != nil {
		patch["metadata"] = map[string]any{"uid": uid, "annotations": annotations}
	}
	if status != nil {
		patch["status"] = status
	}
	return json.Marshal(patch)
}

// vouch extends the Pod's lease and returns the Pod as it is now.
func vouch(ctx context.Context, pods typedcorev1.PodInterface, pod *corev1.Pod, until time.Time) (*corev1.Pod, error) {
	patch, err := patchOf(pod.UID, map[string]string{podannotation.Lease: podannotation.FormatLease(until)}, nil)
	if err != nil {
		return nil, err
	}
	return pods.Patch(ctx, pod.Name, types.MergePatchType, patch, metav1.PatchOptions{})
}

// isAbsent reports whether the API server says that there is no such Pod. A proxy in front of it that finds no server
// answers with the same number, and knows nothing of Pods.
func isAbsent(err error) bool {
	return apierrors.IsNotFound(err) && !apierrors.IsUnexpectedServerError(err)
}

// isGone reports whether an error of vouch says that the Pod is no more, though another may have its name.
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

// reportRunning writes what kubectl get shows. Most callers may not, and the Pod serves its purpose without.
func reportRunning(ctx context.Context, pods typedcorev1.PodInterface, pod *corev1.Pod, since time.Time) error {
	at := metav1.NewTime(since)
	var conditions []corev1.PodCondition
	for _, kind := range []corev1.PodConditionType{corev1.PodScheduled, corev1.PodInitialized, corev1.ContainersReady, corev1.PodReady} {
		conditions = append(conditions, corev1.PodCondition{Type: kind, Status: corev1.ConditionTrue, LastTransitionTime: at})
	}
	container := pod.Spec.Containers[0]
	patch, err := patchOf(pod.UID, nil, &corev1.PodStatus{
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

// deleteTimeout bounds how long the supervisor stays for an authority that does not answer, deleteTry each request.
const (
	deleteTimeout = 10 * time.Second
	deleteTry     = 3 * time.Second
	deletePause   = 250 * time.Millisecond
)

// asking makes a request that has a limit.
type asking func(ctx context.Context, limit time.Duration, request func(context.Context) error) error

// deletePod removes the Pod. One that is gone, or another of its name, is not an error. Each request is made by ask.
func deletePod(pods typedcorev1.PodInterface, pod *corev1.Pod, ask asking) error {
	ctx, cancel := context.WithTimeout(context.Background(), deleteTimeout)
	defer cancel()
	options := metav1.DeleteOptions{GracePeriodSeconds: ptr.To(int64(0)), Preconditions: metav1.NewUIDPreconditions(string(pod.UID))}
	pause := time.NewTicker(deletePause)
	defer pause.Stop()
	for unknown := false; ; {
		err := ask(ctx, deleteTry, func(ctx context.Context) error { return pods.Delete(ctx, pod.Name, options) })
		switch {
		case err == nil || isAbsent(err) || apierrors.IsConflict(err):
			return nil
		case apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err) && unknown:
			return err
		}
		unknown = apierrors.IsUnauthorized(err) // the next connection may show a newer certificate
		select {
		case <-pause.C:
		case <-ctx.Done():
			return err
		}
	}
}
