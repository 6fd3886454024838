package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/utils/clock"

	identity "lanyard.dev/apis/identity/v1alpha1"
	"lanyard.dev/internal/signingkey"
)

const keyHelp = `Show the keys that sign service-account tokens, and replace them. An authority
replaces its keys by itself; keys in files are replaced by changing the files.`

func newKey(s streams) *cobra.Command {
	return newGroup("key", "List and replace signing keys", keyHelp, newKeyList(s), newKeyRotate(s))
}

// keyResource is the name of the keys in the API.
const keyResource = "signingkeys"

// keyOptions are those of a command about keys.
type keyOptions struct {
	streams
	connection connection
	output     outputOptions
	clock      clock.PassiveClock
	client     *credentialClient
}

// keys connects to the authority and returns its keys.
func (o *keyOptions) keys(ctx context.Context) (list *identity.SigningKeyList, err error) {
	if o.client, _, err = newCredentialClient(&o.connection, o.err); err != nil {
		return nil, err
	}
	list = &identity.SigningKeyList{}
	return list, o.client.api.Get().Resource(keyResource).Do(ctx).Into(list)
}

func newKeyList(s streams) *cobra.Command {
	o := &keyOptions{streams: s, clock: clock.RealClock{}}
	cmd := &cobra.Command{
		Use: "list", Short: "List the signing keys, with their live tokens",
		Long: "List the keys of the key set: the key that signs for each algorithm, the next one\nonce it is published, and those that live tokens still need.",
		Args: noArgs, RunE: checkAndRun(func([]string) error { return o.output.validate() }, o.list),
	}
	o.output.addFlags(cmd, formatTable, formatJSON, formatYAML)
	o.connection.addFlags(cmd.Flags())
	return cmd
}

func (o *keyOptions) list(ctx context.Context) error {
	list, err := o.keys(ctx)
	if err != nil {
		return err
	}
	return o.output.print(o.out, list, func(w io.Writer) error { return o.table(w, list.Items) })
}

func (o *keyOptions) table(w io.Writer, keys []identity.SigningKey) error {
	columns := []string{"ID", "ALGORITHM", "STATE", "CREATED", "SIGNING SINCE", "LIVE TOKENS"}
	return printTable(w, "", columns, len(keys), func(i int) []string {
		k := &keys[i]
		created, signing, live := "<unknown>", "<none>", "<unknown>"
		if !k.CreationTimestamp.IsZero() {
			created = k.CreationTimestamp.UTC().Format(time.RFC3339)
		}
		switch {
		case k.Status.SigningSince != nil:
			signing = k.Status.SigningSince.UTC().Format(time.RFC3339)
		case k.Status.SigningFrom != nil:
			signing = "in " + duration.HumanDuration(max(0, k.Status.SigningFrom.Sub(o.clock.Now())))
		}
		if k.Status.LiveTokens != nil {
			live = strconv.FormatInt(*k.Status.LiveTokens, 10)
		}
		return []string{k.Name, k.Spec.Algorithm, string(k.Status.State), created, signing, live}
	})
}

const keyRotateHelp = `Publish a new signing key. It signs in place of the present one as soon as
everybody who caches the key set knows it; the tokens of the present key are
accepted until they expire.

With --revoke, for an emergency, a new key signs at once, and every token of the
present key is refused when the command ends. What the agent and lanyard exec run
gets new tokens within seconds. Other tokens have to be requested again. A
service that verifies tokens itself learns of both keys when it reads the key
set again.`

const keyRotateExamples = `  lanyard key rotate
  lanyard key rotate --algorithm RS256
  lanyard key rotate --revoke`

type keyRotateOptions struct {
	keyOptions
	algorithm   string
	revoke, yes bool
}

func newKeyRotate(s streams) *cobra.Command {
	o := &keyRotateOptions{keyOptions: keyOptions{streams: s, clock: clock.RealClock{}}}
	cmd := &cobra.Command{
		Use: "rotate [--algorithm NAME] [--revoke]", Short: "Replace the signing key",
		Long: keyRotateHelp, Example: keyRotateExamples, Args: noArgs, RunE: checkAndRun(o.validate, o.run),
	}
	f := cmd.Flags()
	f.StringVar(&o.algorithm, "algorithm", "", fmt.Sprintf("replace the key for this algorithm only, one of %v", signingkey.Algorithms()))
	f.BoolVar(&o.revoke, "revoke", false, "refuse all tokens of the present key at once")
	f.BoolVar(&o.yes, "yes", false, "do not ask before keys are revoked")
	o.connection.addFlags(f)
	return cmd
}

func (o *keyRotateOptions) validate([]string) error {
	if o.algorithm == "" {
		return nil
	}
	for _, known := range signingkey.Algorithms() {
		if o.algorithm == string(known) {
			return nil
		}
	}
	return fmt.Errorf("--algorithm must be one of %v, not %q", signingkey.Algorithms(), o.algorithm)
}

func (o *keyRotateOptions) run(ctx context.Context) error {
	list, err := o.keys(ctx)
	if err != nil {
		return err
	}
	var signing []identity.SigningKey
	for _, key := range list.Items {
		if key.Status.State == identity.KeySigning && (o.algorithm == "" || key.Spec.Algorithm == o.algorithm) {
			signing = append(signing, key)
		}
	}
	if len(signing) == 0 {
		return fmt.Errorf("no key signs with %s", o.algorithm)
	}
	if o.revoke {
		return o.revokeAll(ctx, signing)
	}
	for _, key := range signing {
		if err := o.publish(ctx, key.Spec.Algorithm); err != nil {
			return err
		}
	}
	return nil
}

// publish publishes the next key for an algorithm. A key that is waiting already is as good as a new one.
func (o *keyRotateOptions) publish(ctx context.Context, algorithm string) error {
	made := &identity.SigningKey{}
	err := o.client.api.Post().Resource(keyResource).Body(&identity.SigningKey{Spec: identity.SigningKeySpec{Algorithm: algorithm}}).Do(ctx).Into(made)
	var status apierrors.APIStatus
	if apierrors.IsConflict(err) && errors.As(err, &status) && strings.Contains(err.Error(), "already published") {
		return write(o.out, fmt.Sprintf("%s: %s\n", algorithm, err))
	}
	if err != nil {
		return err
	}
	from := ""
	if made.Status.SigningFrom != nil {
		from = made.Status.SigningFrom.UTC().Format(time.RFC3339)
	}
	return write(o.out, fmt.Sprintf("%s: key %s is published, and signs from %s\n", algorithm, made.Name, from))
}

// revokeAll revokes keys that sign.
func (o *keyRotateOptions) revokeAll(ctx context.Context, keys []identity.SigningKey) error {
	if err := o.table(o.err, keys); err != nil {
		return err
	}
	if !o.yes {
		question := fmt.Sprintf("Revoke %s and refuse all their tokens? [y/N] ", plural(int64(len(keys)), "key"))
		if err := confirmRevocation(o.streams, false, question); err != nil {
			return err
		}
	}
	for _, key := range keys {
		if err := o.client.api.Delete().Resource(keyResource).Name(key.Name).Do(ctx).Error(); err != nil {
			return fmt.Errorf("revoke key %s: %w", key.Name, err)
		}
		if err := write(o.out, fmt.Sprintf("%s: key %s is revoked, and a new key signs\n", key.Spec.Algorithm, key.Name)); err != nil {
			return err
		}
	}
	return nil
}
