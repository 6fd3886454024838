package noderestriction

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/utils/ptr"

	"lanyard.dev/internal/nodeaccess"
)

func (p *Plugin) pod(ctx context.Context, node string, a admission.Attributes) error {
	switch a.GetSubresource() {
	case "":
		switch a.GetOperation() {
		case admission.Create:
			return p.mirrorPod(ctx, node, a)
		case admission.Delete:
			return p.requireOwnPod(ctx, node, a, "node %q can only delete pods with spec.nodeName set to itself")
		}
		return forbid(a, "unexpected operation %q, node %q can only create and delete mirror pods", a.GetOperation(), node)
	case "status":
		return p.podStatus(ctx, node, a)
	case "eviction":
		if a.GetOperation() != admission.Create {
			return forbid(a, "unexpected operation %s", a.GetOperation())
		}
		return p.requireOwnPod(ctx, node, a, "node %s can only evict pods with spec.nodeName set to itself")
	}
	return forbid(a, "unexpected pod subresource %q, only 'status' and 'eviction' are allowed", a.GetSubresource())
}

// requireOwnPod refuses requests about pods on other nodes.
func (p *Plugin) requireOwnPod(ctx context.Context, node string, a admission.Attributes, refusal string) error {
	pod, err := p.storedPod(ctx, a)
	if err != nil {
		return err
	}
	if pod.Spec.NodeName != node {
		return forbid(a, refusal, node)
	}
	return nil
}

func (p *Plugin) podStatus(ctx context.Context, node string, a admission.Attributes) error {
	if a.GetOperation() != admission.Update {
		return forbid(a, "unexpected operation %q", a.GetOperation())
	}
	if err := p.requireOwnPod(ctx, node, a, "node %q can only update pod status for pods with spec.nodeName set to itself"); err != nil {
		return err
	}
	old, ok := a.GetOldObject().(*corev1.Pod)
	if !ok {
		return unexpected(a, a.GetOldObject())
	}
	updated, ok := a.GetObject().(*corev1.Pod)
	switch {
	case !ok:
		return unexpected(a, a.GetObject())
	case !labels.Equals(old.Labels, updated.Labels):
		return forbid(a, "node %q cannot update labels through pod status", node)
	case !equality.Semantic.DeepEqual(old.Status.ResourceClaimStatuses, updated.Status.ResourceClaimStatuses):
		return forbid(a, "node %q cannot update resource claim statues", node)
	}
	return nil
}

// mirrorPod allows a node to create mirror pods only, which show pods that the node runs from files. A mirror pod must
// not give access to other objects of the API.
func (p *Plugin) mirrorPod(ctx context.Context, node string, a admission.Attributes) error {
	pod, ok := a.GetObject().(*corev1.Pod)
	if !ok {
		return unexpected(a, a.GetObject())
	}
	if _, mirror := pod.Annotations[corev1.MirrorPodAnnotationKey]; !mirror {
		return forbid(a, "pod does not have %q annotation, node %q can only create mirror pods", corev1.MirrorPodAnnotationKey, node)
	}
	if pod.Spec.NodeName != node {
		return forbid(a, "node %q can only create pods with spec.nodeName set to itself", node)
	}
	if err := p.requireNodeOwner(ctx, node, a, pod.OwnerReferences); err != nil {
		return err
	}
	if what := referencedKind(pod); what != "" {
		return forbid(a, "node %q can not create pods that reference %s", node, what)
	}
	return nil
}

// requireNodeOwner refuses a pod whose owner is not the Node of the caller, with the UID that is registered now.
func (p *Plugin) requireNodeOwner(ctx context.Context, node string, a admission.Attributes, owners []metav1.OwnerReference) error {
	if len(owners) > 1 {
		return forbid(a, "node %q can only create pods with a single owner reference set to itself", node)
	}
	if len(owners) == 0 || owners[0].APIVersion != "v1" || owners[0].Kind != "Node" || owners[0].Name != node {
		return forbid(a, "node %q can only create pods with an owner reference set to itself", node)
	}
	owner := owners[0]
	if !ptr.Deref(owner.Controller, false) {
		return forbid(a, "node %q can only create pods with a controller owner reference set to itself", node)
	}
	if ptr.Deref(owner.BlockOwnerDeletion, false) {
		return forbid(a, "node %q must not set blockOwnerDeletion on an owner reference", node)
	}
	registered, err := p.Node(ctx, node)
	if err != nil {
		return err
	}
	if owner.UID != registered.UID {
		return forbid(a, "node %s UID mismatch: expected %s got %s", node, owner.UID, registered.UID)
	}
	return nil
}

// referencedKind returns a kind of objects that the pod refers to, or "" if it refers to none.
func referencedKind(pod *corev1.Pod) string {
	for _, r := range nodeaccess.References(pod) {
		switch r.Kind {
		case nodeaccess.ServiceAccount:
			return "a service account"
		case nodeaccess.Secret:
			return "secrets"
		case nodeaccess.ConfigMap:
			return "configmaps"
		}
	}
	if len(pod.Spec.ResourceClaims) > 0 {
		return "resourceclaims"
	}
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		if v.PersistentVolumeClaim != nil {
			return "persistentvolumeclaims"
		}
		if v.Projected == nil {
			continue
		}
		for _, source := range v.Projected.Sources {
			switch {
			case source.ServiceAccountToken != nil:
				return "a service account"
			case source.ClusterTrustBundle != nil:
				return "clustertrustbundles"
			case source.PodCertificate != nil:
				return "podcertificates"
			}
		}
	}
	return ""
}
