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

// maxOutput bounds the output that Exec returns, in bytes.
const maxOutput = 64 << 10

// Exec runs a command in a container and returns its exit code and the first 64 KiB of its output, with standard error
// after standard output. The timeout must be positive and is rounded up to whole seconds. A command that exceeds it is
// ended, and the error is ErrTimedOut.
func (r *Runtime) Exec(ctx context.Context, containerID string, command []string, timeout time.Duration) (exitCode int, output []byte, err error) {
	if timeout <= 0 {
		return 0, nil, fmt.Errorf("run a command in container %s: timeout %v", containerID, timeout)
	}
	if err := r.requireOwnContainer(ctx, containerID); err != nil {
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
		return 0, output, fmt.Errorf("run a command in container %s: %w", containerID, runtimeText(err))
	}
	return 0, output, nil
}

// ExecURL returns the URL at which the runtime serves the streams of a command. It is valid for one connection, for a short
// time.
func (r *Runtime) ExecURL(ctx context.Context, containerID string, command []string, streams podoptions.Streams) (*url.URL, error) {
	if err := r.requireOwnContainer(ctx, containerID); err != nil {
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
		return nil, fmt.Errorf("run a command in container %s: %w", containerID, runtimeText(err))
	}
	return streamURL(answer.GetUrl())
}

// AttachURL returns the URL at which the runtime serves the streams of a container's first process.
func (r *Runtime) AttachURL(ctx context.Context, containerID string, streams podoptions.Streams) (*url.URL, error) {
	if err := r.requireOwnContainer(ctx, containerID); err != nil {
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
		return nil, fmt.Errorf("attach to container %s: %w", containerID, runtimeText(err))
	}
	return streamURL(answer.GetUrl())
}

// PortForwardURL returns the URL at which the runtime serves connections to ports of a sandbox.
func (r *Runtime) PortForwardURL(ctx context.Context, sandboxID string, ports []int32) (*url.URL, error) {
	if _, err := r.requireOwnSandbox(ctx, sandboxID); err != nil {
		return nil, err
	}
	ctx, rpc, _, err := r.connected(ctx)
	if err != nil {
		return nil, err
	}
	answer, err := rpc.PortForward(ctx, &runtimeapi.PortForwardRequest{PodSandboxId: sandboxID, Port: ports})
	if err != nil {
		return nil, fmt.Errorf("forward ports of sandbox %s: %w", sandboxID, runtimeText(err))
	}
	return streamURL(answer.GetUrl())
}

// streamURL parses the URL of a stream. The error does not contain it, because the URL alone gives access to the stream.
func streamURL(text string) (*url.URL, error) {
	parsed, err := url.Parse(text)
	if err != nil || parsed.Host == "" {
		return nil, errors.New("the container runtime returned no URL for streams")
	}
	return parsed, nil
}
