//go:build linux

package cri

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/ptr"

	"lanyard.dev/internal/node/crilog"
)

// podLogs is a pod's log directory, as the kubelet names them.
func (r *Runtime) podLogs(namespace, name string, uid types.UID) string {
	return filepath.Join(r.config.LogDir, strings.Join([]string{namespace, name, string(uid)}, "_"))
}

// logName is a log's below its pod's directory.
func logName(container string, attempt uint32) string {
	return filepath.Join(container, strconv.FormatUint(uint64(attempt), 10)+".log")
}

// LogPath is where the runtime writes what a container says.
func (r *Runtime) LogPath(pod *corev1.Pod, container string, attempt uint32) string {
	return filepath.Join(r.podLogs(pod.Namespace, pod.Name, pod.UID), logName(container, attempt))
}

// LoggedPods returns the pods that have a directory of logs, with nothing but their names. What else is there is not told.
func (r *Runtime) LoggedPods() ([]Pod, error) {
	entries, err := os.ReadDir(r.config.LogDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list the logs of pods: %w", err)
	}
	var all []Pod
	for _, entry := range entries {
		// Neither names of namespaces nor of pods have underscores.
		if parts := strings.Split(entry.Name(), "_"); len(parts) == 3 && entry.IsDir() && parts[2] != "" {
			all = append(all, Pod{Namespace: parts[0], Name: parts[1], UID: types.UID(parts[2])})
		}
	}
	return all, nil
}

// RemovePodLogs removes the logs of a pod that is gone.
func (r *Runtime) RemovePodLogs(namespace, name string, uid types.UID) error {
	dir := r.podLogs(namespace, name, uid)
	if uid == "" || filepath.Dir(dir) != filepath.Clean(r.config.LogDir) {
		return fmt.Errorf("%q is no pod's log directory", dir)
	}
	return r.inLogs(func(logs *os.Root) error { return logs.RemoveAll(filepath.Base(dir)) })
}

// inLogs calls f with the log directory. Nothing that f does with it leads out of it, whatever links are there.
func (r *Runtime) inLogs(f func(logs *os.Root) error) error {
	logs, err := os.OpenRoot(r.config.LogDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("log directory: %w", err)
	}
	defer func() { _ = logs.Close() }()
	return f(logs)
}

// Logs writes what a container has said, and with Follow what it says until it ends. A nil writer leaves its stream out,
// and so does the options' Stream. A container that has not been started has said nothing.
func (r *Runtime) Logs(ctx context.Context, containerID string, options *corev1.PodLogOptions, stdout, stderr io.Writer) error {
	answer, err := r.containerStatus(ctx, containerID, false)
	if err != nil {
		return err
	}
	status := answer.GetStatus()
	switch ptr.Deref(options.Stream, corev1.LogStreamAll) {
	case corev1.LogStreamStdout:
		stderr = nil
	case corev1.LogStreamStderr:
		stdout = nil
	}
	asked := logOptions(options, time.Now())
	asked.Stdout, asked.Stderr = stdout, stderr
	if options.Follow {
		asked.Running = func(ctx context.Context) (bool, error) { return r.isRunning(ctx, containerID) }
	}
	err = r.readLog(ctx, status, asked)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, fs.ErrNotExist) && stateOf(status.GetState()) == Created:
		return nil
	case err != nil:
		return fmt.Errorf("log of container %s: %w", containerID, err)
	}
	return nil
}

// readLog reads a log below the log directory alone, even where links lead elsewhere: a pod that may write there could
// otherwise let others read any file of the machine.
func (r *Runtime) readLog(ctx context.Context, status *runtimeapi.ContainerStatus, asked crilog.Options) error {
	dir, err := os.OpenRoot(r.config.LogDir)
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }()
	name, err := r.belowLogs(status.GetLogPath())
	if err != nil {
		return err
	}
	return crilog.Read(ctx, dir, name, asked)
}

// belowLogs returns a path as it is to be opened in the log directory.
func (r *Runtime) belowLogs(path string) (name string, err error) {
	name, err = filepath.Rel(r.config.LogDir, path)
	if err != nil || !filepath.IsLocal(name) {
		return "", errors.New("not below the log directory")
	}
	return name, nil
}

// makeLogs makes a directory of logs, of a pod or of one of its containers.
func (r *Runtime) makeLogs(path string) error {
	name, err := r.belowLogs(path)
	if err != nil {
		return err
	}
	const mode = 0o750
	if err := os.MkdirAll(r.config.LogDir, mode); err != nil {
		return err
	}
	return r.inLogs(func(logs *os.Root) error { return logs.MkdirAll(name, mode) })
}

// isRunning says of a container that the runtime, which may be away, does not tell of that it runs.
func (r *Runtime) isRunning(ctx context.Context, containerID string) (bool, error) {
	answer, err := r.containerStatus(ctx, containerID, false)
	switch {
	case isNotFound(err):
		return false, nil
	case err != nil:
		return ctx.Err() == nil, ctx.Err()
	}
	return stateOf(answer.GetStatus().GetState()) == Running, nil
}

func logOptions(options *corev1.PodLogOptions, now time.Time) crilog.Options {
	asked := crilog.Options{TailLines: options.TailLines, LimitBytes: options.LimitBytes, Timestamps: options.Timestamps}
	switch {
	case options.SinceSeconds != nil:
		asked.Since = now.Add(-time.Duration(*options.SinceSeconds) * time.Second)
	case options.SinceTime != nil:
		asked.Since = options.SinceTime.Time
	}
	return asked
}

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
