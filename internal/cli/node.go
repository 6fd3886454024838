package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"

	"lanyard.dev/internal/nodeaccess"
)

const nodeHelp = `Let machines become nodes, and refuse those that were stolen. A node runs pods
and gets tokens for their service accounts, and for no others.`

func newNode(s streams) *cobra.Command {
	group := newGroup(s, "node", "Let machines become nodes, or refuse them", nodeHelp)
	group.AddCommand(newNodeToken(s), newNodeEvict(s))
	return group
}

const nodeTokenHelp = `Manage bootstrap tokens: the credential with which a machine that has none yet
asks for a certificate as a node. It is good for nothing else, and soon ends.`

func newNodeToken(s streams) *cobra.Command {
	group := newGroup(s, "token", "Manage the tokens that machines join with", nodeTokenHelp)
	group.AddCommand(newNodeTokenCreate(s), newNodeTokenList(s), newNodeTokenDelete(s))
	return group
}

const nodeEvictHelp = `Refuse a node that was stolen: its machine, its disk, or its certificate.

Every certificate that the node has is refused from now on, for good, and all
tokens of the pods on it end: the pods, the Node and its Lease are removed,
whatever finalizers they have. To delete the Node alone does not do that: its
certificate registers it again.

The machine comes back by a new join, with a new key: erase it, or remove the
agent's directory on it, and start the agent with a new bootstrap token. Delete
bootstrap tokens that the machine still has.`

type nodeEvictOptions struct {
	streams
	connection connection
	node       string
}

func newNodeEvict(s streams) *cobra.Command {
	o := &nodeEvictOptions{streams: s}
	cmd := &cobra.Command{
		Use:     "evict NAME",
		Short:   "Refuse the certificates and tokens of a stolen node",
		Long:    nodeEvictHelp,
		Example: "  lanyard node evict rack4-node7",
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

func (o *nodeEvictOptions) complete(args []string) error {
	if len(args) != 1 {
		return errors.New("name one node")
	}
	if o.node = args[0]; len(validation.IsDNS1123Subdomain(o.node)) > 0 {
		return fmt.Errorf("%q cannot be the name of a node", o.node)
	}
	return nil
}

func (o *nodeEvictOptions) run(ctx context.Context) error {
	client, _, err := o.connection.client(o.err)
	if err != nil {
		return err
	}
	outcome, err := evict(ctx, client, o.node)
	if err != nil {
		return err
	}
	if !outcome.registered {
		fmt.Fprintf(o.err, "There was no Node called %s; certificates of that name are refused all the same.\n", o.node)
	}
	return write(o.out, fmt.Sprintf("node %s evicted, pods removed: %d\n", o.node, outcome.pods))
}

type evicted struct {
	registered bool
	pods       int
}

// withoutFinalizers is a patch. A node may set finalizers on its Node, its Lease and, by their status, its pods, and so keep
// them from being removed.
const withoutFinalizers = `{"metadata":{"finalizers":null}}`

// evict refuses the node's certificates first: until then it could undo the rest.
func evict(ctx context.Context, client kubernetes.Interface, node string) (done evicted, err error) {
	core := client.CoreV1()
	if _, err := core.Secrets(nodeaccess.EvictionNamespace).Create(ctx, nodeaccess.NewEviction(node), metav1.CreateOptions{}); err != nil {
		return done, fmt.Errorf("evict node %s: %w", node, err)
	}
	unfinished := func(what string, err error) error {
		return withHint(fmt.Errorf("the certificates of node %s are refused, but its %s was not removed: %w", node, what, err), "run the command again")
	}
	leases := client.CoordinationV1().Leases(corev1.NamespaceNodeLease)
	if err = leases.Delete(ctx, node, metav1.DeleteOptions{}); err == nil {
		_, err = leases.Patch(ctx, node, types.MergePatchType, []byte(withoutFinalizers), metav1.PatchOptions{})
	}
	if err != nil && !apierrors.IsNotFound(err) {
		return done, unfinished("Lease", err)
	}
	err = core.Nodes().Delete(ctx, node, metav1.DeleteOptions{})
	if done.registered = err == nil; err == nil {
		_, err = core.Nodes().Patch(ctx, node, types.MergePatchType, []byte(withoutFinalizers), metav1.PatchOptions{})
	}
	if err != nil && !apierrors.IsNotFound(err) {
		return done, unfinished("Node", err)
	}
	on := fields.OneTermEqualSelector("spec.nodeName", node).String()
	pods, err := core.Pods(metav1.NamespaceAll).List(ctx, metav1.ListOptions{FieldSelector: on})
	if err != nil {
		return done, unfinished("list of pods", err)
	}
	for _, pod := range pods.Items {
		now := metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0), Preconditions: metav1.NewUIDPreconditions(string(pod.UID))}
		err := core.Pods(pod.Namespace).Delete(ctx, pod.Name, now)
		if err == nil && len(pod.Finalizers) > 0 {
			_, err = core.Pods(pod.Namespace).Patch(ctx, pod.Name, types.MergePatchType, []byte(withoutFinalizers), metav1.PatchOptions{})
		}
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return done, unfinished("pod "+pod.Namespace+"/"+pod.Name, err)
		}
		done.pods++
	}
	return done, nil
}
