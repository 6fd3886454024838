package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/utils/clock"

	"lanyard.dev/internal/bootstraptoken"
)

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
