package pod

import (
	"context"
	"errors"
	"slices"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
)

// recover removes, once it is known which pods exist, what earlier agents left of others on this machine. What the runtime
// holds of such pods is found by observe.
func (p *Pods) recover(ctx context.Context) {
	select {
	case <-ctx.Done():
		return
	case <-p.synced:
	}
	var again retry
	for ctx.Err() == nil {
		err := p.removeLeftovers(ctx)
		if err == nil {
			return
		}
		klog.ErrorS(err, "Will be tried again: remove what is left of earlier pods")
		again.failed(p.Clock.Now(), runtimePace, p.jitter())
		timer := p.Clock.NewTimer(again.until.Sub(p.Clock.Now()))
		select {
		case <-timer.C():
		case <-ctx.Done():
			timer.Stop()
		}
	}
}

// removeLeftovers lists before it asks which pods are known, so that those that come meanwhile are not among the leftovers.
// It waits for the runtime's list, since pods found there have workers, which remove more than files.
func (p *Pods) removeLeftovers(ctx context.Context) error {
	if err := p.relist.fresh(ctx); err != nil {
		return err
	}
	found, err := p.leftovers()
	if err != nil {
		return err
	}
	logged, err := p.Runtime.LoggedPods()
	if err != nil {
		return err
	}
	var errs []error
	known := p.known()
	isKnown := func(uid types.UID) bool { _, ok := slices.BinarySearch(known, uid); return ok }
	for _, uid := range found {
		if !isKnown(uid) {
			errs = append(errs, p.Volumes.TearDown(ctx, uid), p.files.remove(uid))
		}
	}
	for _, pod := range logged {
		if !isKnown(pod.UID) {
			errs = append(errs, p.Runtime.RemovePodLogs(pod.Namespace, pod.Name, pod.UID))
		}
	}
	return errors.Join(errs...)
}

// leftovers returns every pod of which there are volumes or files, logs apart.
func (p *Pods) leftovers() ([]types.UID, error) {
	mounted, err := p.Volumes.Existing()
	if err != nil {
		return nil, err
	}
	kept, err := p.files.existing()
	if err != nil {
		return nil, err
	}
	all := append(mounted, kept...)
	slices.Sort(all)
	return slices.Compact(all), nil
}
