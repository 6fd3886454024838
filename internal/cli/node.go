package cli

import (
	"context"
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

	"lanyard.dev/internal/hint"
	"lanyard.dev/internal/nodeaccess"
)

const nodeHelp = `Admit machines as nodes, and evict stolen ones. A node runs pods, and gets
tokens only for the service accounts of its pods.`

func newNode(s streams) *cobra.Command {
	return newGroup("node", "Admit machines as nodes, or evict them", nodeHelp, newNodeToken(s), newNodeEvict(s))
}

// newObjectCommand completes cmd, a command that changes one object of a server. parse returns the object from the argument.
// Its error must not contain the argument if that may be a secret.
func newObjectCommand(s streams, cmd *cobra.Command, parse func(arg string) (string, error), run func(ctx context.Context, client kubernetes.Interface, object string) error) *cobra.Command {
	connection := &connection{}
	cmd.Args = cobra.ArbitraryArgs
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) != 1 {
			return usageError(cmd, fmt.Errorf("expected one argument, not %d", len(args)))
		}
		object, err := parse(args[0])
		if err != nil {
			return usageError(cmd, err)
		}
		client, _, err := connection.client(s.err)
		if err != nil {
			return err
		}
		return run(cmd.Context(), client, object)
	}
	connection.addFlags(cmd.Flags())
	return cmd
}

const nodeEvictHelp = `Evict a node whose machine, disk or certificate was stolen.

From now on, every certificate of the node is refused permanently, and all
tokens of its pods are refused. The command deletes the pods, the Node and its
Lease, even if they have finalizers. To delete only the Node would not be
enough: the node would register again with its certificate.

The machine can join again with a new key: erase it, or remove the agent's
directory on it, and start the agent with a new bootstrap token. Delete the
bootstrap tokens that the machine still has.`

func newNodeEvict(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use: "evict NAME", Short: "Refuse the certificates and tokens of a stolen node",
		Long: nodeEvictHelp, Example: "  lanyard node evict rack4-node7",
	}
	return newObjectCommand(s, cmd, parseNodeName, func(ctx context.Context, client kubernetes.Interface, node string) error {
		result, err := evict(ctx, client, node)
		if err != nil {
			return err
		}
		if !result.registered {
			fmt.Fprintf(s.err, "There is no Node %s. Certificates of that name are refused anyway.\n", node)
		}
		return write(s.out, fmt.Sprintf("node %s evicted, pods removed: %d\n", node, result.pods))
	})
}

func parseNodeName(name string) (string, error) {
	if len(validation.IsDNS1123Subdomain(name)) > 0 {
		return "", fmt.Errorf("%q cannot be the name of a node", name)
	}
	return name, nil
}

type evictionResult struct {
	registered bool // whether the Node existed
	pods       int  // number of deleted pods
}

// withoutFinalizers is a patch that removes finalizers. A node can set finalizers on its Node, its Lease and, through their
// status, its pods, and so prevent their deletion.
const withoutFinalizers = `{"metadata":{"finalizers":null}}`

// evict refuses the certificates first. Until then the node could undo the other steps.
func evict(ctx context.Context, client kubernetes.Interface, node string) (result evictionResult, err error) {
	core := client.CoreV1()
	if _, err := core.Secrets(nodeaccess.EvictionNamespace).Create(ctx, nodeaccess.NewEviction(node), metav1.CreateOptions{}); err != nil {
		return result, fmt.Errorf("evict node %s: %w", node, err)
	}
	unfinished := func(what string, err error) error {
		return hint.New(fmt.Errorf("the certificates of node %s are refused, but its %s was not deleted: %w", node, what, err), "run the command again")
	}
	leases := client.CoordinationV1().Leases(corev1.NamespaceNodeLease)
	if err = leases.Delete(ctx, node, metav1.DeleteOptions{}); err == nil {
		_, err = leases.Patch(ctx, node, types.MergePatchType, []byte(withoutFinalizers), metav1.PatchOptions{})
	}
	if err != nil && !apierrors.IsNotFound(err) {
		return result, unfinished("Lease", err)
	}
	err = core.Nodes().Delete(ctx, node, metav1.DeleteOptions{})
	if result.registered = err == nil; err == nil {
		_, err = core.Nodes().Patch(ctx, node, types.MergePatchType, []byte(withoutFinalizers), metav1.PatchOptions{})
	}
	if err != nil && !apierrors.IsNotFound(err) {
		return result, unfinished("Node", err)
	}
	onNode := fields.OneTermEqualSelector("spec.nodeName", node).String()
	pods, err := core.Pods(metav1.NamespaceAll).List(ctx, metav1.ListOptions{FieldSelector: onNode})
	if err != nil {
		return result, unfinished("list of pods", err)
	}
	for _, pod := range pods.Items {
		now := metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0), Preconditions: metav1.NewUIDPreconditions(string(pod.UID))}
		err := core.Pods(pod.Namespace).Delete(ctx, pod.Name, now)
		if err == nil && len(pod.Finalizers) > 0 {
			_, err = core.Pods(pod.Namespace).Patch(ctx, pod.Name, types.MergePatchType, []byte(withoutFinalizers), metav1.PatchOptions{})
		}
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return result, unfinished("pod "+pod.Namespace+"/"+pod.Name, err)
		}
		result.pods++
	}
	return result, nil
}
