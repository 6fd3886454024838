package cli

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"lanyard.dev/internal/files"
	"lanyard.dev/internal/pki"
)

const userHelp = `Let people in. A person is a name in a certificate; no server keeps a list of
them. What they may do is for roles and bindings to say.`

func newUser(s streams) *cobra.Command {
	group := newGroup(s, "user", "Make credentials for people", userHelp)
	group.AddCommand(newUserKubeconfig(s))
	return group
}

const userKubeconfigHelp = `Make a kubeconfig with which a person signs in as NAME, a member of the given
groups. Its key is made here and leaves this machine only in the kubeconfig; its
certificate comes from the server, through a certificate request that you make
and approve. It cannot be taken back before it expires, so keep --ttl short.

You need the rights to create and get certificate requests, to update their
approval, and to approve for the signer kubernetes.io/kube-apiserver-client. It
works with any Kubernetes cluster that signs for that signer.

The person has no rights until a role is bound to the name or to a group.`

const userKubeconfigExamples = `  # jane, of the developers, for a day
  lanyard user kubeconfig jane --group dev --out jane.kubeconfig
  lanyard kubectl create rolebinding dev --clusterrole view --group dev
  lanyard kubectl --kubeconfig jane.kubeconfig get pods

  # On another cluster, straight to the one who needs it
  lanyard user kubeconfig jane --kubeconfig prod.kubeconfig --ttl 1h | ssh jane@desk 'umask 77; cat > prod'`

const (
	defaultUserTTL = 24 * time.Hour
	minUserTTL     = 10 * time.Minute

	mastersGroup   = "system:masters"
	reservedPrefix = "system:"
)

type userKubeconfigOptions struct {
	streams
	connection connection
	name       string
	groups     []string
	ttl        time.Duration
	timeout    time.Duration
	target     string
}

func newUserKubeconfig(s streams) *cobra.Command {
	o := &userKubeconfigOptions{streams: s}
	cmd := &cobra.Command{
		Use: "kubeconfig NAME", Short: "Make a kubeconfig for a person",
		Long: userKubeconfigHelp, Example: userKubeconfigExamples, Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError(cmd, errors.New("name one person"))
			}
			o.name = args[0]
			if err := o.validate(); err != nil {
				return usageError(cmd, err)
			}
			return o.run(cmd.Context())
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&o.groups, "group", nil, "group of the person; may be repeated")
	f.DurationVar(&o.ttl, "ttl", defaultUserTTL, "how long the kubeconfig works, at least 10m; the server may allow less")
	f.StringVar(&o.target, "out", "", "file to write, readable by you alone (default: standard output)")
	f.DurationVar(&o.timeout, "timeout", 30*time.Second, "how long to wait for the certificate")
	o.connection.addFlags(f)
	return cmd
}

func (o *userKubeconfigOptions) validate() error {
	errs := []error{validSubject("NAME", o.name)}
	if strings.HasPrefix(o.name, reservedPrefix) {
		errs = append(errs, fmt.Errorf("NAME %q: names with the prefix %q are for parts of the system, not for people", o.name, reservedPrefix))
	}
	for i, group := range o.groups {
		errs = append(errs, validSubject("--group", group))
		if group == mastersGroup {
			errs = append(errs, fmt.Errorf("--group %s: nobody can be made a member, because no role could restrict it and nothing take it back", mastersGroup))
		}
		if slices.Contains(o.groups[:i], group) {
			errs = append(errs, fmt.Errorf("--group %q is given twice", group))
		}
	}
	if o.ttl < minUserTTL || o.ttl > math.MaxInt32*time.Second {
		errs = append(errs, fmt.Errorf("--ttl %v: must be between %v and %v", o.ttl, "10m", "68 years"))
	}
	if o.timeout <= 0 {
		errs = append(errs, fmt.Errorf("--timeout %v: must be positive", o.timeout))
	}
	return errors.Join(errs...)
}

// validSubject refuses what two readers could take for different names.
func validSubject(what, name string) error {
	odd := func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar }
	if name == "" || strings.TrimSpace(name) != name || strings.ContainsFunc(name, odd) {
		return fmt.Errorf("%s %q: must be printable text without spaces around it", what, name)
	}
	return nil
}

func (o *userKubeconfigOptions) run(parent context.Context) error {
	// The first signal must not end the process: the request that was made is to be removed.
	ctx, stop := untilSignal(parent)
	defer stop()
	config, _, err := o.connection.config(o.err)
	if err != nil {
		return err
	}
	if err := o.checkTarget(config.Host); err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("talk to %s: %w", config.Host, err)
	}
	keyPEM, requestPEM, err := pki.NewRequest(o.name, o.groups)
	if err != nil {
		return err
	}
	enrolment := &enrolment{client: client, timeout: o.timeout, request: requestPEM, ttl: o.ttl, approver: "lanyard user kubeconfig"}
	chain, err := enrolment.run(ctx)
	if err != nil {
		return err
	}
	return o.deliver(config, keyPEM, chain)
}

