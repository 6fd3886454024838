package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"lanyard.dev/internal/account"
	"lanyard.dev/internal/podannotation"
	"lanyard.dev/internal/process"
	"lanyard.dev/internal/runas"
	"lanyard.dev/internal/token"
)

const execHelp = `Run a command with the identity of a service account. As in the container of a
pod, the command finds token, ca.crt and namespace in
/var/run/secrets/kubernetes.io/serviceaccount, and the API server in
KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT, so clients that are made
for pods work without changes. lanyard exec needs Linux, but no container
runtime.

The files are on a tmpfs that only the command and its child processes can see.
The tokens are bound to a Pod that represents the command, and are renewed while
the command runs. When the command ends, the Pod is deleted and its tokens are
refused. If the Pod is deleted first, the command gets SIGTERM, and SIGKILL
after --grace.

You need the permissions to create, patch and delete pods, and to create tokens
of the service account (serviceaccounts/token). If you are not root, the command
runs in a user namespace, where set-user-ID programs such as sudo do not work.

By default the command runs as you and inherits everything that you have. With
--user, root runs the command as another user: it inherits neither the
environment nor open files, has a session and a terminal of its own, and cannot
gain privileges.

Signals are forwarded to the command. The exit code is the one of the command,
128 plus the number of the signal if a signal ended it, 126 if the command
cannot be executed, 127 if it is not found, or 125 if lanyard itself failed.`

const execExamples = `  # Run dashboard as the service account dashboard-sa of the namespace default
  lanyard exec --serviceaccount dashboard-sa -- ./dashboard

  # As root, run web-server as the user www-data, with an additional token for vault
  lanyard exec -n prod --serviceaccount web --user www-data --audience vault=vault/token -- web-server --port 8080

  # If the machine permits no namespaces, use a private directory and KUBECONFIG
  lanyard exec --no-mount --serviceaccount ci -- kubectl get pods`

const (
	defaultAccount   = "default"
	defaultExecTTL   = token.DefaultLifetime
	defaultExecGrace = 30 * time.Second
	defaultExecLease = time.Minute
	minExecLease     = 10 * time.Second
)

type execOptions struct {
	streams
	connection connection

	spec      process.Spec
	account   string
	labels    []string
	user      string
	uid, gid  int
	audiences []string
	onRenew   string
	command   []string
	isSet     func(flag string) bool // reports whether a flag is given
	config    process.Config
}

func newExec(s streams) *cobra.Command {
	o := &execOptions{streams: s}
	cmd := &cobra.Command{
		Use: "exec [FLAG...] -- COMMAND [ARG...]", Short: "Run a command with the identity of a service account",
		Long: execHelp, Example: execExamples, Args: cobra.ArbitraryArgs, DisableFlagsInUseLine: true,
		RunE: checkAndRun(o.validate, o.run),
	}
	o.addFlags(cmd)
	return cmd
}

func (o *execOptions) addFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	o.isSet = f.Changed
	// Flags after the name of the command belong to the command.
	f.SetInterspersed(false)
	f.SortFlags = false
	f.StringVar(&o.account, "serviceaccount", defaultAccount, "service account to run as: NAME or NAMESPACE/NAME")
	f.StringVarP(&o.spec.Namespace, "namespace", "n", "", "namespace of the service account and the pod (default: the namespace of the kubeconfig's context)")
	f.StringVar(&o.user, "user", "", "user of this machine as whom the command runs, with the groups of that user")
	f.IntVar(&o.uid, "uid", -1, "UID as which the command runs (default: yours)")
	f.IntVar(&o.gid, "gid", -1, "GID as which the command runs (default: the GID of the user)")
	for _, name := range []string{"uid", "gid"} {
		f.Lookup(name).DefValue = "0" // The help does not print 0.
	}
	f.StringSliceVar(&o.config.PreserveEnv, "preserve-env", nil, "names of environment variables, separated by commas, that the command of another user also gets")
	f.IntSliceVar(&o.config.KeepFDs, "keep-fd", nil, "number of an open descriptor, 3 or more, that the command of another user also gets; may be repeated")
	f.BoolVar(&o.config.AllowEscalation, "allow-privilege-escalation", false, "permit set-user-ID programs such as sudo in the command of another user")
	f.DurationVar(&o.config.TTL, "ttl", defaultExecTTL, "lifetime of each token, at least 10m; tokens are renewed before they expire")
	f.StringArrayVar(&o.audiences, "audience", nil, "NAME=PATH, as in vault=vault/token: an additional token for the audience NAME, in the file PATH beside the others; may be repeated")
	f.StringVar(&o.onRenew, "on-renew", "", "action after each renewal of the tokens: signal:NAME, as in signal:HUP, or exec:COMMAND")
	f.DurationVar(&o.spec.Grace, "grace", defaultExecGrace, "time between SIGTERM and SIGKILL when the pod is deleted")
	f.DurationVar(&o.config.Lease, "lease", defaultExecLease, "time after which the authority deletes the pod if the lease is not renewed, 10s to 10m")
	f.StringVar(&o.spec.Name, "name", "", "name of the pod (default: the name of the command with a random suffix)")
	f.StringVar(&o.spec.NodeName, "node-name", "", "node name of the pod (default: the host name, in lower case)")
	f.StringArrayVar(&o.labels, "label", nil, "label of the pod, as NAME=VALUE; may be repeated")
	f.BoolVar(&o.config.NoMount, "no-mount", false, "use a private directory and a kubeconfig instead of a mount")
	o.connection.addFlags(f)
}

