package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	nodeutil "k8s.io/component-helpers/node/util"

	"lanyard.dev/internal/hint"
	"lanyard.dev/internal/node"
)

const agentHelp = `Make this machine a node of an authority: register it, run the pods that are
bound to it on its container runtime, and keep their tokens up to date.

The agent needs root, and containerd or CRI-O. The first time, it joins with a
bootstrap token, with which it requests a certificate of its own ("lanyard node
token create --print-join" on the authority's machine prints the file). It can
also join with a kubeconfig that contains a certificate. "lanyard up" starts an
agent itself if it finds a container runtime.

Pods continue to run while no agent runs. The next agent with the same root
directory takes them over.`

const agentExamples = `  # On the machine of the authority
  lanyard node token create --ttl 30m --print-join > bootstrap.kubeconfig

  # On the machine that joins, with that file
  lanyard agent --bootstrap-kubeconfig bootstrap.kubeconfig`

const (
	// defaultAgentPort is the port of kubelet.
	defaultAgentPort = 10250
	defaultMaxPods   = 250
	defaultAgentRoot = "/var/lib/lanyard/agent"
)

type agentOptions struct {
	streams
	logging loggingOptions
	config  node.Options
	nodeIP  string
}

func newAgent(s streams) *cobra.Command {
	o := &agentOptions{streams: s}
	cmd := &cobra.Command{
		Use: "agent", Short: "Make this machine a node that runs pods",
		Long: agentHelp, Example: agentExamples, Args: noArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.complete(); err != nil {
				return err
			}
			return checkAndRun(o.validate, o.run)(cmd, args)
		},
	}
	o.addFlags(cmd.Flags())
	return cmd
}

func (o *agentOptions) addFlags(f *pflag.FlagSet) {
	c := &o.config
	f.StringVar(&c.Kubeconfig, "kubeconfig", "", "kubeconfig with the node's own client certificate")
	f.StringVar(&c.BootstrapKubeconfig, "bootstrap-kubeconfig", "", "kubeconfig with a bootstrap token, used until the node has a certificate of its own")
	f.StringVar(&c.NodeName, "node-name", "", "name of the Node (default: this machine's host name, in lower case)")
	f.StringVar(&o.nodeIP, "node-ip", "", "IP address at which the authority reaches this machine (default: the address from which this machine reaches the authority)")
	f.StringToStringVar(&c.Labels, "node-labels", nil, "labels of the Node, as KEY=VALUE,...")
	f.StringVar(&c.RootDir, "root-dir", defaultAgentRoot, "directory for certificates, volumes and logs of pods")
	f.IntVar(&c.Port, "port", defaultAgentPort, "port for logs and exec of kubectl; 0 takes a free one")
	f.StringVar(&c.ServingCertFile, "tls-cert-file", "", "serving certificate of --port, read again when it changes (default: one that the authority signs)")
	f.StringVar(&c.ServingKeyFile, "tls-private-key-file", "", "key of the serving certificate")
	f.StringVar(&c.ClientCAFile, "client-ca-file", "", "CA of the clients that may connect to --port (default: the CA of the kubeconfig)")
	addRuntimeFlags(f, c, "")
	o.logging.addFlags(f)
}

// agentFlags are the flags of node.Options, by field. The flags that "up" has in common with "agent" have the same names.
var agentFlags = fieldFlags{
	"kubeconfig":          "kubeconfig",
	"bootstrapKubeconfig": "bootstrap-kubeconfig",
	"nodeName":            "node-name",
	"nodeIP":              "node-ip",
	"labels":              "node-labels",
	"maxPods":             "max-pods",
	"rootDir":             "root-dir",
	"runtimeEndpoint":     "container-runtime-endpoint",
	"cgroupDriver":        "cgroup-driver",
	"port":                "port",
	"servingCertFile":     "tls-cert-file",
	"servingKeyFile":      "tls-private-key-file",
	"clientCAFile":        "client-ca-file",
}

// addRuntimeFlags adds the flags that "agent" and "up" share. more is appended to the help of the endpoint.
func addRuntimeFlags(f *pflag.FlagSet, c *node.Options, more string) {
	f.StringVar(&c.RuntimeEndpoint, "container-runtime-endpoint", "", "socket of the container runtime, such as unix:///run/containerd/containerd.sock (default: the first of "+node.RuntimeSockets()+")"+more)
	f.StringVar(&c.CgroupDriver, "cgroup-driver", "", "how the runtime creates cgroups: cgroupfs or systemd (default: what the runtime reports, else cgroupfs)")
	f.IntVar(&c.MaxPods, "max-pods", defaultMaxPods, "maximum number of pods on this machine")
}

func (o *agentOptions) complete() (err error) {
	c := &o.config
	if c.NodeName, err = nodeutil.GetHostname(c.NodeName); err != nil {
		return fmt.Errorf("determine the name of the node: %w", err)
	}
	found, _ := node.FindRuntime()
	c.RuntimeEndpoint = cmp.Or(c.RuntimeEndpoint, found)
	if c.RuntimeEndpoint == "" {
		return hint.New(fmt.Errorf("no container runtime found (looked at %s)", node.RuntimeSockets()),
			"install containerd (on Debian: apt-get install containerd), or name a socket with --container-runtime-endpoint")
	}
	return nil
}

func (o *agentOptions) validate([]string) error {
	errs := []error{agentFlags.errorOf(o.config.Validate())}
	if o.nodeIP != "" {
		if o.config.NodeIP = net.ParseIP(o.nodeIP); o.config.NodeIP == nil {
			errs = append(errs, fmt.Errorf("--node-ip %q: must be an IP address", o.nodeIP))
		}
	}
	return errors.Join(errs...)
}

func (o *agentOptions) run(parent context.Context) (err error) {
	o.logging.apply(o.err)
	ctx, stop := untilSignal(parent)
	defer stop()
	stopped := o.announceStop(ctx)
	defer func() { stopped(err) }()
	defer newWatchdog(o.streams).guard(ctx.Done(), agentTimeout+endMargin)()
	fmt.Fprintf(o.err, "lanyard agent of node %s on %s\n", o.config.NodeName, o.config.RuntimeEndpoint)
	return node.Run(ctx, o.config)
}
