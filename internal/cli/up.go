package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/util/validation/field"
	nodeutil "k8s.io/component-helpers/node/util"
	"k8s.io/klog/v2"

	"lanyard.dev/internal/apiserver"
	"lanyard.dev/internal/apiserver/auditlog"
	"lanyard.dev/internal/datadir"
	"lanyard.dev/internal/deadline"
	"lanyard.dev/internal/gctune"
	"lanyard.dev/internal/hint"
	"lanyard.dev/internal/node"
	"lanyard.dev/internal/signingkey"
	"lanyard.dev/internal/standalone"
)

const upHelp = `Start an authority with everything that it needs in one process: a CA and
certificates, a signing key, encryption of secrets, an embedded etcd, and the
Kubernetes API for service accounts.

The first start creates the keys, certificates and data in the data directory;
later starts use them. The process stays in the foreground; Ctrl-C or SIGTERM
stops it in order. While it runs, "lanyard kubectl" finds it.

If root runs the command and a container runtime is found, the machine is also a
node and runs the pods that are bound to it. Otherwise pods stay Pending, and
"lanyard exec" gives a process the same identity.

By default the issuer in tokens is the URL of this server, so tokens that were
issued at one address or port are not accepted at another. With
--service-account-issuer the issuer does not depend on the address.`

const upExamples = `  # Start with the defaults, then look around from another terminal
  lanyard up
  lanyard kubectl get serviceaccounts

  # Start a second authority for experiments
  lanyard up --data-dir /tmp/try --secure-port 7443

  # Sign tokens for Entra with RSA, which is the only algorithm that it accepts
  lanyard up --service-account-issuer https://identity.example.com --service-account-audience-algorithms api://AzureADTokenExchange=RS256`

// defaultPort is the port of kube-apiserver.
const defaultPort = 6443

// startGrace bounds how long a start continues after a signal.
const startGrace = 20 * time.Second

type upOptions struct {
	streams
	logging loggingOptions
	config  standalone.Config
	agent   node.Options
}

func newUp(s streams) *cobra.Command {
	o := &upOptions{streams: s}
	cmd := &cobra.Command{
		Use: "up", Short: "Start an authority with everything it needs in one process",
		Long: upHelp, Example: upExamples, Args: noArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.complete(); err != nil {
				return err
			}
			return checkAndRun(o.validate, o.run)(cmd, args)
		},
	}
	o.addFlags(cmd)
	return cmd
}

func (o *upOptions) addFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.config.DataDir, "data-dir", "", "directory of keys, certificates and data (default: /var/lib/lanyard for root, else $XDG_DATA_HOME/lanyard)")
	f.StringVar(&o.config.BindAddress, "bind-address", "127.0.0.1", "IP address to serve on")
	f.IntVar(&o.config.Port, "secure-port", defaultPort, "port to serve HTTPS on; 0 takes a free one")
	f.StringVar(&o.config.AuthenticationConfig, "authentication-config", "", authenticationConfigUsage)
	f.StringVar(&o.config.AdmissionConfig, "admission-control-config-file", "", admissionConfigUsage)
	f.StringArrayVar(&o.config.Issuers, "service-account-issuer", nil, issuersUsage+" (default: the URL of this server)")
	f.StringVar(&o.config.JWKSURI, "service-account-jwks-uri", "", jwksURIUsage)
	f.StringVar((*string)(&o.config.SigningAlgorithm), "service-account-signing-algorithm", "", fmt.Sprintf("algorithm of the signing key that the first start creates, one of %v; an existing key of another algorithm is an error (default: %s)", signingkey.Algorithms(), signingkey.DefaultAlgorithm))
	f.StringArrayVar(&o.config.AcceptedKeyFiles, "service-account-key-file", nil, acceptedKeysUsage)
	f.BoolVar(&o.config.AcceptUnrecorded, "service-account-accept-unrecorded-tokens", false, acceptUnrecordedUsage)
	f.Var(audienceAlgorithms{&o.config.AudienceAlgorithms}, "service-account-audience-algorithms", audienceAlgorithmsUsage)
	f.StringVar(&o.config.AuditLogMode, "audit-log-mode", auditlog.Blocking, auditModeUsage)
	f.DurationVar(&o.config.MaxTokenExpiration, "service-account-max-token-expiration", 0, maxTokenExpirationUsage)
	f.DurationVar(&o.config.EncryptionKeyAge, "encryption-key-max-age", 30*24*time.Hour, "age at which the key that encrypts secrets in the store is replaced, at least 1h; 0 means never")
	f.StringVar(&o.agent.NodeName, "node-name", "", "name of this machine's Node (default: the host name, in lower case)")
	addRuntimeFlags(f, &o.agent, "; none disables the agent")
	o.logging.addFlags(f)
}

func (o *upOptions) complete() (err error) {
	if o.config.DataDir == "" {
		if o.config.DataDir, err = datadir.Default(); err != nil {
			return err
		}
	}
	o.config.Log = o.err
	return o.completeAgent()
}

