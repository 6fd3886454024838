//go:build linux

package node

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	clocktesting "k8s.io/utils/clock/testing"

	"lanyard.dev/internal/node/cri"
)

type fakeRuntime struct {
	status cri.Status
	err    error
}

func (f *fakeRuntime) Version(context.Context) (string, string, error) {
	return "containerd", "2.1.0", f.err
}

func (f *fakeRuntime) Status(context.Context) (cri.Status, error) { return f.status, f.err }

func condition(t *testing.T, s corev1.NodeStatus, kind corev1.NodeConditionType) corev1.NodeCondition {
	t.Helper()
	for _, c := range s.Conditions {
		if c.Type == kind {
			return c
		}
	}
	t.Fatalf("no condition %s in %v", kind, s.Conditions)
	return corev1.NodeCondition{}
}

func TestNodeStatus(t *testing.T) {
	t.Parallel()
	clock := clocktesting.NewFakePassiveClock(time.Unix(1e9, 0))
	runtime := &fakeRuntime{status: cri.Status{RuntimeReady: true, NetworkReady: true}}
	o := observer{runtime: runtime, system: systemInfo(), rootDir: t.TempDir(), name: "edge", addresses: []net.IP{net.IPv4(192, 0, 2, 7)}, port: 10250, maxPods: 9, clock: clock}

	first := o.status(t.Context(), &corev1.NodeStatus{})
	if c := condition(t, first, corev1.NodeReady); c.Status != corev1.ConditionTrue {
		t.Errorf("not ready: %+v", c)
	}
	if got := first.NodeInfo.ContainerRuntimeVersion; got != "containerd://2.1.0" {
		t.Errorf("runtime %q", got)
	}
	if first.Capacity.Pods().Value() != 9 || first.Capacity.Memory().IsZero() || first.Allocatable.Cpu().IsZero() {
		t.Errorf("capacity %v, allocatable %v", first.Capacity, first.Allocatable)
	}
	if a := first.Addresses; len(a) != 2 || a[0].Address != "192.0.2.7" || a[1].Address != "edge" || first.DaemonEndpoints.KubeletEndpoint.Port != 10250 {
		t.Errorf("addresses %v, port %v", a, first.DaemonEndpoints)
	}

	clock.SetTime(clock.Now().Add(time.Minute))
	again := o.status(t.Context(), &first)
	if !sameButForHeartbeats(&first, &again) {
		t.Errorf("the status changed without a reason: %+v", again)
	}
	if c := condition(t, again, corev1.NodeReady); !c.LastHeartbeatTime.Time.Equal(clock.Now()) || c.LastTransitionTime.Time.Equal(clock.Now()) {
		t.Errorf("times %+v", c)
	}

	for name, bad := range map[string]fakeRuntime{
		"down":       {err: errors.New("connection refused")},
		"not ready":  {status: cri.Status{NetworkReady: true}},
		"no network": {status: cri.Status{RuntimeReady: true}},
	} {
		*runtime = bad
		now := o.status(t.Context(), &again)
		if c := condition(t, now, corev1.NodeReady); c.Status != corev1.ConditionFalse || !c.LastTransitionTime.Time.Equal(clock.Now()) {
			t.Errorf("%s: %+v", name, c)
		}
		if now.NodeInfo.ContainerRuntimeVersion == "" {
			t.Errorf("%s: the version of the runtime is lost", name)
		}
	}
}

func TestPressure(t *testing.T) {
	t.Parallel()
	roomy := machine{memory: 8 << 30, memoryAvailable: 4 << 30, disk: 100, diskFree: 50, inodes: 100, inodesFree: 50, processes: 100, processesFree: 50}
	for want, mutate := range map[corev1.NodeConditionType]func(*machine){
		corev1.NodeMemoryPressure: func(m *machine) { m.memoryAvailable = 99 << 20 },
		corev1.NodeDiskPressure:   func(m *machine) { m.inodesFree = 4 },
		corev1.NodePIDPressure:    func(m *machine) { m.processesFree = 4 },
	} {
		m := roomy
		mutate(&m)
		for _, c := range pressures(&m, nil) {
			if (c.Status == corev1.ConditionTrue) != (c.Type == want) {
				t.Errorf("short of %s: %+v", want, c)
			}
		}
		for _, c := range pressures(&m, errors.New("no /proc")) {
			if c.Status != corev1.ConditionUnknown {
				t.Errorf("the machine cannot be read: %+v", c)
			}
		}
	}
	m := roomy
	if m.diskFree = 9; !m.lowOnDisk() {
		t.Error("9 % of the disk is enough")
	}
}

func TestParseMeminfo(t *testing.T) {
	t.Parallel()
	got := parseMeminfo([]byte("MemTotal:       24000 kB\nHugePages_Total:       0\nMemAvailable: x kB\nno colon\n"))
	if len(got) != 1 || got["MemTotal"] != 24000<<10 {
		t.Errorf("got %v", got)
	}
}
