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

// notifyTimeout bounds a command that is run on a renewal.
const notifyTimeout = 30 * time.Second

// Renewed tells that volumes of the pod have new content. It says so in an event if tokens are among it, and does what the
// pod's on-renew annotation said when the pod was started to the running containers that mount one of the volumes.
func (p *Pods) Renewed(pod *corev1.Pod, volumes []string) {
	if tokens := tokenVolumes(pod, volumes); len(tokens) > 0 {
		p.normal(pod, reasonTokenRenewed, "Renewed the token in volume %s", strings.Join(tokens, ", "))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	w, ctx := p.workers[pod.UID], p.running
	if w == nil || ctx == nil || ctx.Err() != nil {
		return
	}
	how, ok := w.notice()
	if !ok {
		return
	}
	for _, run := range w.mountersOf(volumes) {
		p.group.Go(func() { p.notify(ctx, pod, run, how) })
	}
}

// tokenVolumes returns those of the volumes that hold a token.
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

// notice returns what is done to the pod's containers: what its annotation said when the pod was started. One that was
// changed since does not count, for who may write to a pod's object may not run commands in it.
func (w *worker) notice() (how podannotation.Notice, ok bool) {
	_, _, held := w.look()
	live := (&situation{held: held}).live()
	if live == nil || live.OnRenew == "" {
		return podannotation.Notice{}, false
	}
	how, err := podannotation.ParseNotice(live.OnRenew)
	return how, err == nil // else it was told of when the pod came
}

// mountersOf returns the running containers that mount one of the volumes.
func (w *worker) mountersOf(volumes []string) []cri.Container {
	pod, _, held := w.look()
	var all []cri.Container
	for _, run := range held.Containers {
		c := containerOf(pod, run.Name)
		if run.State == cri.Running && c != nil && slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return slices.Contains(volumes, m.Name) }) {
			all = append(all, run)
		}
	}
	return all
}

// notify tells one container, and then everybody how that went.
func (p *Pods) notify(ctx context.Context, pod *corev1.Pod, run cri.Container, how podannotation.Notice) {
	err := p.deliver(ctx, run.ID, how)
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		p.warningOf(pod, run.Name, reasonRenewUnnotified, "Did not tell the container of the renewal: %v", err)
	} else {
		p.normalOf(pod, run.Name, reasonRenewNotified, "Told the container of the renewal by %s", how)
	}
	if p.OnNotified != nil {
		p.OnNotified(pod, run.Name, err)
	}
}

func (p *Pods) deliver(ctx context.Context, id string, how podannotation.Notice) error {
	if how.Command == nil {
		return p.Runtime.Signal(ctx, id, how.Signal)
	}
	code, _, err := p.Runtime.Exec(ctx, id, how.Command, notifyTimeout)
	switch {
	case errors.Is(err, cri.ErrTimedOut):
		return fmt.Errorf("the command took longer than %v", notifyTimeout)
	case err == nil && code != 0:
		return fmt.Errorf("the command ended with exit code %d", code)
	}
	return err
}
