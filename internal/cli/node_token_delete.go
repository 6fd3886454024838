package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"lanyard.dev/internal/bootstraptoken"
)

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
