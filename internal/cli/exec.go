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

const execHelp = `Run a command with the identity of a service account. The command finds what a
pod's container finds: a token, ca.crt and namespace in
/var/run/secrets/kubernetes.io/serviceaccount, and the API server in
KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT, so that clients made for
pods need no change. It needs Linux, and no container runtime.

The files are on a tmpfs that only the command and what it starts can see. The
tokens are bound to a Pod that stands for the process, and are renewed while it
runs. When it ends, the Pod is deleted and its tokens are refused. When the Pod
is deleted, the command is told to end by SIGTERM, and killed after --grace.

You need the rights to create, patch and delete pods, and to create tokens of the
account (serviceaccounts/token). An ordinary user's command runs in a user
namespace, where sudo and its like do not work; root's does not.

Your own command inherits what you have. The command of another user (--user, as
root) inherits neither your environment nor your open files, has a session and,
at a terminal, a terminal of its own, and can gain no privileges.

Signals are passed on. The exit code is the command's, 128 and the signal's
number if a signal ended it, 126 if it could not be executed, 127 if it was not
found, or 125 if lanyard itself failed.`

const execExamples = `  # The dashboard, as dashboard-sa of the namespace default
  lanyard exec --serviceaccount dashboard-sa -- ./dashboard

  # From root to another user, with a token for vault beside the API server's
  lanyard exec -n prod --serviceaccount web --user www-data --audience vault=vault/token -- web-server --port 8080

  # Where no namespaces are to be had: a private directory and a KUBECONFIG
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
	given     func(flag string) bool
	config    process.Config
}

func newExec(s streams) *cobra.Command {
	o := &execOptions{streams: s}
	cmd := &cobra.Command{
		Use: "exec [FLAG...] -- COMMAND [ARG...]", Short: "Run a command with the identity of a service account",
		Long: execHelp, Example: execExamples, Args: cobra.ArbitraryArgs, DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.command, o.given = args, cmd.Flags().Changed
			if err := o.validate(); err != nil {
				return usageError(cmd, err)
			}
			return o.run(cmd.Context())
		},
	}
	o.addFlags(cmd)
	return cmd
}

func (o *execOptions) addFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	// What follows the command's name is the command's.
	f.SetInterspersed(false)
	f.SortFlags = false
	f.StringVar(&o.account, "serviceaccount", defaultAccount, "service account to run as: NAME, or with its namespace NAMESPACE/NAME")
	f.StringVarP(&o.spec.Namespace, "namespace", "n", "", "namespace of the service account and the pod (default: the kubeconfig's)")
	f.StringVar(&o.user, "user", "", "user of this machine who runs the command, with the groups they are in")
	f.IntVar(&o.uid, "uid", -1, "number of the user who runs the command (default: you)")
	f.IntVar(&o.gid, "gid", -1, "number of the group that runs the command (default: the user's)")
	for _, name := range []string{"uid", "gid"} {
		f.Lookup(name).DefValue = "0" // what help leaves out
	}
	f.StringSliceVar(&o.config.PreserveEnv, "preserve-env", nil, "names of variables, with commas between them, that another user's command gets as you have them")
	f.IntSliceVar(&o.config.KeepFDs, "keep-fd", nil, "number of an open descriptor, 3 or more, that another user's command gets; may be repeated")
	f.BoolVar(&o.config.AllowEscalation, "allow-privilege-escalation", false, "let set-user-ID programs, as sudo is, take effect in another user's command")
	f.DurationVar(&o.config.TTL, "ttl", defaultExecTTL, "life of each token, at least 10m; they are renewed in time")
	f.StringArrayVar(&o.audiences, "audience", nil, "one more token, for audience NAME, in a file beside the others, as in vault=vault/token; may be repeated")
	f.StringVar(&o.onRenew, "on-renew", "", "what to do when tokens were renewed: signal:NAME, as in signal:HUP, or exec:COMMAND")
	f.DurationVar(&o.spec.Grace, "grace", defaultExecGrace, "how long the command has to end when its pod is deleted")
	f.DurationVar(&o.config.Lease, "lease", defaultExecLease, "after how long the authority removes the pod when it hears no more from here, 10s to 10m")
	f.StringVar(&o.spec.Name, "name", "", "name of the pod (default: the command's with a suffix)")
	f.StringVar(&o.spec.NodeName, "node-name", "", "node of the pod (default: this machine's hostname)")
	f.StringArrayVar(&o.labels, "label", nil, "label of the pod, NAME=VALUE; may be repeated")
	f.BoolVar(&o.config.NoMount, "no-mount", false, "mount nothing: hand over a private directory and a kubeconfig")
	o.connection.addFlags(f)
}

func (o *execOptions) validate() error {
	return errors.Join(o.validateCommand(), o.validateAccount(), o.validateSpec(), o.validateLabels(), o.validateTimes(), o.validateUser(), o.validateTokens())
}

func (o *execOptions) validateCommand() error {
	if len(o.command) == 0 || o.command[0] == "" {
		return errors.New("name the command to run, after --")
	}
	return nil
}

func (o *execOptions) validateAccount() error {
	switch {
	case o.account == "":
		return errors.New("--serviceaccount is empty: name the account to run as, as in --serviceaccount web")
	case strings.HasPrefix(o.account, "-"):
		return fmt.Errorf("--serviceaccount lacks a value: it is followed by %q", o.account)
	}
	name, err := account.Parse(o.account)
	if err != nil {
		return fmt.Errorf("--serviceaccount: %w", err)
	}
	if name.Namespace != "" && o.spec.Namespace != "" && name.Namespace != o.spec.Namespace {
		return fmt.Errorf("--serviceaccount %s and --namespace %s name two namespaces", name, o.spec.Namespace)
	}
	o.spec.ServiceAccount, o.spec.Namespace = name.Name, cmp.Or(name.Namespace, o.spec.Namespace)
	return nil
}

func (o *execOptions) validateSpec() (err error) {
	if o.spec.NodeName == "" {
		hostname, hostErr := os.Hostname()
		if hostErr != nil {
			return fmt.Errorf("--node-name is not given, and this machine's is not known: %w", hostErr)
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
		return errors.New("--user and --uid name the user twice")
	}
	// A variable that is empty must not let the command run as root.
	if o.user == "" && o.given("user") || o.uid == -1 && o.given("uid") || o.gid == -1 && o.given("gid") {
		return errors.New("--user, --uid and --gid must name somebody where they are given")
	}
	if o.uid < -1 || o.gid < -1 || o.uid >= math.MaxInt32 || o.gid >= math.MaxInt32 {
		return errors.New("--uid and --gid must be numbers of a user and a group")
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
	code, err := o.start(ctx)
	switch {
	case err != nil:
		return &cliError{err: err, hint: hintOf(err), code: process.ExitCode(err)}
	case code != 0:
		return verdict(code)
	}
	return nil
}

// start connects with the caller's rights and runs the command. Its streams are the process's own: they are handed over,
// not copied.
func (o *execOptions) start(ctx context.Context) (exitCode int, err error) {
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

// aboutDefaultAccount leaves out the server's warnings of the account "default", whose advice is for pods: the command
// has given its own.
type aboutDefaultAccount struct{ rest.WarningHandler }

// HandleWarningHeader implements rest.WarningHandler.
func (h aboutDefaultAccount) HandleWarningHeader(code int, agent, text string) {
	if !strings.Contains(text, fmt.Sprintf("the service account %q", defaultAccount)) {
		h.WarningHandler.HandleWarningHeader(code, agent, text)
	}
}

func (o *execOptions) connect() (client kubernetes.Interface, namespace string, err error) {
	config, namespace, err := o.connection.config(o.err)
	if err != nil {
		return nil, "", err
	}
	if !o.given("serviceaccount") {
		fmt.Fprintf(o.err, "lanyard: no --serviceaccount is given: the command runs as the account %q, whose permissions all workloads of the namespace share that name no account\n", defaultAccount)
		config.WarningHandler = aboutDefaultAccount{config.WarningHandler}
	}
	// A few requests at the start, and none may wait for its turn.
	config.QPS = -1
	o.config.CloseConnections = process.TrackConnections(config)
	if o.config.Server, err = process.ServerOf(config); err != nil {
		return nil, "", err
	}
	if o.config.Probe, err = process.NewProbe(config); err != nil {
		return nil, "", err
	}
	client, err = lastingClient(config, func() (*rest.Config, error) {
		again, _, err := o.connection.config(io.Discard)
		return again, err
	})
	if err != nil {
		return nil, "", fmt.Errorf("connect to %s: %w", config.Host, err)
	}
	return client, namespace, nil
}
