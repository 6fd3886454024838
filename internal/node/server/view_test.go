package server_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"lanyard.dev/internal/node/server"
)

func running() corev1.ContainerState {
	return corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
}

func waiting(reason string) corev1.ContainerState {
	return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason}}
}

func ended(id string) corev1.ContainerState {
	return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ContainerID: id}}
}

func TestView(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		now, last               corev1.ContainerState
		logs, previous, running string
	}{
		"runs":                     {running(), corev1.ContainerState{}, "now", `previous terminated container "c" in pod "p" not found`, "now"},
		"runs again":               {running(), ended("fake://last"), "now", "last", "now"},
		"has ended":                {ended("fake://now"), corev1.ContainerState{}, "now", `previous terminated container "c" in pod "p" not found`, `container "c" in pod "p" is terminated`},
		"ended before it was made": {ended(""), corev1.ContainerState{}, `container "c" in pod "p" is terminated`, `previous terminated container "c" in pod "p" not found`, `container "c" in pod "p" is terminated`},
		"backs off":                {waiting("CrashLoopBackOff"), ended("fake://last"), "last", "last", `container not found ("c")`},
		"is made":                  {waiting("ContainerCreating"), corev1.ContainerState{}, `container "c" in pod "p" is waiting to start: ContainerCreating`, `previous terminated container "c" in pod "p" not found`, `container not found ("c")`},
		"no image":                 {waiting("ErrImagePull"), corev1.ContainerState{}, `container "c" in pod "p" is waiting to start: image can't be pulled`, "", `container not found ("c")`},
		"no image, tries":          {waiting("ImagePullBackOff"), corev1.ContainerState{}, `container "c" in pod "p" is waiting to start: trying and failing to pull image`, "", `container not found ("c")`},
		"odd reason":               {waiting("100%d"), corev1.ContainerState{}, `container "c" in pod "p" is waiting to start: 100%d`, "", `container not found ("c")`},
		"no state":                 {corev1.ContainerState{}, corev1.ContainerState{}, `container "c" in pod "p" is waiting to start - no logs yet`, "", `container not found ("c")`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"}}
			pod.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "c", ContainerID: "fake://now", State: test.now, LastTerminationState: test.last}}
			view := server.View(func(_, _ string) (*corev1.Pod, string, bool) { return pod, "", true })
			check := func(what, want string, find func() (string, error)) {
				t.Helper()
				got, err := find()
				if err != nil {
					got = err.Error()
					if !apierrors.IsBadRequest(err) && !apierrors.IsNotFound(err) {
						t.Errorf("%s: %v is an internal error", what, err)
					}
				}
				if want != "" && got != want {
					t.Errorf("%s: got %s, want %s", what, got, want)
				}
			}
			check("logs", test.logs, func() (string, error) { return view.LogContainer("ns", "p", "c", false) })
			check("previous logs", test.previous, func() (string, error) { return view.LogContainer("ns", "p", "c", true) })
			check("running", test.running, func() (string, error) { return view.RunningContainer("ns", "p", "c") })
			check("sandbox", `pod "p" is not running`, func() (string, error) { return view.Sandbox("ns", "p") })
			check("no such container", `container "d" not found in pod "p"`, func() (string, error) { return view.LogContainer("ns", "p", "d", false) })
		})
	}
}

func TestViewOfNothing(t *testing.T) {
	t.Parallel()
	nothing := server.View(func(_, _ string) (*corev1.Pod, string, bool) { return nil, "", false })
	if _, err := nothing.LogContainer("ns", "p", "c", false); !apierrors.IsNotFound(err) || err.Error() != `pod "p" does not exist` {
		t.Error(err)
	}
	if _, err := nothing.RunningContainer("ns", "p", "c"); !apierrors.IsNotFound(err) {
		t.Error(err)
	}
	if _, err := nothing.Sandbox("ns", "p"); !apierrors.IsNotFound(err) {
		t.Error(err)
	}
	unstarted := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c"}}}}
	view := server.View(func(_, _ string) (*corev1.Pod, string, bool) { return unstarted, "s", true })
	if _, err := view.LogContainer("ns", "p", "c", false); !apierrors.IsBadRequest(err) || err.Error() != `container "c" in pod "p" is not available` {
		t.Error(err)
	}
	if id, err := view.Sandbox("ns", "p"); err != nil || id != "s" {
		t.Errorf("%s, %v", id, err)
	}
}
