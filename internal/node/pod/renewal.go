package pod

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"lanyard.dev/internal/node/cri"
	"lanyard.dev/internal/podannotation"
)

// notifyTimeout bounds a command of an on-renew annotation.
const notifyTimeout = 30 * time.Second

// renewed records an event for volumes of the pod whose token was replaced, and carries out the on-renew annotation that the
// pod had when it was started: in each running container that mounts one of the volumes.
func (p *Pods) renewed(pod *corev1.Pod, volumes []string) {
	if tokens := tokenVolumes(pod, volumes); len(tokens) > 0 {
		p.normal(pod, reasonTokenRenewed, "Renewed the token in volume %s", strings.Join(tokens, ", "))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	w, ctx := p.workers[pod.UID], p.running
	if w == nil || ctx == nil || ctx.Err() != nil {
		return
	}
	notice, ok := w.notice()
	if !ok {
		return
	}
	for _, run := range w.containersThatMount(volumes) {
		p.group.Go(func() { p.notify(ctx, pod, run, notice) })
	}
}

// tokenVolumes returns the volumes that contain a token.
func tokenVolumes(pod *corev1.Pod, volumes []string) []string {
	var all []string
	for _, v := range pod.Spec.Volumes {
		holds := v.Projected != nil && slices.ContainsFunc(v.Projected.Sources, func(s corev1.VolumeProjection) bool { return s.ServiceAccountToken != nil })
		if holds && slices.Contains(volumes, v.Name) {
			all = append(all, v.Name)
		}
	}
	return all
}

// notice returns the on-renew annotation as it was when the pod was started. A later change of the annotation has no effect,
// because permission to write a pod's object is not permission to run commands in its containers.
func (w *worker) notice() (notice podannotation.Notice, ok bool) {
	_, _, observed := w.snapshot()
	live := (&situation{observed: observed}).readySandbox()
	if live == nil || live.OnRenew == "" {
		return podannotation.Notice{}, false
	}
	notice, err := podannotation.ParseNotice(live.OnRenew)
	return notice, err == nil // otherwise an event was recorded when the pod was admitted
}

// containersThatMount returns the running containers that mount one of the volumes.
func (w *worker) containersThatMount(volumes []string) []cri.Container {
	pod, _, observed := w.snapshot()
	var all []cri.Container
	for _, run := range observed.Containers {
		c := containerOf(pod, run.Name)
		if run.State == cri.Running && c != nil && slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return slices.Contains(volumes, m.Name) }) {
			all = append(all, run)
		}
	}
	return all
}

// notify carries out the notice in one container, and records the result in an event.
func (p *Pods) notify(ctx context.Context, pod *corev1.Pod, run cri.Container, notice podannotation.Notice) {
	err := p.deliver(ctx, run.ID, notice)
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		p.warningOf(pod, run.Name, reasonRenewUnnotified, "Could not notify the container of the renewal: %v", err)
	} else {
		p.normalOf(pod, run.Name, reasonRenewNotified, "Notified the container of the renewal by %s", notice)
	}
}

func (p *Pods) deliver(ctx context.Context, id string, notice podannotation.Notice) error {
	if notice.Command == nil {
		return p.Runtime.Signal(ctx, id, notice.Signal)
	}
	code, _, err := p.Runtime.Exec(ctx, id, notice.Command, notifyTimeout)
	switch {
	case errors.Is(err, cri.ErrTimedOut):
		return fmt.Errorf("the command took longer than %v", notifyTimeout)
	case err == nil && code != 0:
		return fmt.Errorf("the command ended with exit code %d", code)
	}
	return err
}
