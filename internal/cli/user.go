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
	"lanyard.dev/internal/hint"
	"lanyard.dev/internal/pki"
)

const userHelp = `Create credentials for people. A person is a name in a certificate; the server
stores no list of people. Roles and bindings determine what a person may do.`

func newUser(s streams) *cobra.Command {
	return newGroup("user", "Create credentials for people", userHelp, newUserKubeconfig(s))
}

const userKubeconfigHelp = `Create a kubeconfig for a person. It authenticates the person as NAME, a member
of the given groups. The private key is generated on this machine and leaves it
only in the kubeconfig. The server signs the certificate, for a certificate
request that this command creates and approves. lanyard certificate revoke ends
the certificate before it expires. Other clusters cannot do this, so keep --ttl
short there.

You need the permissions to create and get certificate requests, to update their
approval, and to approve for the signer kubernetes.io/kube-apiserver-client. The
command works with any Kubernetes cluster that signs for that signer.

The person has no permissions until a role is bound to the name or to a group.`

const userKubeconfigExamples = `  # For jane, a member of the group dev, for a day
  lanyard user kubeconfig jane --group dev --out jane.kubeconfig
  lanyard kubectl create rolebinding dev --clusterrole view --group dev
  lanyard kubectl --kubeconfig jane.kubeconfig get pods

  # For another cluster, sent to jane's machine without a file on this one
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
		Use: "kubeconfig NAME", Short: "Create a kubeconfig for a person",
		Long: userKubeconfigHelp, Example: userKubeconfigExamples, Args: cobra.ArbitraryArgs,
		RunE: checkAndRun(o.parse, o.run),
	}
	f := cmd.Flags()
	f.StringArrayVar(&o.groups, "group", nil, "group of the person; may be repeated")
	f.DurationVar(&o.ttl, "ttl", defaultUserTTL, "lifetime of the certificate, at least 10m; the server may allow less")
	f.StringVar(&o.target, "out", "", "file to write, which only you can read (default: standard output)")
	f.DurationVar(&o.timeout, "timeout", 30*time.Second, "maximum time to wait for the certificate")
	o.connection.addFlags(f)
	return cmd
}

func (o *userKubeconfigOptions) parse(args []string) error {
	if err := expectArgs(args, 1, "NAME"); err != nil {
		return err
	}
	o.name = args[0]
	return o.validate()
}

func (o *userKubeconfigOptions) validate() error {
	errs := []error{validateSubject("NAME", o.name)}
	if strings.HasPrefix(o.name, reservedPrefix) {
		errs = append(errs, fmt.Errorf("NAME %q: names with the prefix %q are for parts of the system, not for people", o.name, reservedPrefix))
	}
	for i, group := range o.groups {
		errs = append(errs, validateSubject("--group", group))
		if group == mastersGroup {
			errs = append(errs, fmt.Errorf("--group %s: certificates of this group are not issued, because no role restricts its members", mastersGroup))
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

// validateSubject refuses names with characters that a reader cannot see.
func validateSubject(what, name string) error {
	odd := func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar }
	if name == "" || strings.TrimSpace(name) != name || strings.ContainsFunc(name, odd) {
		return fmt.Errorf("%s %q: must be printable text without spaces around it", what, name)
	}
	return nil
}

func (o *userKubeconfigOptions) run(parent context.Context) error {
	// The first signal must not end the process, which has to delete the certificate request first.
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
		return fmt.Errorf("connect to %s: %w", config.Host, err)
	}
	keyPEM, requestPEM, err := pki.NewRequest(o.name, o.groups)
	if err != nil {
		return err
	}
	request := &certificateRequest{client: client, timeout: o.timeout, request: requestPEM, ttl: o.ttl, approver: "lanyard user kubeconfig"}
	chain, err := request.run(ctx)
	if err != nil {
		return err
	}
	return o.deliver(config, keyPEM, chain)
}

// deliver writes the kubeconfig and prints how long it is valid.
func (o *userKubeconfigOptions) deliver(config *rest.Config, keyPEM, chain []byte) error {
	until, err := o.checkCertificate(keyPEM, chain)
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
		return hint.New(err, "the certificate is lost: run the command again")
	}
	fmt.Fprintf(o.err, "%s can sign in until %s%s\n", o.describe(), until.UTC().Format(time.RFC3339), o.shortenedText(until))
	return nil
}

func (o *userKubeconfigOptions) describe() string {
	if len(o.groups) == 0 {
		return o.name
	}
	return fmt.Sprintf("%s (of %s)", o.name, strings.Join(o.groups, ", "))
}

// shortenedText returns a text if the server shortened the lifetime. It ignores the five minutes that Kubernetes' signer
// subtracts from long lifetimes.
func (o *userKubeconfigOptions) shortenedText(until time.Time) string {
	if left := time.Until(until); left < o.ttl-10*time.Minute {
		return fmt.Sprintf(", earlier than requested: the server allows %s", cmp.Or(durationText(left), "nothing"))
	}
	return ""
}

// clusterName is the name of the cluster in the kubeconfigs.
const clusterName = "cluster"

// userKubeconfig returns a kubeconfig that refers to no other file and contains no credentials of the administrator.
func userKubeconfig(admin *rest.Config, name string, keyPEM, chain []byte) ([]byte, error) {
	cluster := clientcmdapi.NewCluster()
	cluster.Server, cluster.TLSServerName = admin.Host, admin.ServerName
	cluster.InsecureSkipTLSVerify = admin.Insecure
	var err error
	if cluster.CertificateAuthorityData, err = loadCA(admin); err != nil {
		return nil, err
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

func readKubeconfig(file string) (*clientcmdapi.Config, error) {
	data, err := files.Read(file, files.MaxConfig)
	if err != nil {
		return nil, err
	}
	return clientcmd.Load(data)
}

// checkTarget returns an error if --out exists, unless it is an earlier kubeconfig of the same person for the same server.
func (o *userKubeconfigOptions) checkTarget(host string) error {
	if o.target == "" {
		return nil
	}
	info, err := os.Lstat(o.target)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && info.Mode().IsRegular() {
		config, err := readKubeconfig(o.target)
		if err == nil && len(config.AuthInfos) == 1 && config.AuthInfos[o.name] != nil &&
			config.Clusters[clusterName] != nil && config.Clusters[clusterName].Server == host {
			return nil
		}
	}
	return hint.New(fmt.Errorf("--out %s exists and is not an earlier kubeconfig of %s for %s", o.target, o.name, host),
		"choose another file, or remove it")
}

// checkCertificate compares the certificate with the request, and returns its expiration time. The kubeconfig must not contain
// the certificate of another user.
func (o *userKubeconfigOptions) checkCertificate(keyPEM, chain []byte) (time.Time, error) {
	pair, err := tls.X509KeyPair(chain, keyPEM)
	if err != nil {
		return time.Time{}, fmt.Errorf("the server issued a certificate that does not match the key: %w", err)
	}
	subject := pair.Leaf.Subject
	sorted := func(s []string) []string { return slices.Sorted(slices.Values(s)) }
	if subject.CommonName != o.name || !slices.Equal(sorted(subject.Organization), sorted(o.groups)) {
		return time.Time{}, fmt.Errorf("the server issued a certificate for %q of %q instead", subject.CommonName, subject.Organization)
	}
	return pair.Leaf.NotAfter, nil
}
