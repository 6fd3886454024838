package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/utils/clock"

	"lanyard.dev/internal/bootstraptoken"
	"lanyard.dev/internal/hint"
)

const nodeTokenHelp = `Manage bootstrap tokens. A machine without credentials uses one to request a
certificate as a node. A bootstrap token permits nothing else, and usually
expires soon.`

func newNodeToken(s streams) *cobra.Command {
	return newGroup("token", "Manage bootstrap tokens", nodeTokenHelp, newNodeTokenCreate(s), newNodeTokenList(s), newNodeTokenDelete(s))
}

const nodeTokenCreateHelp = `Create a bootstrap token and print it. It is printed only once; later, only
users who may read Secrets in kube-system can see it.

Anyone with the token can request a certificate as a node until the token
expires or is deleted, so give it a short lifetime and keep it secret. With
--print-join the command prints the kubeconfig for a joining machine, with the
address and CA of the server, as for kubelet --bootstrap-kubeconfig.`

const nodeTokenCreateExamples = `  lanyard node token create --ttl 30m --description 'rack 4'
  lanyard node token create --print-join > bootstrap.kubeconfig`

// maxTokenDescription is the maximum length of a description, in bytes.
const maxTokenDescription = 1024

type nodeTokenCreateOptions struct {
	streams
	connection connection
	clock      clock.PassiveClock

	ttl         time.Duration
	description string
	groups      []string
	printJoin   bool
}

func newNodeTokenCreate(s streams) *cobra.Command {
	o := &nodeTokenCreateOptions{streams: s, clock: clock.RealClock{}}
	cmd := &cobra.Command{
		Use:     "create [--ttl DURATION] [--description TEXT] [--print-join]",
		Short:   "Create a bootstrap token and print it",
		Long:    nodeTokenCreateHelp,
		Example: nodeTokenCreateExamples,
		Args:    noArgs,
		RunE:    checkAndRun(o.validate, o.run),
	}
	o.addFlags(cmd)
	return cmd
}

func (o *nodeTokenCreateOptions) addFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.DurationVar(&o.ttl, "ttl", time.Hour, "lifetime of the token; 0 means that it does not expire")
	f.StringVar(&o.description, "description", "", "purpose of the token, which lanyard node token list shows")
	f.StringSliceVar(&o.groups, "group", nil, "additional group of the token's user, system:bootstrappers:NAME; may be repeated")
	f.BoolVar(&o.printJoin, "print-join", false, "print a kubeconfig for joining instead of the token")
	o.connection.addFlags(cmd.Flags())
}

func (o *nodeTokenCreateOptions) validate([]string) error {
	var errs []error
	if o.ttl < 0 || o.ttl > 0 && o.ttl < time.Second {
		errs = append(errs, fmt.Errorf("--ttl must be 0 or at least 1s, not %v", o.ttl))
	}
	if len(o.description) > maxTokenDescription {
		errs = append(errs, fmt.Errorf("--description must have at most %d bytes", maxTokenDescription))
	}
	for _, group := range o.groups {
		if err := bootstraptoken.CheckGroup(group); err != nil {
			errs = append(errs, fmt.Errorf("--group: %w", err))
		}
	}
	return errors.Join(errs...)
}

func (o *nodeTokenCreateOptions) run(ctx context.Context) error {
	client, config, err := o.connection.client(o.err)
	if err != nil {
		return err
	}
	spec := bootstraptoken.Spec{Description: o.description, ExtraGroups: o.groups}
	if o.ttl > 0 {
		// Expiry is stored in seconds. Round down, so that the token does not live longer than requested.
		spec.Expires = o.clock.Now().Add(o.ttl).Truncate(time.Second)
	}
	token, err := storeToken(ctx, client, spec)
	if err != nil {
		return err
	}
	result := token.Reveal() + "\n"
	if o.printJoin {
		if result, err = joinConfig(config, token); err != nil {
			return errors.Join(err, deleteToken(ctx, client, token.ID()))
		}
	}
	if err := write(o.out, result); err != nil {
		return err
	}
	o.printAdvice(config, spec, token.ID())
	return nil
}

// storeToken creates a token. It tries three times, because another token may have the random ID.
func storeToken(ctx context.Context, client kubernetes.Interface, spec bootstraptoken.Spec) (bootstraptoken.Token, error) {
	var err error
	for range 3 {
		token := bootstraptoken.New()
		secret := bootstraptoken.NewSecret(token, spec)
		_, err = client.CoreV1().Secrets(secret.Namespace).Create(ctx, secret, metav1.CreateOptions{})
		if err == nil {
			return token, nil
		}
		if !apierrors.IsAlreadyExists(err) {
			break
		}
	}
	return bootstraptoken.Token{}, fmt.Errorf("store a bootstrap token: %w", err)
}

// joinConfig returns a kubeconfig with the token, and with the address and CA in the configuration of a client.
func joinConfig(config *rest.Config, token bootstraptoken.Token) (string, error) {
	ca, err := loadCA(config)
	if err != nil {
		return "", err
	}
	const cluster, user = "lanyard", "bootstrap"
	join := clientcmdapi.NewConfig()
	join.Clusters[cluster] = &clientcmdapi.Cluster{
		Server: config.Host, CertificateAuthorityData: ca, TLSServerName: config.ServerName,
	}
	join.AuthInfos[user] = &clientcmdapi.AuthInfo{Token: token.Reveal()}
	join.Contexts[user] = &clientcmdapi.Context{Cluster: cluster, AuthInfo: user}
	join.CurrentContext = user
	data, err := clientcmd.Write(*join)
	if err != nil {
		return "", fmt.Errorf("encode the kubeconfig: %w", err)
	}
	return string(data), nil
}

