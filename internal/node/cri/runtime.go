//go:build linux

package cri

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/apimachinery/pkg/util/validation"
	internalapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	remote "k8s.io/cri-client/pkg"
	"k8s.io/klog/v2"
)

const (
	// callTimeout bounds a call that changes or lists something. It is the kubelet's: a machine under load is slow, and a
	// call given up is work done twice.
	callTimeout = 2 * time.Minute
	// askTimeout bounds a call whose answer is kept by the runtime.
	askTimeout = 10 * time.Second
	// pullTimeout bounds a pull, which has to fetch gigabytes over a slow line.
	pullTimeout = time.Hour
)

// Config says which runtime, and what in it is this agent's.
type Config struct {
	// Endpoint is the runtime's socket: unix:// and an absolute path.
	Endpoint string
	// AgentID marks the sandboxes and containers that are this agent's; it is a label's value. Nothing without it is ever
	// touched.
	AgentID string
	// LogDir gets a directory for each pod.
	LogDir string
	// CgroupDriver is "cgroupfs" or "systemd"; with "" the runtime is asked.
	CgroupDriver string
	// SeccompDir has the profiles that pods name; "" is the kubelet's /var/lib/kubelet/seccomp.
	SeccompDir string
	// AppArmorFile says Y where the kernel enforces AppArmor; "" is the kernel's own.
	AppArmorFile string
	// ResolvConf is what pods with the machine's name resolution get; "" is the machine's own, passing over a resolver
	// that listens on loopback, which no pod reaches.
	ResolvConf string
	// Memory is this machine's, in bytes; 0 where it is not known.
	Memory int64
}

func (c *Config) validate() error {
	var all []error
	if path, ok := strings.CutPrefix(c.Endpoint, "unix://"); !ok || !filepath.IsAbs(path) {
		all = append(all, fmt.Errorf("container runtime endpoint %q: must be unix:// and an absolute path", c.Endpoint))
	}
	if c.AgentID == "" || len(validation.IsValidLabelValue(c.AgentID)) > 0 {
		all = append(all, fmt.Errorf("agent ID %q: must be a label's value", c.AgentID))
	}
	if !filepath.IsAbs(c.LogDir) {
		all = append(all, fmt.Errorf("log directory %q: must be an absolute path", c.LogDir))
	}
	switch c.CgroupDriver {
	case "", cgroupfs, systemd:
	default:
		all = append(all, fmt.Errorf("cgroup driver %q: must be %s or %s", c.CgroupDriver, cgroupfs, systemd))
	}
	return errors.Join(all...)
}

// Runtime is one container runtime. Its methods may be called concurrently, each returns within a bounded time, and
// after the runtime was away they work again as soon as it is back.
type Runtime struct {
	config Config
	owned  owned
	seen   seen
	pulls  pulls

	mu     sync.Mutex
	rpc    internalapi.RuntimeService
	images internalapi.ImageManagerService
	parent *string // of the pods' cgroups; nil until it is known
}

// Dial prepares for a runtime. It need not run yet: each call connects where that is still to do.
func Dial(_ context.Context, config Config) (*Runtime, error) {
	if err := config.validate(); err != nil {
		return nil, err
	}
	if config.SeccompDir == "" {
		config.SeccompDir = "/var/lib/kubelet/seccomp"
	}
	return &Runtime{config: config}, nil
}

// Close ends the connection. Containers go on.
func (r *Runtime) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.closeLocked()
}

func (r *Runtime) closeLocked() error {
	var all []error
	if r.rpc != nil {
		all = append(all, r.rpc.Close(quiet(context.Background())))
	}
	if r.images != nil {
		all = append(all, r.images.Close(quiet(context.Background())))
	}
	r.rpc, r.images = nil, nil
	return errors.Join(all...)
}

// connected returns the runtime's two services, and the context to call them with. The library refuses to make a client of
// a runtime that does not answer.
func (r *Runtime) connected(ctx context.Context) (context.Context, internalapi.RuntimeService, internalapi.ImageManagerService, error) {
	ctx = quiet(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.rpc != nil {
		return ctx, r.rpc, r.images, nil
	}
	asking, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	rpc, err := remote.NewRemoteRuntimeServiceBuilder().WithEndpoint(r.config.Endpoint).WithConnectionTimeout(callTimeout).WithTracerProvider(nil).Build(asking)
	if err != nil {
		return ctx, nil, nil, fmt.Errorf("connect to the container runtime: %w", said(err))
	}
	images, err := remote.NewRemoteImageServiceBuilder().WithEndpoint(r.config.Endpoint).WithConnectionTimeout(callTimeout).WithTracerProvider(nil).Build(asking)
	if err != nil {
		_ = rpc.Close(ctx)
		return ctx, nil, nil, fmt.Errorf("connect to the container runtime's images: %w", said(err))
	}
	r.rpc, r.images = rpc, images
	return ctx, rpc, images, nil
}

// quiet keeps the library from logging what it also returns, and the lines of containers' logs.
func quiet(ctx context.Context) context.Context { return klog.NewContext(ctx, klog.Logger{}) }

// Version is the runtime's name and version.
func (r *Runtime) Version(ctx context.Context) (name, version string, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	ctx, rpc, _, err := r.connected(ctx)
	if err != nil {
		return "", "", err
	}
	answer, err := rpc.Version(ctx, "")
	if err != nil {
		return "", "", fmt.Errorf("ask the container runtime for its version: %w", said(err))
	}
	return answer.RuntimeName, answer.RuntimeVersion, nil
}

// Status asks the runtime.
func (r *Runtime) Status(ctx context.Context) (Status, error) {
	answer, err := r.status(ctx, false)
	if err != nil {
		return Status{}, err
	}
	var found Status
	var unready []string
	for _, condition := range answer.GetStatus().GetConditions() {
		switch condition.Type {
		case runtimeapi.RuntimeReady:
			found.RuntimeReady = condition.Status
		case runtimeapi.NetworkReady:
			found.NetworkReady = condition.Status
		}
		if !condition.Status {
			unready = append(unready, fmt.Sprintf("%s: %s: %s", condition.Type, condition.Reason, condition.Message))
		}
	}
	found.Message = strings.Join(unready, "; ")
	return found, nil
}

func (r *Runtime) status(ctx context.Context, verbose bool) (*runtimeapi.StatusResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	ctx, rpc, _, err := r.connected(ctx)
	if err != nil {
		return nil, err
	}
	answer, err := rpc.Status(ctx, verbose)
	if err != nil {
		return nil, fmt.Errorf("ask the container runtime for its status: %w", said(err))
	}
	return answer, nil
}

// runtimeError is an error in the runtime's own words, as users see it in a pod's status.
type runtimeError struct {
	message string
	cause   error
}

func (e *runtimeError) Error() string { return e.message }
func (e *runtimeError) Unwrap() error { return e.cause }

// Is makes a caller's own end recognisable, which gRPC tells by a code.
func (e *runtimeError) Is(target error) bool {
	switch status.Code(e.cause) {
	case codes.Canceled:
		return target == context.Canceled
	case codes.DeadlineExceeded:
		return target == context.DeadlineExceeded
	}
	return false
}

// said strips what gRPC puts around the runtime's words. The result still has the cause's status code.
func said(err error) error {
	if answer, ok := err.(interface{ GRPCStatus() *status.Status }); ok {
		return &runtimeError{message: answer.GRPCStatus().Message(), cause: err}
	}
	return err
}

func isNotFound(err error) bool { return status.Code(err) == codes.NotFound }
