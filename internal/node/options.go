package node

import (
	"errors"
	"fmt"
	"net"
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
