package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
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
)

const nodeTokenCreateHelp = `Create a bootstrap token and print it. It is shown this once: only whoever may
read Secrets in kube-system sees it again.

Whoever holds it can ask for a certificate as a node until it expires or is
deleted, so give it a short life and pass it on where others cannot read it.
With --print-join the result is the kubeconfig that a joining machine needs,
with the server's address and CA, as for kubelet --bootstrap-kubeconfig.`

const nodeTokenCreateExamples = `  lanyard node token create --ttl 30m --description 'rack 4'
  lanyard node token create --print-join > bootstrap.kubeconfig`

// maxTokenDescription keeps a description readable in a list.
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
		Short:   "Create a token that machines join with, and print it",
		Long:    nodeTokenCreateHelp,
		Example: nodeTokenCreateExamples,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.validate(); err != nil {
				return usageError(cmd, err)
			}
			return o.run(cmd.Context())
		},
	}
	o.addFlags(cmd)
	return cmd
}

func (o *nodeTokenCreateOptions) addFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.DurationVar(&o.ttl, "ttl", time.Hour, "how long the token is good for; 0 is until it is deleted")
	f.StringVar(&o.description, "description", "", "what the token is for, as lanyard node token list shows it")
	f.StringSliceVar(&o.groups, "group", nil, "another group for whoever holds the token, system:bootstrappers:NAME; may be repeated")
	f.BoolVar(&o.printJoin, "print-join", false, "print the kubeconfig to join with, rather than the token alone")
	o.connection.addFlags(cmd.Flags())
}

func (o *nodeTokenCreateOptions) validate() error {
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
		// Stored to the second: a token must not live longer than it was said to.
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
	o.advise(config, spec, token.ID())
	return nil
}

// storeToken makes a token. Its ID is one of two thousand million, so it may be taken, but not thrice in a row.
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

// joinConfig is a kubeconfig with the token, and what the client that stored it knows of the server.
func joinConfig(config *rest.Config, token bootstraptoken.Token) (string, error) {
	ca := config.CAData
	if len(ca) == 0 && config.CAFile != "" {
		var err error
		if ca, err = os.ReadFile(config.CAFile); err != nil {
			return "", fmt.Errorf("read the server's CA: %w", err)
		}
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

// advise says, beside the result, what becomes of the token.
func (o *nodeTokenCreateOptions) advise(config *rest.Config, spec bootstraptoken.Spec, id string) {
	ends := "never expires: delete it once the nodes have joined, with lanyard node token delete " + id
	if !spec.Expires.IsZero() {
		ends = fmt.Sprintf("expires in %s", inWords(o.ttl))
	}
	fmt.Fprintf(o.err, "bootstrap token %s %s\n", id, ends)
	if o.printJoin && loopback(config.Host) {
		fmt.Fprintf(o.err, "hint: %s is reached from this machine only: serve others with lanyard up --bind-address\n", config.Host)
	}
}

func loopback(host string) bool {
	u, err := url.Parse(host)
	if err != nil {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
}

const nodeTokenListHelp = `List the tokens that machines can join with. Of each its public ID is shown,
never the rest.`

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
		Short:   "List the tokens that machines can join with",
		Long:    nodeTokenListHelp,
		Example: nodeTokenListExamples,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.output.validate(); err != nil {
				return usageError(cmd, err)
			}
			return o.run(cmd.Context())
		},
	}
	o.output.addFlags(cmd)
	o.connection.addFlags(cmd.Flags())
	return cmd
}

// tokenSummary is what is shown of a token.
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
	table := tabwriter.NewWriter(w, 0, 8, 3, ' ', 0)
	fmt.Fprintln(table, "ID\tEXPIRES\tGROUPS\tDESCRIPTION")
	for _, t := range tokens {
		// A description is someone else's text: neither may it steer a terminal nor add columns or lines.
		description := strings.ReplaceAll(printable([]byte(t.Description)), "\n", " ")
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", t.ID, t.end(now), strings.Join(t.Groups, ","), description)
	}
	if err := table.Flush(); err != nil {
		return fmt.Errorf("write the result: %w", err)
	}
	return nil
}

// end says until when the token is usable, or why it is not.
func (t tokenSummary) end(now time.Time) string {
	switch {
	case !t.Usable:
		return "unusable: " + printable([]byte(t.Reason))
	case t.Expires == nil:
		return "never"
	}
	return "in " + inWords(t.Expires.Sub(now))
}

const nodeTokenDeleteHelp = `Delete a token that machines join with. It is refused from then on; nodes that
have joined with it keep their certificates.`

type nodeTokenDeleteOptions struct {
	streams
	connection connection
	id         string
}

func newNodeTokenDelete(s streams) *cobra.Command {
	o := &nodeTokenDeleteOptions{streams: s}
	cmd := &cobra.Command{
		Use:     "delete ID",
		Short:   "Delete a token that machines join with",
		Long:    nodeTokenDeleteHelp,
		Example: "  lanyard node token delete abcdef",
		Args:    cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.complete(args); err != nil {
				return usageError(cmd, err)
			}
			return o.run(cmd.Context())
		},
	}
	o.connection.addFlags(cmd.Flags())
	return cmd
}

// complete takes the ID, or a whole token. Neither is repeated where it is not understood: it may be a secret.
func (o *nodeTokenDeleteOptions) complete(args []string) error {
	if len(args) != 1 {
		return errors.New("name one token by its ID")
	}
	if token, ok := bootstraptoken.Parse(args[0]); ok {
		o.id = token.ID()
		return nil
	}
	if o.id = args[0]; !bootstraptoken.IsID(o.id) {
		return errors.New("the ID of a token is six characters of a-z and 0-9")
	}
	return nil
}

func (o *nodeTokenDeleteOptions) run(ctx context.Context) error {
	client, _, err := o.connection.client(o.err)
	if err != nil {
		return err
	}
	if err := deleteToken(ctx, client, o.id); err != nil {
		return err
	}
	return write(o.out, fmt.Sprintf("bootstrap token %s deleted\n", o.id))
}

func deleteToken(ctx context.Context, client kubernetes.Interface, id string) error {
	err := client.CoreV1().Secrets(bootstraptoken.Namespace).Delete(ctx, bootstraptoken.SecretPrefix+id, metav1.DeleteOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return withHint(fmt.Errorf("there is no bootstrap token %s", id), "see lanyard node token list")
	case err != nil:
		return fmt.Errorf("delete bootstrap token %s: %w", id, err)
	}
	return nil
}