// printAdvice prints when the token expires, and what to do about problems.
func (o *nodeTokenCreateOptions) printAdvice(config *rest.Config, spec bootstraptoken.Spec, id string) {
	ends := "does not expire: delete it when the nodes have joined, with lanyard node token delete " + id
	if !spec.Expires.IsZero() {
		ends = fmt.Sprintf("expires in %s", durationText(o.ttl))
	}
	fmt.Fprintf(o.err, "bootstrap token %s %s\n", id, ends)
	if o.printJoin && isLoopback(config.Host) {
		fmt.Fprintf(o.err, "hint: only this machine can reach %s: serve other machines with lanyard up --bind-address\n", config.Host)
	}
}

func isLoopback(host string) bool {
	u, err := url.Parse(host)
	if err != nil {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
}

const nodeTokenListHelp = `List the bootstrap tokens. The list contains their IDs, which are public, and
never their secrets.`

const nodeTokenListExamples = `  lanyard node token list
  lanyard node token list -o json`

type nodeTokenListOptions struct {
	streams
	connection connection
	output     outputOptions
	clock      clock.PassiveClock
}

func newNodeTokenList(s streams) *cobra.Command {
	o := &nodeTokenListOptions{streams: s, clock: clock.RealClock{}}
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the bootstrap tokens",
		Long:    nodeTokenListHelp,
		Example: nodeTokenListExamples,
		Args:    noArgs,
		RunE:    checkAndRun(func([]string) error { return o.output.validate() }, o.run),
	}
	o.output.addFlags(cmd, formatText, formatJSON, formatYAML)
	o.connection.addFlags(cmd.Flags())
	return cmd
}

// tokenSummary is a bootstrap token without its secret.
type tokenSummary struct {
	ID          string     `json:"id"`
	Expires     *time.Time `json:"expires,omitempty"`
	Usable      bool       `json:"usable"`
	Reason      string     `json:"reason,omitempty"`
	Groups      []string   `json:"groups"`
	Description string     `json:"description,omitempty"`
}

func (o *nodeTokenListOptions) run(ctx context.Context) error {
	client, _, err := o.connection.client(o.err)
	if err != nil {
		return err
	}
	found, err := client.CoreV1().Secrets(bootstraptoken.Namespace).List(ctx, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector("type", string(corev1.SecretTypeBootstrapToken)).String(),
	})
	if err != nil {
		return fmt.Errorf("list bootstrap tokens: %w", err)
	}
	tokens := summarize(found.Items, o.clock.Now())
	return o.output.print(o.out, tokens, func(w io.Writer) error { return printTokens(w, tokens, o.clock.Now()) })
}

func summarize(secrets []corev1.Secret, now time.Time) []tokenSummary {
	tokens := []tokenSummary{}
	for i := range secrets {
		entry, err := bootstraptoken.FromSecret(&secrets[i])
		if err != nil {
			continue
		}
		s := tokenSummary{ID: entry.ID, Groups: entry.Groups, Description: entry.Description, Usable: true}
		if err := entry.Usable(now); err != nil {
			s.Usable, s.Reason = false, err.Error()
		}
		if !entry.Expires.IsZero() {
			s.Expires = &entry.Expires
		}
		tokens = append(tokens, s)
	}
	slices.SortFunc(tokens, func(a, b tokenSummary) int { return strings.Compare(a.ID, b.ID) })
	return tokens
}

func printTokens(w io.Writer, tokens []tokenSummary, now time.Time) error {
	return printTable(w, "", []string{"ID", "EXPIRES", "GROUPS", "DESCRIPTION"}, len(tokens), func(i int) []string {
		t := &tokens[i]
		return []string{t.ID, t.expiry(now), strings.Join(t.Groups, ","), strings.ReplaceAll(t.Description, "\n", " ")}
	})
}

// expiry returns when the token expires, or why it cannot be used.
func (t *tokenSummary) expiry(now time.Time) string {
	switch {
	case !t.Usable:
		return "unusable: " + t.Reason
	case t.Expires == nil:
		return "never"
	}
	return "in " + durationText(t.Expires.Sub(now))
}

const nodeTokenDeleteHelp = `Delete a bootstrap token. It is refused from now on. Nodes that have joined with
it keep their certificates.`

func newNodeTokenDelete(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use: "delete ID", Short: "Delete a bootstrap token",
		Long: nodeTokenDeleteHelp, Example: "  lanyard node token delete abcdef",
	}
	return newObjectCommand(s, cmd, parseTokenID, func(ctx context.Context, client kubernetes.Interface, id string) error {
		if err := deleteToken(ctx, client, id); err != nil {
			return err
		}
		return write(s.out, fmt.Sprintf("bootstrap token %s deleted\n", id))
	})
}

// parseTokenID returns the ID of a token, from the ID or the whole token. The error does not repeat the argument, which may be
// a secret.
func parseTokenID(arg string) (string, error) {
	if token, ok := bootstraptoken.Parse(arg); ok {
		return token.ID(), nil
	}
	if !bootstraptoken.IsID(arg) {
		return "", errors.New("the ID of a token is six characters of a-z and 0-9")
	}
	return arg, nil
}

func deleteToken(ctx context.Context, client kubernetes.Interface, id string) error {
	err := client.CoreV1().Secrets(bootstraptoken.Namespace).Delete(ctx, bootstraptoken.SecretPrefix+id, metav1.DeleteOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return hint.New(fmt.Errorf("there is no bootstrap token %s", id), "see lanyard node token list")
	case err != nil:
		return fmt.Errorf("delete bootstrap token %s: %w", id, err)
	}
	return nil
}