func (o *execOptions) validate(args []string) error {
	o.command = args
	return errors.Join(o.validateCommand(), o.validateAccount(), o.validateSpec(), o.validateLabels(), o.validateTimes(), o.validateUser(), o.validateTokens())
}

func (o *execOptions) validateCommand() error {
	if len(o.command) == 0 || o.command[0] == "" {
		return errors.New("give the command to run after --")
	}
	return nil
}

func (o *execOptions) validateAccount() error {
	switch {
	case o.account == "":
		return errors.New("--serviceaccount is empty: give the account to run as, as in --serviceaccount web")
	case strings.HasPrefix(o.account, "-"):
		return fmt.Errorf("--serviceaccount needs a value, but is followed by %q", o.account)
	}
	name, err := account.Parse(o.account)
	if err != nil {
		return fmt.Errorf("--serviceaccount: %w", err)
	}
	if name.Namespace != "" && o.spec.Namespace != "" && name.Namespace != o.spec.Namespace {
		return fmt.Errorf("--serviceaccount %s and --namespace %s are two different namespaces", name, o.spec.Namespace)
	}
	o.spec.ServiceAccount, o.spec.Namespace = name.Name, cmp.Or(name.Namespace, o.spec.Namespace)
	return nil
}

func (o *execOptions) validateSpec() (err error) {
	if o.spec.NodeName == "" {
		hostname, hostErr := os.Hostname()
		if hostErr != nil {
			return fmt.Errorf("determine the host name, which is the default of --node-name: %w", hostErr)
		}
		o.spec.NodeName = strings.ToLower(hostname)
	}
	for _, check := range []struct {
		flag, value string
		faults      func(string) []string
	}{
		{"--namespace", o.spec.Namespace, validation.IsDNS1123Label},
		{"--name", o.spec.Name, validation.IsDNS1123Subdomain},
		{"--node-name", o.spec.NodeName, validation.IsDNS1123Subdomain},
	} {
		optional := check.flag == "--namespace" || check.flag == "--name"
		if check.value == "" && optional {
			continue
		}
		for _, fault := range check.faults(check.value) {
			err = errors.Join(err, fmt.Errorf("%s %q: %s", check.flag, check.value, fault))
		}
	}
	return err
}

func (o *execOptions) validateLabels() (err error) {
	o.spec.Labels = map[string]string{}
	for _, text := range o.labels {
		name, value, found := strings.Cut(text, "=")
		if !found {
			err = errors.Join(err, fmt.Errorf("--label %q is not NAME=VALUE", text))
			continue
		}
		o.spec.Labels[name] = value
	}
	for _, fault := range metavalidation.ValidateLabels(o.spec.Labels, field.NewPath("--label")) {
		err = errors.Join(err, fault)
	}
	return err
}

func (o *execOptions) validateTimes() (err error) {
	if ttl := o.config.TTL; ttl < token.MinLifetime || ttl > math.MaxInt32*time.Second {
		err = errors.Join(err, fmt.Errorf("--ttl %v: must be between 10m and 68 years", ttl))
	}
	if lease := o.config.Lease; lease < minExecLease || lease > podannotation.MaxLease {
		err = errors.Join(err, fmt.Errorf("--lease %v: must be between %v and %v", lease, minExecLease, podannotation.MaxLease))
	}
	if grace := o.spec.Grace; grace < 0 || grace > 24*time.Hour {
		err = errors.Join(err, fmt.Errorf("--grace %v: must be between 0s and 24h", grace))
	}
	return err
}

