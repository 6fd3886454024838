package pod_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/warning"
	"k8s.io/utils/ptr"

	"lanyard.dev/internal/apiserver/registry/storagetest"
	"lanyard.dev/internal/podannotation"
)

type storage struct {
	*storagetest.Pods
	base *storagetest.Storage
}

func newStorage(t *testing.T) *storage {
	t.Helper()
	s := &storage{base: storagetest.Start(t)}
	s.Pods = s.base.Pods(s.base)
	return s
}

// newPod returns a pod with defaults that is not stored.
func (s *storage) newPod(name string, mutate ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: storagetest.Meta("ns", name),
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}},
	}
	for _, m := range mutate {
		m(p)
	}
	s.base.Scheme.Default(p)
	return p
}

// create stores a pod. The functions change it before.
func (s *storage) create(t *testing.T, name string, mutate ...func(*corev1.Pod)) *corev1.Pod {
	t.Helper()
	made, err := s.Pod.Create(storagetest.In(t, "ns"), s.newPod(name, mutate...), rest.ValidateAllObjectFunc, &metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return made.(*corev1.Pod)
}

func (s *storage) get(t *testing.T, name string) *corev1.Pod {
	t.Helper()
	found, err := s.Pod.Get(storagetest.In(t, "ns"), name, &metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	return found.(*corev1.Pod)
}

func update(t *testing.T, to rest.Updater, name string, mutate func(*corev1.Pod)) error {
	t.Helper()
	info := rest.DefaultUpdatedObjectInfo(nil, func(_ context.Context, _, old runtime.Object) (runtime.Object, error) {
		p := old.DeepCopyObject().(*corev1.Pod)
		mutate(p)
		return p, nil
	})
	_, _, err := to.Update(storagetest.In(t, "ns"), name, info, rest.ValidateAllObjectFunc, rest.ValidateAllObjectUpdateFunc, false, &metav1.UpdateOptions{})
	return err
}

func onNode(p *corev1.Pod) { p.Spec.NodeName = "n1" }

func process(p *corev1.Pod) {
	onNode(p)
	p.Annotations = map[string]string{podannotation.Process: "true"}
}

func TestFieldsThatEachPartMayChange(t *testing.T) {
	t.Parallel()
	s := newStorage(t)
	made := s.create(t, "p", func(p *corev1.Pod) {
		p.Generation, p.Status.Phase = 7, corev1.PodRunning // which clients cannot set
		p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: "n", UID: "u"}}
	})
	if made.Generation != 1 || made.Status.Phase != corev1.PodPending || made.Status.QOSClass != corev1.PodQOSBestEffort {
		t.Errorf("a new pod: generation %d, status %+v", made.Generation, made.Status)
	}
	err := update(t, s.Pod, "p", func(p *corev1.Pod) {
		p.Status.Phase, p.Generation, p.Labels = corev1.PodFailed, 9, map[string]string{"a": "b"}
	})
	if err != nil {
		t.Fatal(err)
	}
	if p := s.get(t, "p"); p.Status.Phase != corev1.PodPending || p.Generation != 1 || p.Labels["a"] != "b" {
		t.Errorf("after an update: %+v", p)
	}
	if err := update(t, s.Pod, "p", func(p *corev1.Pod) { p.Spec.Containers[0].Image = "j" }); err != nil {
		t.Fatal(err)
	}
	if p := s.get(t, "p"); p.Generation != 2 {
		t.Errorf("after a change of spec: generation %d", p.Generation)
	}
	err = update(t, s.Status, "p", func(p *corev1.Pod) {
		p.Status.Phase, p.Spec.Containers[0].Image, p.OwnerReferences = corev1.PodRunning, "forged", nil
		p.Spec.ServiceAccountName = "forged"
	})
	if err != nil {
		t.Fatal(err)
	}
	if p := s.get(t, "p"); p.Status.Phase != corev1.PodRunning || p.Spec.Containers[0].Image != "j" || p.Spec.ServiceAccountName != "" || len(p.OwnerReferences) != 1 {
		t.Errorf("after a status update: %+v", p)
	}
}

