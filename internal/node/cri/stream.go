//go:build linux

package cri

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	remote "k8s.io/cri-client/pkg"
	"k8s.io/utils/exec"

	"lanyard.dev/internal/podoptions"
)

// maxOutput bounds what Exec keeps of a command's output.
const maxOutput = 64 << 10

// Exec runs a command in a container and returns its exit code and the first 64 KiB of what it wrote, errors after
// output. Timeout is rounded up to whole seconds, must be more than nothing, and ends the command with ErrTimedOut.
func (r *Runtime) Exec(ctx context.Context, containerID string, command []string, timeout time.Duration) (exitCode int, output []byte, err error) {
	if timeout <= 0 {
		return 0, nil, fmt.Errorf("run a command in container %s: timeout %v", containerID, timeout)
	}
	if err := r.claimContainer(ctx, containerID); err != nil {
		return 0, nil, err
	}
	ctx, rpc, _, err := r.connected(ctx)
	if err != nil {
		return 0, nil, err
	}
	stdout, stderr, err := rpc.ExecSync(ctx, containerID, command, time.Duration(seconds(timeout))*time.Second)
	output = append(stdout, stderr...)
	output = output[:min(len(output), maxOutput)]
	if exit := (exec.CodeExitError{}); errors.As(err, &exit) {
		return exit.Code, output, nil
	}
	if errors.Is(err, remote.ErrCommandTimedOut) {
		return 0, output, fmt.Errorf("run a command in container %s: %w of %v", containerID, ErrTimedOut, timeout)
	}
	if err != nil {
		return 0, output, fmt.Errorf("run a command in container %s: %w", containerID, said(err))
	}
	return 0, output, nil
}

// ExecURL returns where the runtime serves the streams of a command. It is good for one connection, soon.
func (r *Runtime) ExecURL(ctx context.Context, containerID string, command []string, streams podoptions.Streams) (*url.URL, error) {
	if err := r.claimContainer(ctx, containerID); err != nil {
		return nil, err
	}
	ctx, rpc, _, err := r.connected(ctx)
	if err != nil {
		return nil, err
	}
	answer, err := rpc.Exec(ctx, &runtimeapi.ExecRequest{
		ContainerId: containerID, Cmd: command, Tty: streams.TTY, Stdin: streams.Stdin, Stdout: streams.Stdout, Stderr: streams.Stderr && !streams.TTY,
	})
	if err != nil {
		return nil, fmt.Errorf("run a command in container %s: %w", containerID, said(err))
	}
	return streamURL(answer.GetUrl())
}

// AttachURL returns where the runtime serves the streams of a container's first process.
func (r *Runtime) AttachURL(ctx context.Context, containerID string, streams podoptions.Streams) (*url.URL, error) {
	if err := r.claimContainer(ctx, containerID); err != nil {
		return nil, err
	}
	ctx, rpc, _, err := r.connected(ctx)
	if err != nil {
		return nil, err
	}
	answer, err := rpc.Attach(ctx, &runtimeapi.AttachRequest{
		ContainerId: containerID, Tty: streams.TTY, Stdin: streams.Stdin, Stdout: streams.Stdout, Stderr: streams.Stderr && !streams.TTY,
	})
	if err != nil {
		return nil, fmt.Errorf("attach to container %s: %w", containerID, said(err))
	}
	return streamURL(answer.GetUrl())
}

// PortForwardURL returns where the runtime serves connections to ports of a sandbox.
func (r *Runtime) PortForwardURL(ctx context.Context, sandboxID string, ports []int32) (*url.URL, error) {
	if _, err := r.claimSandbox(ctx, sandboxID); err != nil {
		return nil, err
	}
	ctx, rpc, _, err := r.connected(ctx)
	if err != nil {
		return nil, err
	}
	answer, err := rpc.PortForward(ctx, &runtimeapi.PortForwardRequest{PodSandboxId: sandboxID, Port: ports})
	if err != nil {
		return nil, fmt.Errorf("forward ports of sandbox %s: %w", sandboxID, said(err))
	}
	return streamURL(answer.GetUrl())
}

// streamURL does not repeat the URL in an error: whoever knows it may use it.
func streamURL(text string) (*url.URL, error) {
	parsed, err := url.Parse(text)
	if err != nil || parsed.Host == "" {
		return nil, errors.New("the container runtime returned no URL for streams")
	}
	return parsed, nil
}
