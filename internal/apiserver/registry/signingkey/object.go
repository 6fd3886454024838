// Package signingkey serves the keys that sign service account tokens, without their private part. A creation publishes a new key,
// and a deletion revokes one.
//
// The objects are made from the keys when they are read. The package does not know when keys change, nor where they are stored.
package signingkey

import (
	"strconv"
	"time"

	"github.com/google/uuid"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/duration"

	identity "lanyard.dev/apis/identity/v1alpha1"
	"lanyard.dev/internal/apiserver/registry"
	"lanyard.dev/internal/signingkey/rotation"
)

var resource = identity.Resource("signingkeys")

// uidSpace is the space of the UIDs of keys. A key has the same UID on every replica.
var uidSpace = uuid.MustParse("0c5dd0a5-3c1f-4b0e-9d55-6a1c2f0b7e11")

func uidOf(kid string) types.UID { return types.UID(uuid.NewSHA1(uidSpace, []byte(kid)).String()) }

// Reference returns the object that events about a key are recorded for.
func Reference(kid string) *corev1.ObjectReference {
	return &corev1.ObjectReference{APIVersion: identity.SchemeGroupVersion.String(), Kind: "SigningKey", Name: kid, UID: uidOf(kid)}
}

// object returns the object of an accepted key at a revision. live is nil if the number of tokens is not known.
func object(k *rotation.Key, policy rotation.Policy, revision uint64, live *int64) *identity.SigningKey {
	made := &identity.SigningKey{
		ObjectMeta: metav1.ObjectMeta{
			Name: k.ID, UID: uidOf(k.ID), ResourceVersion: versionOf(revision), CreationTimestamp: metav1.NewTime(k.Created),
		},
		Spec:   identity.SigningKeySpec{Algorithm: string(k.Algorithm)},
		Status: identity.SigningKeyStatus{State: identity.KeyState(k.State()), LiveTokens: live},
	}
	if k.State() == rotation.Published {
		made.Status.SigningFrom = timeOf(policy.SignsFrom(*k))
	}
	made.Status.SigningSince, made.Status.VerifyingSince = timeOf(k.Signed), timeOf(k.Stopped)
	return made
}

func timeOf(t time.Time) *metav1.Time {
	if t.IsZero() {
		return nil
	}
	return &metav1.Time{Time: t}
}

func versionOf(revision uint64) string { return strconv.FormatUint(max(revision, 1), 10) }

// Columns are the columns of kubectl get signingkeys.
var Columns = []metav1.TableColumnDefinition{
	{Name: "Name", Type: "string", Format: "name", Description: "ID of the key: kid in the header of tokens."},
	{Name: "Algorithm", Type: "string", Description: "Signature algorithm of the key."},
	{Name: "State", Type: "string", Description: "Published (signs next), Signing, or Verifying (signs no more)."},
	{Name: "Signing", Type: "string", Description: "Time since the key began to sign, or until it may begin."},
	{Name: "Live Tokens", Type: "string", Description: "Tokens of the key that have neither expired nor been revoked."},
	{Name: "Age", Type: "string", Description: "Time since the key was published."},
}

// Row returns a cell for each of Columns.
func Row(k *identity.SigningKey, now time.Time) []any {
	signing, live := "<none>", registry.UnknownCell
	switch {
	case k.Status.SigningSince != nil:
		signing = registry.Age(k.Status.SigningSince.Time, now)
	case k.Status.SigningFrom != nil:
		signing = "in " + duration.HumanDuration(max(0, k.Status.SigningFrom.Sub(now)))
	}
	if k.Status.LiveTokens != nil {
		live = strconv.FormatInt(*k.Status.LiveTokens, 10)
	}
	return []any{k.Name, k.Spec.Algorithm, string(k.Status.State), signing, live, registry.Age(k.CreationTimestamp.Time, now)}
}

// Fields are the fields by which keys can be selected.
var Fields = []string{"metadata.name", "metadata.namespace"}