func TestGatedPod(t *testing.T) {
	t.Parallel()
	s := newStorage(t)
	p := s.create(t, "p", func(p *corev1.Pod) {
		p.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "example.com/a"}, {Name: "example.com/b"}}
	})
	if len(p.Status.Conditions) != 1 || p.Status.Conditions[0].Reason != "SchedulingGated" || p.Status.Conditions[0].Status != corev1.ConditionFalse {
		t.Errorf("conditions %+v", p.Status.Conditions)
	}
	if err := s.bind(t, "p", nil); !apierrors.IsConflict(err) || !strings.Contains(err.Error(), "pod p has non-empty .spec.schedulingGates") {
		t.Errorf("binding: %v", err)
	}
}

// TestGracefulDeletion checks how long a deleted pod remains.
func TestGracefulDeletion(t *testing.T) {
	t.Parallel()
	s := newStorage(t)
	ended := func(phase corev1.PodPhase) func(*corev1.Pod) { return func(p *corev1.Pod) { p.Status.Phase = phase } }
	for _, test := range []struct {
		name   string
		pod    func(*corev1.Pod)
		status func(*corev1.Pod)
		grace  *int64
		stays  int64 // seconds; -1 if the pod is removed at once
	}{
		{"spec", onNode, nil, nil, 30},
		{"own-period", func(p *corev1.Pod) { onNode(p); p.Spec.TerminationGracePeriodSeconds = ptr.To[int64](5) }, nil, nil, 5},
		{"requested", onNode, nil, ptr.To[int64](7), 7},
		{"at-once", onNode, nil, ptr.To[int64](0), -1},
		{"negative", onNode, nil, ptr.To[int64](-3), 1},
		{"no-node", func(*corev1.Pod) {}, nil, ptr.To[int64](7), -1},
		{"failed", onNode, ended(corev1.PodFailed), nil, -1},
		{"succeeded", onNode, ended(corev1.PodSucceeded), nil, -1},
		{"running", onNode, ended(corev1.PodRunning), nil, 30},
		{"process", process, nil, ptr.To[int64](30), -1},
	} {
		s.create(t, test.name, test.pod)
		if test.status != nil {
			if err := update(t, s.Status, test.name, test.status); err != nil {
				t.Fatal(err)
			}
		}
		before := time.Now().Truncate(time.Second)
		_, gone, err := s.Pod.Delete(storagetest.In(t, "ns"), test.name, rest.ValidateAllObjectFunc, &metav1.DeleteOptions{GracePeriodSeconds: test.grace})
		if err != nil {
			t.Fatalf("%s: %v", test.name, err)
		}
		p := s.get(t, test.name)
		if gone != (test.stays < 0) || (p == nil) != gone {
			t.Errorf("%s: gone=%v, stored %v", test.name, gone, p != nil)
			continue
		}
		if p == nil {
			continue
		}
		if ends := before.Add(time.Duration(test.stays) * time.Second); p.DeletionTimestamp.Time.Before(ends) || p.DeletionTimestamp.After(ends.Add(20*time.Second)) {
			t.Errorf("%s: ends at %v, want about %v", test.name, p.DeletionTimestamp, ends)
		}
	}
}

