package pod

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestStatusPatch(t *testing.T) {
	t.Parallel()
	seen := aPod(func(p *corev1.Pod) {
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	})
	same := seen.Status.DeepCopy()
	if patch, err := statusPatch(seen, same); err != nil || patch != nil {
		t.Errorf("nothing new makes %s, %v", patch, err)
	}
	same.Phase = corev1.PodRunning
	patch, err := statusPatch(seen, same)
	if got, want := string(patch), `{"metadata":{"uid":"uid-1"},"status":{"phase":"Running"}}`; err != nil || got != want {
		t.Errorf("patch %s, want %s (%v)", got, want, err)
	}
}

// A status that was meant for a pod is never written to another that has taken its name.
func TestPatchIsForOnePod(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.apply(aPod(func(p *corev1.Pod) { p.UID = "uid-2" }))
	patch, err := statusPatch(aPod(), &corev1.PodStatus{Phase: corev1.PodFailed, Reason: "mine"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.api.PatchStatus(t.Context(), "default", "web", patch); err == nil || !strings.Contains(err.Error(), "another UID") {
		t.Errorf("error %v", err)
	}
}

func TestIsOlder(t *testing.T) {
	t.Parallel()
	at := func(version string) *corev1.Pod { return aPod(func(p *corev1.Pod) { p.ResourceVersion = version }) }
	if !isOlder(at("9"), at("10")) || isOlder(at("10"), at("9")) || isOlder(at("9"), at("9")) || isOlder(at("a"), at("b")) {
		t.Error("versions are compared wrongly")
	}
}
