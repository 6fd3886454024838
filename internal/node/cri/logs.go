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
	"k8s.io/cri-client/pkg/logs"
	"k8s.io/utils/ptr"
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
	return os.RemoveAll(dir)
}

// Logs writes what a container has said, and with Follow what it says until it ends. A nil writer leaves its stream out,
// and so does the options' Stream. A container that has not been started has said nothing.
func (r *Runtime) Logs(ctx context.Context, containerID string, options *corev1.PodLogOptions, stdout, stderr io.Writer) error {
	answer, err := r.containerStatus(ctx, containerID, false)
	if err != nil {
		return err
	}
	path, err := r.checkLog(answer.GetStatus())
	if err != nil || path == "" {
		return err
	}
	ctx, rpc, _, err := r.connected(ctx)
	if err != nil {
		return err
	}
	switch ptr.Deref(options.Stream, corev1.LogStreamAll) {
	case corev1.LogStreamStdout:
		stderr = nil
	case corev1.LogStreamStderr:
		stdout = nil
	}
	err = logs.ReadLogs(ctx, path, containerID, logOptions(options, time.Now()), rpc, stdout, stderr)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// checkLog returns where a container's log is; "" is that there is none yet. It must be below the log directory even
// when links are followed: a pod that may write there could otherwise let others read any file of the machine.
func (r *Runtime) checkLog(status *runtimeapi.ContainerStatus) (string, error) {
	path, err := filepath.EvalSymlinks(status.GetLogPath())
	if errors.Is(err, fs.ErrNotExist) && stateOf(status.GetState()) == Created {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("log of container %s: %w", status.GetId(), err)
	}
	dir, err := filepath.EvalSymlinks(r.config.LogDir)
	if err != nil {
		return "", fmt.Errorf("log directory: %w", err)
	}
	if !strings.HasPrefix(path, dir+string(filepath.Separator)) {
		return "", fmt.Errorf("log of container %s: not below the log directory", status.GetId())
	}
	return path, nil
}

func logOptions(options *corev1.PodLogOptions, now time.Time) *logs.LogOptions {
	asked := &logs.LogOptions{TailLines: options.TailLines, LimitBytes: options.LimitBytes, Follow: options.Follow, Timestamp: options.Timestamps}
	switch {
	case options.SinceSeconds != nil:
		asked.Since = now.Add(-time.Duration(*options.SinceSeconds) * time.Second)
	case options.SinceTime != nil:
		asked.Since = options.SinceTime.Time
	}
	return asked
}
