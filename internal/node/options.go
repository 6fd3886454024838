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
	// Kubeconfig says where the authority is, and holds the node's own client certificate, or names its file.
	Kubeconfig string
	// BootstrapKubeconfig holds a bootstrap token instead, by which the agent asks for a certificate of its own. It is used
	// while there is none.
	BootstrapKubeconfig string

	// NodeName is the name of the Node object.
	NodeName string
	// NodeIP is where the authority reaches this agent; nil means the address from which this machine reaches the authority.
	NodeIP net.IP
	Labels map[string]string
	// MaxPods is how many pods the node says it runs at the most.
	MaxPods int

	// RootDir holds everything that the agent keeps: certificates, volumes, logs of pods.
	RootDir string
	// RuntimeEndpoint is the CRI socket, as "unix:///run/containerd/containerd.sock".
	RuntimeEndpoint string
	// CgroupDriver is "cgroupfs" or "systemd"; empty asks the runtime.
	CgroupDriver string

	// Port is where kubectl's logs and exec arrive; 0 takes a free one.
	Port int
	// ServingCertFile and ServingKeyFile serve there; empty asks the authority for a certificate.
	ServingCertFile, ServingKeyFile string
	// ClientCAFile holds the CA of who may connect there; empty means the CA of the kubeconfig.
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

// runtimeSockets are where container runtimes listen by default.
var runtimeSockets = []string{"/run/containerd/containerd.sock", "/run/crio/crio.sock"}

// NoRuntime as a runtime endpoint means that no agent is wanted.
const NoRuntime = "none"

// FindRuntime returns the endpoint of a container runtime of this machine; ok is false where none listens at its usual
// place.
func FindRuntime() (endpoint string, ok bool) {
	for _, path := range runtimeSockets {
		if info, err := os.Stat(path); err == nil && info.Mode()&os.ModeSocket != 0 {
			return "unix://" + path, true
		}
	}
	return "", false
}

// RuntimeSockets is a list of the usual places, for messages.
func RuntimeSockets() string { return strings.Join(runtimeSockets, ", ") }

// Error is why an agent cannot run, with the reader's next step.
type Error struct {
	Err  error
	Next string
}

// Error implements error.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Hint says what the reader can do about it.
func (e *Error) Hint() string { return e.Next }

var errNotRoot = &Error{
	Err:  errors.New("the agent mounts volumes and enters the networks of pods, and this user may not"),
	Next: "run it as root; lanyard exec gives a process its identity without",
}

func inUse(dir string) error {
	return &Error{Err: fmt.Errorf("another agent uses %s", dir), Next: "end that one, or choose another directory with --root-dir"}
}
