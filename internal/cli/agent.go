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

	"lanyard.dev/internal/node"
)

const agentHelp = `Make this machine a node of an authority: register it, run the pods that are
bound to it on its container runtime, and give each its token, fresh as long as
it runs.

The agent needs root, and containerd or CRI-O. It joins with a bootstrap token,
by which it asks for a certificate of its own once ("lanyard node token create
--print-join" on the other side), or with a kubeconfig that holds one. "lanyard
up" starts an agent by itself where it finds a runtime.

Pods go on running while the agent is away; the next one with the same root
directory finds them again.`

const agentExamples = `  # On the machine of the authority
  lanyard node token create --ttl 30m --print-join > bootstrap.kubeconfig

  # On the machine that joins, with that file
  lanyard agent --bootstrap-kubeconfig bootstrap.kubeconfig`

const (
	// defaultAgentPort is kubelet's.
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
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.complete(); err != nil {
				return err
			}
			if err := o.validate(); err != nil {
				return usageError(cmd, err)
			}
			return o.run(cmd.Context())
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
	f.StringVar(&o.nodeIP, "node-ip", "", "address at which the authority reaches this machine (default: the one from which it is reached)")
	f.StringToStringVar(&c.Labels, "node-labels", nil, "labels of the Node, as KEY=VALUE,...")
	f.StringVar(&c.RootDir, "root-dir", defaultAgentRoot, "directory for certificates, volumes and logs of pods")
	f.IntVar(&c.Port, "port", defaultAgentPort, "port on which kubectl's logs and exec arrive; 0 takes a free one")
	f.StringVar(&c.ServingCertFile, "tls-cert-file", "", "certificate to serve with on that port, read again when it changes (default: one that the authority signs)")
	f.StringVar(&c.ServingKeyFile, "tls-private-key-file", "", "key of that certificate")
	f.StringVar(&c.ClientCAFile, "client-ca-file", "", "CA of those who may connect on that port (default: the kubeconfig's)")
	addRuntimeFlags(f, c, "")
	o.logging.addFlags(f)
}

// addRuntimeFlags adds what `agent` and `up` have in common. more is said of the endpoint.
func addRuntimeFlags(f *pflag.FlagSet, c *node.Options, more string) {
	f.StringVar(&c.RuntimeEndpoint, "container-runtime-endpoint", "", "socket of the container runtime, as unix:///run/containerd/containerd.sock (default: the first of "+node.RuntimeSockets()+")"+more)
	f.StringVar(&c.CgroupDriver, "cgroup-driver", "", "how the runtime makes cgroups: cgroupfs or systemd (default: what the runtime says, else cgroupfs)")
	f.IntVar(&c.MaxPods, "max-pods", defaultMaxPods, "how many pods this machine runs at the most")
}

func (o *agentOptions) complete() (err error) {
	c := &o.config
	if c.NodeName, err = nodeutil.GetHostname(c.NodeName); err != nil {
		return fmt.Errorf("find a name for the node: %w", err)
	}
	found, _ := node.FindRuntime()
	c.RuntimeEndpoint = cmp.Or(c.RuntimeEndpoint, found)
	if c.RuntimeEndpoint == "" {
		return withHint(fmt.Errorf("no container runtime found (looked at %s)", node.RuntimeSockets()),
			"install containerd (on Debian: apt-get install containerd), or name a socket with --container-runtime-endpoint")
	}
	return nil
}

func (o *agentOptions) validate() error {
	errs := []error{o.config.Validate()}
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
	ended := o.sayEnd(ctx)
	defer func() { ended(err) }()
	defer newWatchdog(o.streams).guard(ctx.Done(), agentTimeout+endMargin)()
	fmt.Fprintf(o.err, "lanyard agent of node %s on %s\n", o.config.NodeName, o.config.RuntimeEndpoint)
	return node.Run(ctx, o.config)
}
