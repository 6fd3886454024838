package systemtest

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"

	"lanyard.dev/internal/podannotation"
	"lanyard.dev/lanyardtest"
)

// readyNode makes a node that says it is ready, as its agent would.
func readyNode(t *testing.T, a *lanyardtest.Authority, name string) {
	t.Helper()
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelHostname: name}}}
	node.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "AgentReady"}}
	if _, err := a.Client().CoreV1().Nodes().Create(t.Context(), node, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func simplePod(name string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "x"}}}}
}

func TestPodsAreBoundToReadyNodes(t *testing.T) {
	t.Parallel()
	a := lanyardtest.Start(t)
	namespace, core := a.Namespace(t), a.Client().CoreV1()
	first := createPod(t, a, namespace, simplePod("first"))
	eventually(t, "it says why it waits", func(ctx context.Context) bool {
		events, err := core.Events(namespace).List(ctx, metav1.ListOptions{FieldSelector: "reason=FailedScheduling,involvedObject.uid=" + string(first.UID)})
		return err == nil && len(events.Items) == 1
	})
	readyNode(t, a, "one")
	readyNode(t, a, "two")
	pinned := simplePod("pinned")
	pinned.Spec.NodeSelector = map[string]string{corev1.LabelHostname: "two"}
	createPod(t, a, namespace, pinned)
	const many = 40
	for i := range many {
		createPod(t, a, namespace, simplePod(fmt.Sprint("p", i)))
	}
	perNode := map[string]int{}
	eventually(t, "all are bound", func(ctx context.Context) bool {
		pods, err := core.Pods(namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return false
		}
		clear(perNode)
		for _, p := range pods.Items {
			perNode[p.Spec.NodeName]++
			if p.Name == "pinned" && p.Spec.NodeName == "one" {
				t.Error("a pod that asks for node two is on one")
			}
		}
		return perNode[""] == 0
	})
	if perNode["one"] != many/2+1 || perNode["two"] != many/2+1 {
		t.Errorf("pods by node: %v", perNode)
	}

	// Who cordons a node and evicts its pods finds no new ones there.
	if _, err := core.Nodes().Patch(t.Context(), "one", "application/merge-patch+json", []byte(`{"spec":{"unschedulable":true}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	late := createPod(t, a, namespace, simplePod("late"))
	eventually(t, "the last one is bound", func(ctx context.Context) bool {
		p, err := core.Pods(namespace).Get(ctx, late.Name, metav1.GetOptions{})
		return err == nil && p.Spec.NodeName == "two"
	})
	eviction := &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "late"}}
	if err := core.Pods(namespace).EvictV1(t.Context(), eviction); err != nil {
		t.Fatal(err)
	}
	p, err := core.Pods(namespace).Get(t.Context(), "late", metav1.GetOptions{})
	if err != nil || p.DeletionTimestamp == nil {
		t.Errorf("an evicted pod ends in order: %v, %v", p.DeletionTimestamp, err)
	}
}

// TestTokenOfAProcessDiesWithItsLease: the supervisor is killed, and what the process held is refused.
func TestTokenOfAProcessDiesWithItsLease(t *testing.T) {
	t.Parallel()
	a := lanyardtest.Start(t)
	namespace, core := a.Namespace(t), a.Client().CoreV1()
	a.CreateServiceAccount(t, namespace, "app")
	readyNode(t, a, "one")
	process := func(name string, lease time.Duration) *corev1.Pod {
		p := simplePod(name)
		p.Annotations = map[string]string{podannotation.Process: "true", podannotation.Lease: podannotation.FormatLease(time.Now().Add(lease))}
		p.Spec.NodeName, p.Spec.ServiceAccountName = "one", "app"
		return createPod(t, a, namespace, p)
	}
	whoAmI := func(pod *corev1.Pod) func() error {
		request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
			BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID},
		}}
		issued, err := core.ServiceAccounts(namespace).CreateToken(t.Context(), "app", request, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		config := rest.AnonymousClientConfig(a.Config())
		config.BearerToken = issued.Status.Token
		client := clientFor(t, config)
		return func() error {
			_, err := client.AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
			return err
		}
	}
	killed, ended := whoAmI(process("killed", 2*time.Second)), whoAmI(process("ended", time.Minute))
	if err := killed(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the token is refused", func(context.Context) bool { return apierrors.IsUnauthorized(killed()) })
	if _, err := core.Pods(namespace).Get(t.Context(), "killed", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("the pod: %v", err)
	}

	// One that ends in order goes at once, whatever grace it is given.
	if err := ended(); err != nil {
		t.Fatal(err)
	}
	if err := core.Pods(namespace).Delete(t.Context(), "ended", metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](30)}); err != nil {
		t.Fatal(err)
	}
	if err := ended(); !apierrors.IsUnauthorized(err) {
		t.Errorf("after its pod's deletion was answered: %v", err)
	}
	eventually(t, "it is told", func(ctx context.Context) bool {
		events, err := core.Events(namespace).List(ctx, metav1.ListOptions{})
		return err == nil && slices.ContainsFunc(events.Items, func(e corev1.Event) bool {
			return e.Reason == "ProcessLost" && e.InvolvedObject.Name == "killed"
		})
	})
}
