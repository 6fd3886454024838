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
	// callTimeout bounds a call that changes or lists something. It is the kubelet's: on a machine under load calls are
	// slow, and a canceled call must be done again.
	callTimeout = 2 * time.Minute
	// queryTimeout bounds a call that only returns what the runtime knows.
	queryTimeout = 10 * time.Second
	// pullTimeout bounds a pull, which may transfer gigabytes over a slow connection.
	pullTimeout = time.Hour
)

// Config configures a Runtime.
type Config struct {
	// Endpoint is the runtime's socket: unix:// and an absolute path.
	Endpoint string
	// AgentID is the value of the label of this agent's sandboxes and containers. The agent never touches others.
	AgentID string
	// LogDir is the directory of the log directories of all pods.
	LogDir string
	// CgroupDriver is "cgroupfs" or "systemd". If it is "", the runtime is queried.
	CgroupDriver string
	// SeccompDir is the directory of the seccomp profiles that pods name. If it is "", it is the kubelet's,
	// /var/lib/kubelet/seccomp.
	SeccompDir string
	// AppArmorFile contains Y if the kernel enforces AppArmor. If it is "", the kernel's own file is read.
	AppArmorFile string
	// ResolvConf is the resolv.conf of pods with the name resolution of the machine. If it is "", it is the machine's,
	// without a resolver that listens on loopback, which pods cannot reach.
	ResolvConf string
	// Memory is the memory of this machine in bytes, or 0 if it is not known.
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

// Runtime is a container runtime. Its methods may be called concurrently, and each returns within a bounded time. If the
// runtime was not available, they work again as soon as it is.
type Runtime struct {
	config Config
	owned  owned
	cache  statusCache
	pulls  pulls

	mu     sync.Mutex
	rpc    internalapi.RuntimeService
	images internalapi.ImageManagerService
	parent *string // of the pods' cgroups; nil if it is not known yet
}

// Dial returns a Runtime. The runtime need not run yet: each call connects if there is no connection.
func Dial(_ context.Context, config Config) (*Runtime, error) {
	if err := config.validate(); err != nil {
		return nil, err
	}
	if config.SeccompDir == "" {
		config.SeccompDir = "/var/lib/kubelet/seccomp"
	}
	return &Runtime{config: config}, nil
}

// Close closes the connection. Containers continue to run.
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

// connected returns the runtime's two services, and the context for calls to them. It connects if necessary, because the
// library does not make a client of a runtime that does not answer.
func (r *Runtime) connected(ctx context.Context) (context.Context, internalapi.RuntimeService, internalapi.ImageManagerService, error) {
	ctx = quiet(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.rpc != nil {
		return ctx, r.rpc, r.images, nil
	}
	query, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	rpc, err := remote.NewRemoteRuntimeServiceBuilder().WithEndpoint(r.config.Endpoint).WithConnectionTimeout(callTimeout).WithTracerProvider(nil).Build(query)
	if err != nil {
		return ctx, nil, nil, fmt.Errorf("connect to the container runtime: %w", runtimeText(err))
	}
	images, err := remote.NewRemoteImageServiceBuilder().WithEndpoint(r.config.Endpoint).WithConnectionTimeout(callTimeout).WithTracerProvider(nil).Build(query)
	if err != nil {
		_ = rpc.Close(ctx)
		return ctx, nil, nil, fmt.Errorf("connect to the container runtime's images: %w", runtimeText(err))
	}
	r.rpc, r.images = rpc, images
	return ctx, rpc, images, nil
}

// quiet disables the library's log, which would repeat returned errors and contain lines of containers' logs.
func quiet(ctx context.Context) context.Context { return klog.NewContext(ctx, klog.Logger{}) }

// Version returns the name and the version of the runtime.
func (r *Runtime) Version(ctx context.Context) (name, version string, err error) {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	ctx, rpc, _, err := r.connected(ctx)
	if err != nil {
		return "", "", err
	}
	answer, err := rpc.Version(ctx, "")
	if err != nil {
		return "", "", fmt.Errorf("query the version of the container runtime: %w", runtimeText(err))
	}
	return answer.RuntimeName, answer.RuntimeVersion, nil
}

// Status returns whether the runtime can run pods.
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
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	ctx, rpc, _, err := r.connected(ctx)
	if err != nil {
		return nil, err
	}
	answer, err := rpc.Status(ctx, verbose)
	if err != nil {
		return nil, fmt.Errorf("query the status of the container runtime: %w", runtimeText(err))
	}
	return answer, nil
}

// runtimeError is an error with the runtime's own text, which users see in a pod's status.
type runtimeError struct {
	message string
	cause   error
}

func (e *runtimeError) Error() string { return e.message }
func (e *runtimeError) Unwrap() error { return e.cause }

// Is reports whether the error is the end of the caller's context, for which gRPC has a code.
func (e *runtimeError) Is(target error) bool {
	switch status.Code(e.cause) {
	case codes.Canceled:
		return target == context.Canceled
	case codes.DeadlineExceeded:
		return target == context.DeadlineExceeded
	}
	return false
}

// runtimeText removes the text that gRPC adds to the runtime's error. The result keeps the status code of the cause.
func runtimeText(err error) error {
	if answer, ok := err.(interface{ GRPCStatus() *status.Status }); ok {
		return &runtimeError{message: answer.GRPCStatus().Message(), cause: err}
	}
	return err
}

func isNotFound(err error) bool { return status.Code(err) == codes.NotFound }