func (o *execOptions) validateUser() (err error) {
	if o.user != "" && o.uid != -1 {
		return errors.New("--user and --uid exclude each other")
	}
	// An empty shell variable must not let the command run as root.
	if o.user == "" && o.isSet("user") || o.uid == -1 && o.isSet("uid") || o.gid == -1 && o.isSet("gid") {
		return errors.New("--user, --uid and --gid must not be empty")
	}
	if o.uid < -1 || o.gid < -1 || o.uid >= math.MaxInt32 || o.gid >= math.MaxInt32 {
		return errors.New("--uid and --gid must be IDs of a user and a group")
	}
	o.config.User, err = runas.LookUp(o.user, o.uid, o.gid)
	return errors.Join(append(runas.ValidateInherited(o.config.PreserveEnv, o.config.KeepFDs), err)...)
}

func (o *execOptions) validateTokens() (err error) {
	for _, text := range o.audiences {
		audience, fault := process.ParseAudience(text)
		if fault != nil {
			err = errors.Join(err, fmt.Errorf("--audience %w", fault))
			continue
		}
		o.config.Audiences = append(o.config.Audiences, audience)
	}
	for _, fault := range process.ValidateAudiences(o.config.Audiences) {
		err = errors.Join(err, fmt.Errorf("--audience %w", fault))
	}
	if o.onRenew != "" {
		var fault error
		if o.config.OnRenew, fault = podannotation.ParseNotice(o.onRenew); fault != nil {
			err = errors.Join(err, fmt.Errorf("--on-renew %w", fault))
		}
	}
	return err
}

func (o *execOptions) run(ctx context.Context) error {
	code, err := o.runCommand(ctx)
	switch {
	case err != nil:
		return &codedError{err, process.ExitCode(err)}
	case code != 0:
		return exitCode(code)
	}
	return nil
}

// runCommand connects with the caller's credentials and runs the command. The command inherits the standard streams of this
// process.
func (o *execOptions) runCommand(ctx context.Context) (exitCode int, err error) {
	client, namespace, err := o.connect()
	if err != nil {
		return 0, err
	}
	if o.spec.Namespace == "" {
		o.spec.Namespace = namespace
	}
	o.config.Client, o.config.Pod, o.config.Command = client, o.spec, o.command
	o.config.Env, o.config.Messages = os.Environ(), o.err
	o.config.Stdin, o.config.Stdout, o.config.Stderr = os.Stdin, os.Stdout, os.Stderr
	return process.Run(ctx, o.config)
}

// withoutDefaultAccount drops the server's warnings about the account "default". Their advice is for pods, and connect prints
// its own warning.
type withoutDefaultAccount struct{ rest.WarningHandler }

// HandleWarningHeader implements rest.WarningHandler.
func (h withoutDefaultAccount) HandleWarningHeader(code int, agent, text string) {
	if !strings.Contains(text, fmt.Sprintf("the service account %q", defaultAccount)) {
		h.WarningHandler.HandleWarningHeader(code, agent, text)
	}
}

func (o *execOptions) connect() (client kubernetes.Interface, namespace string, err error) {
	config, namespace, err := o.connection.config(o.err)
	if err != nil {
		return nil, "", err
	}
	if !o.isSet("serviceaccount") {
		fmt.Fprintf(o.err, "lanyard: without --serviceaccount, the command runs as the account %q, which it shares with all workloads of the namespace that name no account\n", defaultAccount)
		config.WarningHandler = withoutDefaultAccount{config.WarningHandler}
	}
	// Without a client-side rate limit: there are few requests, and none should wait.
	config.QPS = -1
	o.config.CloseConnections = process.TrackConnections(config)
	if o.config.Server, err = process.ServerOf(config); err != nil {
		return nil, "", err
	}
	if o.config.Probe, err = process.NewProbe(config); err != nil {
		return nil, "", err
	}
	client, err = newReloadingClient(config, func() (*rest.Config, error) {
		again, _, err := o.connection.config(io.Discard)
		return again, err
	})
	if err != nil {
		return nil, "", fmt.Errorf("connect to %s: %w", config.Host, err)
	}
	return client, namespace, nil
}