func (o *upOptions) validate([]string) error {
	accounts := apiserver.ServiceAccounts{
		Issuers: o.config.Issuers, JWKSURI: o.config.JWKSURI, MaxTokenExpiration: o.config.MaxTokenExpiration,
		AudienceAlgorithms: o.config.AudienceAlgorithms,
	}
	audit := auditlog.Options{Mode: o.config.AuditLogMode}
	faults := append(accounts.Validate(field.NewPath("serviceAccounts")), audit.Validate(field.NewPath("audit"))...)
	errs := []error{validatePort(o.config.Port), validateAddress(o.config.BindAddress), authorityFlags.errorOf(faults)}
	if wanted := o.config.SigningAlgorithm; wanted != "" && !slices.Contains(signingkey.Algorithms(), wanted) {
		errs = append(errs, fmt.Errorf("--service-account-signing-algorithm %q: must be one of %v", wanted, signingkey.Algorithms()))
	}
	if age := o.config.EncryptionKeyAge; age != 0 && age < time.Hour {
		errs = append(errs, fmt.Errorf("--encryption-key-max-age %v: must be 0 or at least 1h", age))
	}
	if o.wantsAgent() {
		errs = append(errs, agentFlags.errorOf(o.agent.ValidateMachine()))
	}
	return errors.Join(errs...)
}

func (o *upOptions) run(parent context.Context) (err error) {
	o.logging.apply(o.err)
	gctune.Tune()
	ctx, stop := untilSignal(parent)
	defer stop()
	stopped := o.announceStop(ctx)
	defer func() { stopped(err) }()
	started := newWatchdog(o.streams).guard(ctx.Done(), startGrace)
	authority, err := standalone.Start(ctx, o.config)
	started()
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	defer newWatchdog(o.streams).guard(authority.Ending(), authority.StopTimeout()+agentTimeout+endMargin)()
	fmt.Fprintf(o.err, banner, authority.URL, authority.Kubeconfig())
	defer settleLater().Stop()
	agent := o.startAgent(ctx, authority)
	return errors.Join(authority.Wait(), agent.stop())
}

const banner = `lanyard is up at %s
kubeconfig: %s
Try, from another terminal:
  lanyard kubectl create serviceaccount dashboard-sa
  lanyard kubectl create token dashboard-sa | lanyard token inspect
  lanyard kubectl auth can-i --list --as system:serviceaccount:default:dashboard-sa
`

const noRuntimeMessage = `No container runtime was found (looked at %s), so pods stay Pending.
  lanyard exec --serviceaccount dashboard-sa -- COMMAND   gives a plain process the same identity
`

const notRootMessage = `Pods stay Pending: only root runs an agent.
  lanyard exec --serviceaccount dashboard-sa -- COMMAND   gives a plain process the same identity
`

// completeAgent finds the container runtime and the name of the node.
func (o *upOptions) completeAgent() (err error) {
	found, _ := node.FindRuntime()
	o.agent.RuntimeEndpoint = cmp.Or(o.agent.RuntimeEndpoint, found)
	if o.agent.NodeName, err = nodeutil.GetHostname(o.agent.NodeName); err != nil {
		return fmt.Errorf("determine the name of the node: %w", err)
	}
	return nil
}

func (o *upOptions) wantsAgent() bool {
	return o.agent.RuntimeEndpoint != "" && o.agent.RuntimeEndpoint != node.NoRuntime
}

// runningAgent is the agent in the process of an authority.
type runningAgent struct {
	cancel context.CancelFunc
	ended  chan struct{}
}

// agentTimeout bounds how long the agent may take to stop. Pods continue without it.
const agentTimeout = 5 * time.Second

// stop stops the agent and returns when it has stopped.
func (r *runningAgent) stop() error {
	r.cancel()
	return deadline.Run(agentTimeout, "stop the agent", func() error { <-r.ended; return nil })
}

func (o *upOptions) startAgent(ctx context.Context, authority *standalone.Authority) *runningAgent {
	ctx, cancel := context.WithCancel(ctx)
	r := &runningAgent{cancel: cancel, ended: make(chan struct{})}
	go func() {
		defer close(r.ended)
		o.runAgent(ctx, authority)
	}()
	return r
}

// runAgent makes this machine a node of the authority in this process, until ctx ends. If the agent cannot run, a message
// reports it and the authority continues.
func (o *upOptions) runAgent(ctx context.Context, authority *standalone.Authority) {
	switch {
	case o.agent.RuntimeEndpoint == "":
		fmt.Fprintf(o.err, noRuntimeMessage, node.RuntimeSockets())
	case !o.wantsAgent():
	case os.Geteuid() != 0:
		fmt.Fprint(o.err, notRootMessage)
	default:
		if err := o.runNode(ctx, authority); err != nil {
			klog.ErrorS(err, "Pods are not run on this machine")
			fmt.Fprintf(o.err, "Pods stay Pending: %v\n", err)
			if text := hint.Of(err); text != "" {
				fmt.Fprintf(o.err, "hint: %s\n", text)
			}
		}
	}
}

func (o *upOptions) runNode(ctx context.Context, authority *standalone.Authority) error {
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
	fmt.Fprintf(o.err, "Pods run on node %s, with the runtime at %s\n", agent.NodeName, agent.RuntimeEndpoint)
	return node.Run(ctx, agent)
}

// localAddress returns the address at which the authority reaches the agent in the same process.
func localAddress(bind string) (net.IP, error) {
	ip := net.ParseIP(bind)
	if ip == nil {
		return nil, fmt.Errorf("%q is not an IP address", bind)
	}
	if ip.IsUnspecified() {
		return net.IPv4(127, 0, 0, 1), nil
	}
	return ip, nil
}
