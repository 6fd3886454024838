package node

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
)

// Options are the settings of one agent.
type Options struct {
	// Kubeconfig is a file with the address of the authority and the node's own client certificate, or the name of its file.
	// Exactly one of Kubeconfig and BootstrapKubeconfig is set.
	Kubeconfig string
	// BootstrapKubeconfig is a file with a bootstrap token, with which the agent requests a certificate of its own. The token
	// is used while there is no certificate in RootDir.
	BootstrapKubeconfig string

	// NodeName is the name of the Node object.
	NodeName string
	// NodeIP is the address at which the authority reaches this agent. If nil, it is the address from which this machine
	// reaches the authority.
	NodeIP net.IP
	Labels map[string]string
	// MaxPods is the Node's capacity for pods.
	MaxPods int

	// RootDir is the absolute path of the directory for everything that the agent keeps: certificates, volumes, logs of pods.
	RootDir string
	// RuntimeEndpoint is the CRI socket, as "unix:///run/containerd/containerd.sock".
	RuntimeEndpoint string
	// CgroupDriver is "cgroupfs", "systemd", or empty to use the runtime's.
	CgroupDriver string

	// Port is the port for logs and exec; 0 takes a free one.
	Port int
	// ServingCertFile and ServingKeyFile are the certificate and key of that port. If empty, the agent requests a certificate
	// from the authority.
	ServingCertFile, ServingKeyFile string
	// ClientCAFile is the CA of the clients that may connect to that port. If empty, it is the CA of the kubeconfig.
	ClientCAFile string
}

// Validate returns every fault at once, each naming its flag.
func (o *Options) Validate() error {
	var errs []error
	fault := func(bad bool, format string, args ...any) {
		if bad {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	fault((o.Kubeconfig == "") == (o.BootstrapKubeconfig == ""), "one of --kubeconfig and --bootstrap-kubeconfig is required")
	fault(!filepath.IsAbs(o.RootDir), "--root-dir %q: must be an absolute path", o.RootDir)
	fault((o.ServingCertFile == "") != (o.ServingKeyFile == ""), "--tls-cert-file and --tls-private-key-file go together")
	return errors.Join(append(errs, o.ValidateMachine())...)
}

// ValidateMachine returns every fault at once of what is said of this machine.
func (o *Options) ValidateMachine() error {
	var errs []error
	fault := func(bad bool, format string, args ...any) {
		if bad {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	if faults := validation.IsDNS1123Subdomain(o.NodeName); len(faults) > 0 {
		errs = append(errs, fmt.Errorf("--node-name %q: %s", o.NodeName, faults[0]))
	}
	fault(o.MaxPods < 1, "--max-pods %d: must be at least 1", o.MaxPods)
	fault(o.Port < 0 || o.Port > 65535, "--port %d: must be 0 to 65535", o.Port)
	fault(!strings.HasPrefix(o.RuntimeEndpoint, "unix://"), "--container-runtime-endpoint %q: must be a socket as unix:///run/containerd/containerd.sock", o.RuntimeEndpoint)
	fault(o.CgroupDriver != "" && o.CgroupDriver != "cgroupfs" && o.CgroupDriver != "systemd", "--cgroup-driver %q: must be cgroupfs or systemd", o.CgroupDriver)
	for key, value := range o.Labels {
		for _, faults := range [][]string{validation.IsQualifiedName(key), validation.IsValidLabelValue(value)} {
			if len(faults) > 0 {
				errs = append(errs, fmt.Errorf("--node-labels %s=%s: %s", key, value, faults[0]))
			}
		}
	}
	return errors.Join(errs...)
}

// runtimeSockets are the sockets at which container runtimes listen by default.
var runtimeSockets = []string{"/run/containerd/containerd.sock", "/run/crio/crio.sock"}

// NoRuntime is the runtime endpoint of a machine that runs no agent.
const NoRuntime = "none"

// FindRuntime returns the endpoint of a container runtime of this machine. ok is false if none listens at its default socket.
func FindRuntime() (endpoint string, ok bool) {
	for _, path := range runtimeSockets {
		if info, err := os.Stat(path); err == nil && info.Mode()&os.ModeSocket != 0 {
			return "unix://" + path, true
		}
	}
	return "", false
}

// RuntimeSockets returns the default sockets, separated by commas, for messages.
func RuntimeSockets() string { return strings.Join(runtimeSockets, ", ") }

// Error is the reason why an agent cannot run, and what the user can do about it.
type Error struct {
	Err  error
	Next string
}

// Error implements error.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Hint returns what the user can do about the error.
func (e *Error) Hint() string { return e.Next }

var errNotRoot = &Error{
	Err:  errors.New("the agent mounts volumes and enters the networks of pods, and this user may not"),
	Next: "run it as root; lanyard exec gives a process its identity without",
}

func errDirectoryInUse(dir string) error {
	return &Error{Err: fmt.Errorf("another agent uses %s", dir), Next: "end that one, or choose another directory with --root-dir"}
}
