//go:build linux

package cri

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// maxLog is the size in bytes beyond which a container's log is begun anew, as with the kubelet's default.
const maxLog = 10 << 20

// earlierLog is the ending of the part of a log that came before the present one. There is one: with it, a container's log
// takes twice maxLog, and what is written between two rotations.
const earlierLog = ".1"

// RotateLogs begins anew the logs of running containers that have become long. Nothing else bounds them: the runtime writes
// what containers say. It is to be called every few seconds.
func (r *Runtime) RotateLogs(ctx context.Context) error { return r.rotateLogs(ctx, maxLog) }

func (r *Runtime) rotateLogs(ctx context.Context, limit int64) error {
	pods, err := r.Pods(ctx)
	if err != nil {
		return err
	}
	return r.inLogs(func(logs *os.Root) error {
		var faults []error
		for _, pod := range pods {
			dir := filepath.Base(r.podLogs(pod.Namespace, pod.Name, pod.UID))
			for _, c := range pod.Containers {
				name := filepath.Join(dir, logName(c.Name, c.Attempt))
				if info, err := logs.Lstat(name); c.State == Running && err == nil && info.Mode().IsRegular() && info.Size() > limit {
					faults = append(faults, r.rotate(ctx, c.ID, logs, name))
				}
			}
		}
		return errors.Join(faults...)
	})
}

// rotate puts the log back where the runtime does not begin another, since it goes on to write to the old one then.
func (r *Runtime) rotate(ctx context.Context, id string, logs *os.Root, name string) error {
	ctx, rpc, _, err := r.connected(ctx)
	if err != nil {
		return err
	}
	if err := logs.Rename(name, name+earlierLog); err != nil {
		return fmt.Errorf("rotate the log of container %s: %w", id, err)
	}
	if err := rpc.ReopenContainerLog(ctx, id); err != nil {
		return errors.Join(fmt.Errorf("rotate the log of container %s: %w", id, said(err)), logs.Rename(name+earlierLog, name))
	}
	return nil
}

// removeLog removes what a container that is gone has said.
func removeLog(logs *os.Root, name string) error {
	var faults []error
	for _, one := range []string{name, name + earlierLog} {
		if err := logs.Remove(one); !errors.Is(err, fs.ErrNotExist) {
			faults = append(faults, err)
		}
	}
	return errors.Join(faults...)
}