// TestDeletionIsFinal tries to keep a deleted pod, and so its tokens, alive, as the holder of a stolen node
// credential could.
func TestDeletionIsFinal(t *testing.T) {
	t.Parallel()
	s := newStorage(t)
	s.create(t, "p", onNode)
	remove := func(grace int64) {
		t.Helper()
		_, _, err := s.Pod.Delete(storagetest.In(t, "ns"), "p", rest.ValidateAllObjectFunc, &metav1.DeleteOptions{GracePeriodSeconds: &grace})
		if err != nil {
			t.Fatal(err)
		}
	}
	remove(60)
	deleted := s.get(t, "p").DeletionTimestamp
	later := metav1.NewTime(deleted.Add(time.Hour))
	for name, to := range map[string]rest.Updater{"status": s.Status, "resource": s.Pod} {
		for _, at := range []*metav1.Time{nil, &later} {
			if err := update(t, to, "p", func(p *corev1.Pod) { p.DeletionTimestamp, p.DeletionGracePeriodSeconds = at, nil }); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if got := s.get(t, "p").DeletionTimestamp; !got.Equal(deleted) {
				t.Errorf("%s: deletionTimestamp was %v and is %v", name, deleted, got)
			}
		}
	}
	remove(3600)
	if got := s.get(t, "p").DeletionTimestamp; got.After(deleted.Time) {
		t.Errorf("a second deletion moves the end from %v to %v", deleted, got)
	}
	if err := s.bind(t, "p", nil); !apierrors.IsConflict(err) || !strings.Contains(err.Error(), "pod p is being deleted, cannot be assigned to a host") {
		t.Errorf("binding: %v", err)
	}
}

func (s *storage) bind(t *testing.T, name string, mutate func(*corev1.Binding), dryRun ...string) error {
	t.Helper()
	b := &corev1.Binding{ObjectMeta: storagetest.Meta("ns", name), Target: corev1.ObjectReference{Kind: "Node", Name: "n1"}}
	if mutate != nil {
		mutate(b)
	}
	out, err := s.Binding.Create(storagetest.In(t, "ns"), name, b, rest.ValidateAllObjectFunc, &metav1.CreateOptions{DryRun: dryRun})
	if err == nil && out.(*metav1.Status).Status != metav1.StatusSuccess {
		t.Errorf("bound with %+v", out)
	}
	return err
}

