package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	nodeutil "k8s.io/component-helpers/node/util"
	"k8s.io/klog/v2"

	"lanyard.dev/internal/deadline"
	"lanyard.dev/internal/node"
	"lanyard.dev/internal/standalone"
)

const noRuntimeWords = `No container runtime was found (looked at %s), so pods stay Pending.
  lanyard exec --serviceaccount dashboard-sa -- COMMAND   gives a plain process the same identity
`

const notRootWords = `Pods stay Pending: only root runs an agent.
  lanyard exec --serviceaccount dashboard-sa -- COMMAND   gives a plain process the same identity
`

// completeAgent finds out whether this machine is to be a node, and which.
func (o *upOptions) completeAgent() (err error) {
	found, _ := node.FindRuntime()
	o.agent.RuntimeEndpoint = cmp.Or(o.agent.RuntimeEndpoint, found)
	if o.agent.NodeName, err = nodeutil.GetHostname(o.agent.NodeName); err != nil {
		return fmt.Errorf("find a name for the node: %w", err)
	}
	return nil
}

func (o *upOptions) wantsAgent() bool {
	return o.agent.RuntimeEndpoint != "" && o.agent.RuntimeEndpoint != node.NoRuntime
}

// running is the agent beside an authority.
type running struct {
	cancel context.CancelFunc
	ended  chan struct{}
}

// agentTimeout bounds how long the agent may take to end. Pods run on without it.
const agentTimeout = 5 * time.Second

// stop ends the agent and returns when it has ended.
func (r *running) stop() error {
	r.cancel()
	return deadline.Run(agentTimeout, "stop the agent", func() error { <-r.ended; return nil })
}

func (o *upOptions) startAgent(ctx context.Context, authority *standalone.Authority) *running {
	ctx, cancel := context.WithCancel(ctx)
	r := &running{cancel: cancel, ended: make(chan struct{})}
	go func() {
		defer close(r.ended)
		o.runAgent(ctx, authority)
	}()
	return r
}

// runAgent makes this machine a node of the authority in this process, until ctx ends. An agent that cannot run is said so;
// the authority goes on without.
func (o *upOptions) runAgent(ctx context.Context, authority *standalone.Authority) {
	switch {
	case o.agent.RuntimeEndpoint == "":
		fmt.Fprintf(o.err, noRuntimeWords, node.RuntimeSockets())
	case !o.wantsAgent():
	case os.Geteuid() != 0:
		fmt.Fprint(o.err, notRootWords)
	default:
		if err := o.attend(ctx, authority); err != nil {
			klog.ErrorS(err, "Pods are not run on this machine")
			fmt.Fprintf(o.err, "Pods stay Pending: %v\n", err)
			if next := hinted(nil); errors.As(err, &next) {
				fmt.Fprintf(o.err, "hint: %s\n", next.Hint())
			}
		}
	}
}

func (o *upOptions) attend(ctx context.Context, authority *standalone.Authority) error {
	address, err := localAddress(o.config.BindAddress)
	if err != nil {
		return err
	}
	files, err := authority.EnsureNode(o.agent.NodeName, []net.IP{address})
	if err != nil {
		return err
	}
	agent := o.agent
	agent.NodeIP, agent.RootDir = address, filepath.Join(authority.DataDir(), "agent")
	agent.Kubeconfig, agent.ClientCAFile = files.Kubeconfig, files.ClientCA
	agent.ServingCertFile, agent.ServingKeyFile = files.ServingCert, files.ServingKey
	fmt.Fprintf(o.err, "Pods run on node %s, by %s\n", agent.NodeName, agent.RuntimeEndpoint)
	return node.Run(ctx, agent)
}

// localAddress is where the authority in this process reaches the agent beside it.
func localAddress(bind string) (net.IP, error) {
	ip := net.ParseIP(bind)
	if ip == nil {
		return nil, fmt.Errorf("%q is no IP address", bind)
	}
	if ip.IsUnspecified() {
		return net.IPv4(127, 0, 0, 1), nil
	}
	return ip, nil
}
