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

// podLogs returns the path of a pod's log directory, which is named as the kubelet names it.
func (r *Runtime) podLogs(namespace, name string, uid types.UID) string {
	return filepath.Join(r.config.LogDir, strings.Join([]string{namespace, name, string(uid)}, "_"))
}

// logName returns the path of a log below the log directory of its pod.
func logName(container string, attempt uint32) string {
	return filepath.Join(container, strconv.FormatUint(uint64(attempt), 10)+".log")
}

// LogPath returns the path of the file to which the runtime writes the output of a container.
func (r *Runtime) LogPath(pod *corev1.Pod, container string, attempt uint32) string {
	return filepath.Join(r.podLogs(pod.Namespace, pod.Name, pod.UID), logName(container, attempt))
}

// LoggedPods returns the pods that have a log directory, with their names and UIDs only. It ignores other files.
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
		// Names of namespaces and pods contain no underscores.
		if parts := strings.Split(entry.Name(), "_"); len(parts) == 3 && entry.IsDir() && parts[2] != "" {
			all = append(all, Pod{Namespace: parts[0], Name: parts[1], UID: types.UID(parts[2])})
		}
	}
	return all, nil
}

// RemovePodLogs removes the logs of a pod that no longer exists.
func (r *Runtime) RemovePodLogs(namespace, name string, uid types.UID) error {
	dir := r.podLogs(namespace, name, uid)
	if uid == "" || filepath.Dir(dir) != filepath.Clean(r.config.LogDir) {
		return fmt.Errorf("%q is no pod's log directory", dir)
	}
	return r.inLogs(func(logs *os.Root) error { return logs.RemoveAll(filepath.Base(dir)) })
}

// inLogs calls f with the log directory, which need not exist. f cannot reach files outside of it, not even through links.
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

// Logs writes the output of a container, and with Follow also its later output until the container ends. A stream with a
// nil writer is left out, and so are those that the options' Stream excludes. A container that has not been started has no
// output.
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
	read := logOptions(options, time.Now())
	read.Stdout, read.Stderr = stdout, stderr
	if options.Follow {
		read.Running = func(ctx context.Context) (bool, error) { return r.isRunning(ctx, containerID) }
	}
	err = r.readLog(ctx, status, read)
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

// readLog reads a log in the log directory, and no file outside of it, even through links. Otherwise a pod that can write
// to the directory could show any file of the machine to others.
func (r *Runtime) readLog(ctx context.Context, status *runtimeapi.ContainerStatus, options crilog.Options) error {
	dir, err := os.OpenRoot(r.config.LogDir)
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }()
	name, err := r.belowLogs(status.GetLogPath())
	if err != nil {
		return err
	}
	return crilog.Read(ctx, dir, name, options)
}

// belowLogs returns a path relative to the log directory.
func (r *Runtime) belowLogs(path string) (name string, err error) {
	name, err = filepath.Rel(r.config.LogDir, path)
	if err != nil || !filepath.IsLocal(name) {
		return "", errors.New("not below the log directory")
	}
	return name, nil
}

// makeLogs creates the log directory of a pod or of a container.
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

// isRunning reports whether a container runs. If the runtime does not answer, the container is assumed to run.
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
	read := crilog.Options{TailLines: options.TailLines, LimitBytes: options.LimitBytes, Timestamps: options.Timestamps}
	switch {
	case options.SinceSeconds != nil:
		read.Since = now.Add(-time.Duration(*options.SinceSeconds) * time.Second)
	case options.SinceTime != nil:
		read.Since = options.SinceTime.Time
	}
	return read
}

// maxLog is the size in bytes above which a container's log is rotated. It is the kubelet's default.
const maxLog = 10 << 20

// earlierLog is the suffix of the previous part of a log. Only one previous part is kept, so a container's log takes at
// most twice maxLog and the output between two rotations.
const earlierLog = ".1"

// RotateLogs rotates the logs of running containers that are too long. Nothing else bounds them, because the runtime writes
// all output of containers. It must be called every few seconds.
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

// rotate renames the log and makes the runtime open a new one. If the runtime does not, the log gets its name back, because
// the runtime continues to write to it.
func (r *Runtime) rotate(ctx context.Context, id string, logs *os.Root, name string) error {
	ctx, rpc, _, err := r.connected(ctx)
	if err != nil {
		return err
	}
	if err := logs.Rename(name, name+earlierLog); err != nil {
		return fmt.Errorf("rotate the log of container %s: %w", id, err)
	}
	if err := rpc.ReopenContainerLog(ctx, id); err != nil {
		return errors.Join(fmt.Errorf("rotate the log of container %s: %w", id, runtimeText(err)), logs.Rename(name+earlierLog, name))
	}
	return nil
}

// removeLog removes the log of a container that no longer exists.
func removeLog(logs *os.Root, name string) error {
	var faults []error
	for _, one := range []string{name, name + earlierLog} {
		if err := logs.Remove(one); !errors.Is(err, fs.ErrNotExist) {
			faults = append(faults, err)
		}
	}
	return errors.Join(faults...)
}