func TestBinding(t *testing.T) {
	t.Parallel()
	s := newStorage(t)
	made := s.create(t, "p")
	for _, test := range []struct {
		name   string
		pod    string
		mutate func(*corev1.Binding)
		is     func(error) bool
		want   string
	}{
		{"no such pod", "nowhere", nil, apierrors.IsNotFound, `pods "nowhere" not found`},
		{"another name", "p", func(b *corev1.Binding) { b.Name = "q" }, apierrors.IsBadRequest, "name in URL does not match name in Binding object"},
		{"no target", "p", func(b *corev1.Binding) { b.Target.Name = "" }, apierrors.IsInvalid, "target.name"},
		{"another kind", "p", func(b *corev1.Binding) { b.Target.Kind = "Pod" }, apierrors.IsInvalid, "target.kind"},
		{"a process", "p", func(b *corev1.Binding) { b.Annotations = map[string]string{podannotation.Process: "true"} }, apierrors.IsBadRequest, "a binding may not set the annotation identity.lanyard.dev/process"},
		{"a command", "p", func(b *corev1.Binding) { b.Annotations = map[string]string{podannotation.OnRenew: "exec:/bin/sh"} }, apierrors.IsBadRequest, "a binding may not set the annotation identity.lanyard.dev/on-renew"},
		{"a lease", "p", func(b *corev1.Binding) {
			b.Annotations = map[string]string{podannotation.Lease: "9999-12-31T23:59:59Z"}
		}, apierrors.IsBadRequest, "a binding may not set the annotation identity.lanyard.dev/lease"},
		{"a mirror", "p", func(b *corev1.Binding) { b.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"} }, apierrors.IsBadRequest, "a binding may not set the annotation kubernetes.io/config.mirror"},
		{"another UID", "p", func(b *corev1.Binding) { b.UID = types.UID("other") }, apierrors.IsConflict, "Precondition failed: UID"},
		{"another version", "p", func(b *corev1.Binding) { b.ResourceVersion = "1" }, apierrors.IsConflict, "Precondition failed: ResourceVersion"},
	} {
		if err := s.bind(t, test.pod, test.mutate); err == nil || !test.is(err) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", test.name, err, test.want)
		}
	}
	if err := s.bind(t, "p", nil, metav1.DryRunAll); err != nil {
		t.Errorf("dry run: %v", err)
	}
	if p := s.get(t, "p"); p.Spec.NodeName != "" || p.ResourceVersion != made.ResourceVersion {
		t.Fatalf("a refused request or a dry run had an effect: %+v", p)
	}
	err := s.bind(t, "p", func(b *corev1.Binding) { b.UID, b.Annotations = made.UID, map[string]string{"example.com/a": "b"} })
	if err != nil {
		t.Fatal(err)
	}
	p := s.get(t, "p")
	if p.Spec.NodeName != "n1" || p.Annotations["example.com/a"] != "b" || len(p.Status.Conditions) != 1 ||
		p.Status.Conditions[0].Type != corev1.PodScheduled || p.Status.Conditions[0].Status != corev1.ConditionTrue {
		t.Errorf("got %+v", p)
	}
	if err := s.bind(t, "p", nil); !apierrors.IsConflict(err) || !strings.Contains(err.Error(), `pod p is already assigned to node "n1"`) {
		t.Errorf("a second time: %v", err)
	}
}

// TestAnnotationsOfCommandsAreImmutable tries to change, through the pod and through its status, the annotations that name a command to
// run or that limit the life of the pod.
func TestAnnotationsOfCommandsAreImmutable(t *testing.T) {
	t.Parallel()
	s := newStorage(t)
	s.create(t, "pod", onNode)
	s.create(t, "process", process)
	s.create(t, "command", func(p *corev1.Pod) { p.Annotations = map[string]string{podannotation.OnRenew: "exec:/bin/reload"} })
	annotate := func(key, value string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			if p.Annotations == nil {
				p.Annotations = map[string]string{}
			}
			p.Annotations[key] = value
		}
	}
	bare := func(p *corev1.Pod) { p.Annotations = nil }
	now := podannotation.FormatLease(time.Now())
	for _, test := range []struct {
		pod    string
		mutate func(*corev1.Pod)
		// want is the error of an update of the pod, and status the error of an update of its status; "" means no error.
		want, status string
	}{
		{"pod", process, "may not add process annotation", "may not add process annotation"},
		{"process", bare, "may not remove or update process annotation", "may not remove or update process annotation"},
		{"process", annotate(podannotation.Process, "false"), "may not remove or update process annotation", "may not remove or update process annotation"},
		{"process", annotate(podannotation.Lease, "tomorrow"), `"tomorrow" is not a time`, `"tomorrow" is not a time`},
		{"process", annotate(podannotation.Lease, now), "", "may not add lease annotation"},
		{"pod", annotate(podannotation.Lease, "tomorrow"), "", ""},
		{"pod", annotate(podannotation.OnRenew, "exec:/bin/sh"), "may not add on-renew annotation", "may not add on-renew annotation"},
		{"pod", annotate(podannotation.OnRenew, "signal:TERM"), "may not add on-renew annotation", "may not add on-renew annotation"},
		{"command", annotate(podannotation.OnRenew, "exec:/bin/sh"), "may not remove or update on-renew annotation", "may not remove or update on-renew annotation"},
		{"command", bare, "may not remove or update on-renew annotation", "may not remove or update on-renew annotation"},
		{"command", annotate("example.com/note", "x"), "", ""},
	} {
		// The status is updated first: a change that is refused there must not have been made already.
		for _, to := range []struct {
			name string
			rest.Updater
			want string
		}{{"status", s.Status, test.status}, {"resource", s.Pod, test.want}} {
			err := update(t, to, test.pod, test.mutate)
			switch {
			case to.want == "" && err != nil:
				t.Errorf("%s of %s: %v", to.name, test.pod, err)
			case to.want != "" && (!apierrors.IsInvalid(err) || !strings.Contains(err.Error(), to.want)):
				t.Errorf("%s of %s: got %v, want %q", to.name, test.pod, err, to.want)
			}
		}
	}
	if got := s.get(t, "command").Annotations[podannotation.OnRenew]; got != "exec:/bin/reload" {
		t.Errorf("the command is %q", got)
	}
}