// deliver writes the kubeconfig and says what it is good for.
func (o *userKubeconfigOptions) deliver(config *rest.Config, keyPEM, chain []byte) error {
	until, err := o.check(keyPEM, chain)
	if err != nil {
		return err
	}
	data, err := userKubeconfig(config, o.name, keyPEM, chain)
	if err != nil {
		return err
	}
	if o.target == "" {
		err = write(o.out, string(data))
	} else {
		err = files.Write(o.target, data, 0o600)
	}
	if err != nil {
		return withHint(err, "the certificate is lost: make another")
	}
	fmt.Fprintf(o.err, "%s can sign in until %s%s\n", o.described(), until.UTC().Format(time.RFC3339), o.shortened(until))
	return nil
}

func (o *userKubeconfigOptions) described() string {
	if len(o.groups) == 0 {
		return o.name
	}
	return fmt.Sprintf("%s (of %s)", o.name, strings.Join(o.groups, ", "))
}

// shortened says so if the server allows less than was asked for, but for the five minutes that Kubernetes' own signer takes
// off long lives.
func (o *userKubeconfigOptions) shortened(until time.Time) string {
	if left := time.Until(until); left < o.ttl-10*time.Minute {
		return fmt.Sprintf(", sooner than asked for: the server allows %s", cmp.Or(inWords(left), "nothing"))
	}
	return ""
}

// clusterName is the name of the cluster in the kubeconfigs of people.
const clusterName = "cluster"

// userKubeconfig returns a kubeconfig that needs no other file and holds nothing of the administrator's.
func userKubeconfig(admin *rest.Config, name string, keyPEM, chain []byte) ([]byte, error) {
	cluster := clientcmdapi.NewCluster()
	cluster.Server, cluster.TLSServerName = admin.Host, admin.ServerName
	cluster.CertificateAuthorityData, cluster.InsecureSkipTLSVerify = admin.CAData, admin.Insecure
	if len(cluster.CertificateAuthorityData) == 0 && admin.CAFile != "" {
		var err error
		if cluster.CertificateAuthorityData, err = os.ReadFile(admin.CAFile); err != nil {
			return nil, fmt.Errorf("read the CA of %s: %w", admin.Host, err)
		}
	}
	user := clientcmdapi.NewAuthInfo()
	user.ClientCertificateData, user.ClientKeyData = chain, keyPEM
	context := clientcmdapi.NewContext()
	context.Cluster, context.AuthInfo = clusterName, name

	config := clientcmdapi.NewConfig()
	config.Clusters[clusterName], config.AuthInfos[name], config.Contexts[name] = cluster, user, context
	config.CurrentContext = name
	data, err := clientcmd.Write(*config)
	if err != nil {
		return nil, fmt.Errorf("encode the kubeconfig: %w", err)
	}
	return data, nil
}

// checkTarget refuses to overwrite anything but an earlier kubeconfig of the same person for the same server: a renewal.
// It is asked before anything is made.
func (o *userKubeconfigOptions) checkTarget(host string) error {
	if o.target == "" {
		return nil
	}
	info, err := os.Lstat(o.target)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && info.Mode().IsRegular() {
		config, err := clientcmd.LoadFromFile(o.target)
		if err == nil && len(config.AuthInfos) == 1 && config.AuthInfos[o.name] != nil &&
			config.Clusters[clusterName] != nil && config.Clusters[clusterName].Server == host {
			return nil
		}
	}
	return withHint(fmt.Errorf("--out %s exists and is no earlier kubeconfig of %s for %s", o.target, o.name, host),
		"choose another file, or remove it")
}

// check holds the certificate against what was asked for, so that nobody is handed another's, and returns its end.
func (o *userKubeconfigOptions) check(keyPEM, chain []byte) (time.Time, error) {
	pair, err := tls.X509KeyPair(chain, keyPEM)
	if err != nil {
		return time.Time{}, fmt.Errorf("the server issued a certificate that does not fit: %w", err)
	}
	subject := pair.Leaf.Subject
	sorted := func(s []string) []string { return slices.Sorted(slices.Values(s)) }
	if subject.CommonName != o.name || !slices.Equal(sorted(subject.Organization), sorted(o.groups)) {
		return time.Time{}, fmt.Errorf("the server issued a certificate for %q of %q instead", subject.CommonName, subject.Organization)
	}
	return pair.Leaf.NotAfter, nil
}
