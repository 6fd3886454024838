package node

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"lanyard.dev/internal/hint"
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

// Validate returns every fault at once. The paths are the names of the fields in lower camel case.
func (o *Options) Validate() field.ErrorList {
	var faults field.ErrorList
	if (o.Kubeconfig == "") == (o.BootstrapKubeconfig == "") {
		faults = append(faults, field.Required(field.NewPath("kubeconfig"), "one of `kubeconfig` and `bootstrapKubeconfig` is required"))
	}
	if !filepath.IsAbs(o.RootDir) {
		faults = append(faults, field.Invalid(field.NewPath("rootDir"), o.RootDir, "must be an absolute path"))
	}
	if (o.ServingCertFile == "") != (o.ServingKeyFile == "") {
		faults = append(faults, field.Required(field.NewPath("servingCertFile"), "`servingCertFile` and `servingKeyFile` go together"))
	}
	return append(faults, o.ValidateMachine()...)
}

// ValidateMachine returns every fault of the options that describe this machine, and not how it joins an authority.
func (o *Options) ValidateMachine() field.ErrorList {
	var faults field.ErrorList
	invalid := func(bad bool, path *field.Path, value any, detail string) {
		if bad {
			faults = append(faults, field.Invalid(path, value, detail))
		}
	}
	for _, fault := range first(validation.IsDNS1123Subdomain(o.NodeName)) {
		invalid(true, field.NewPath("nodeName"), o.NodeName, fault)
	}
	invalid(o.MaxPods < 1, field.NewPath("maxPods"), o.MaxPods, "must be at least 1")
	invalid(o.Port < 0 || o.Port > 65535, field.NewPath("port"), o.Port, "must be 0 to 65535")
	invalid(!strings.HasPrefix(o.RuntimeEndpoint, "unix://"), field.NewPath("runtimeEndpoint"), o.RuntimeEndpoint, "must be a socket as unix:///run/containerd/containerd.sock")
	invalid(o.CgroupDriver != "" && o.CgroupDriver != "cgroupfs" && o.CgroupDriver != "systemd", field.NewPath("cgroupDriver"), o.CgroupDriver, "must be cgroupfs or systemd")
	for _, key := range slices.Sorted(maps.Keys(o.Labels)) {
		for _, fault := range slices.Concat(first(validation.IsQualifiedName(key)), first(validation.IsValidLabelValue(o.Labels[key]))) {
			invalid(true, field.NewPath("labels").Key(key), o.Labels[key], fault)
		}
	}
	return faults
}

// first returns the first of several faults of one value.
func first(faults []string) []string { return faults[:min(1, len(faults))] }

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

var errNotRoot = hint.New(errors.New("only root may run the agent, because it mounts volumes and enters the networks of pods"),
	"run it as root, or use lanyard exec, which gives a process an identity without root")

func errDirectoryInUse(dir string) error {
	return hint.New(fmt.Errorf("another agent uses %s", dir), "end that agent, or choose another directory with --root-dir")
}