func TestEviction(t *testing.T) {
	t.Parallel()
	s := newStorage(t)
	s.create(t, "p", onNode)
	evict := func(name string, how *metav1.DeleteOptions, dryRun ...string) error {
		e := &policyv1.Eviction{ObjectMeta: storagetest.Meta("ns", name), DeleteOptions: how}
		_, err := s.Eviction.Create(storagetest.In(t, "ns"), "p", e, rest.ValidateAllObjectFunc, &metav1.CreateOptions{DryRun: dryRun})
		return err
	}
	if err := evict("q", nil); !apierrors.IsBadRequest(err) {
		t.Errorf("another name: %v", err)
	}
	other := types.UID("other")
	if err := evict("p", &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &other}}); !apierrors.IsConflict(err) {
		t.Errorf("another UID: %v", err)
	}
	if err := evict("p", nil, metav1.DryRunAll); err != nil || s.get(t, "p").DeletionTimestamp != nil {
		t.Errorf("a dry run: %v, %v", err, s.get(t, "p").DeletionTimestamp)
	}
	if err := evict("p", nil); err != nil || s.get(t, "p").DeletionTimestamp == nil {
		t.Errorf("graceful: %v", err)
	}
	if err := evict("p", &metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}); err != nil || s.get(t, "p") != nil {
		t.Errorf("at once: %v", err)
	}
	if err := evict("p", nil); !apierrors.IsNotFound(err) {
		t.Errorf("a pod that is gone: %v", err)
	}
}

// warned collects the warnings of an answer.
type warned []string

func (w *warned) AddWarning(_, text string) { *w = append(*w, text) }

// The agent refuses such pods, so the client that creates one is warned. A kubelet may run them, so they are accepted.
func TestFieldsThatTheAgentRefusesDrawWarnings(t *testing.T) {
	t.Parallel()
	s := newStorage(t)
	probe := &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"true"}}}}
	probed := func(p *corev1.Pod) { p.Spec.Containers[0].LivenessProbe = probe }
	const refused = "spec.containers[0].livenessProbe: the Lanyard agent will refuse to run this pod: not supported by the agent"
	for name, test := range map[string]struct {
		mutate func(*corev1.Pod)
		want   []string
	}{
		"plain":  {func(*corev1.Pod) {}, nil},
		"probed": {probed, []string{refused}},
		"ranked": {func(p *corev1.Pod) { p.Spec.PriorityClassName = "high" }, []string{"spec.priorityClassName: the Lanyard scheduler does not consider it"}},
		"process": {func(p *corev1.Pod) {
			probed(p)
			p.Annotations = map[string]string{podannotation.Process: "true"}
		}, nil},
	} {
		p := s.newPod(name, test.mutate)
		var got warned
		made, err := s.Pod.Create(warning.WithWarningRecorder(storagetest.In(t, "ns"), &got), p, rest.ValidateAllObjectFunc, &metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: warned %q, want %q", name, got, test.want)
		}
		// A later update does not repeat the warning.
		got = nil
		labelled := made.(*corev1.Pod).DeepCopy()
		labelled.Labels = map[string]string{"a": "b"}
		info := rest.DefaultUpdatedObjectInfo(labelled)
		_, _, err = s.Pod.Update(warning.WithWarningRecorder(storagetest.In(t, "ns"), &got), name, info, rest.ValidateAllObjectFunc, rest.ValidateAllObjectUpdateFunc, false, &metav1.UpdateOptions{})
		if err != nil || len(got) > 0 {
			t.Errorf("%s: an update warned %q, %v", name, got, err)
		}
	}
	many := s.newPod("many", func(p *corev1.Pod) {
		for i := range 40 {
			p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: fmt.Sprint("c", i), Image: "i", LivenessProbe: probe.DeepCopy()})
		}
	})
	var got warned
	if _, err := s.Pod.Create(warning.WithWarningRecorder(storagetest.In(t, "ns"), &got), many, rest.ValidateAllObjectFunc, &metav1.CreateOptions{}); err != nil || len(got) != 32 {
		t.Errorf("%d warnings, %v; want them to fit into an answer's header", len(got), err)
	}
}
