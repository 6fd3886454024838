package bootstraptoken

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// Namespace is the namespace of the Secrets of tokens. The name of a Secret is SecretPrefix with the token's ID.
	Namespace    = metav1.NamespaceSystem
	SecretPrefix = "bootstrap-token-"

	// Group is a group of every bearer of a token.
	Group = "system:bootstrappers"

	userPrefix = "system:bootstrap:"

	keyID             = "token-id"
	keySecret         = "token-secret"
	keyExpiration     = "expiration"
	keyAuthentication = "usage-bootstrap-authentication"
	keySigning        = "usage-bootstrap-signing"
	keyGroups         = "auth-extra-groups"
	keyDescription    = "description"
)

// extraGroup matches the groups that a token may add. Kubernetes allows no others. It is compiled at its first use,
// because every command of lanyard contains this package and few use it.
var extraGroup = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`\Asystem:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]\z`)
})

// ErrNotBootstrap reports that a Secret is not the Secret of a bootstrap token.
var ErrNotBootstrap = errors.New("not a bootstrap token's secret")

// Entry describes a token. It contains the hash of the secret part.
type Entry struct {
	ID, Description string
	// Expires is zero for a token that never expires.
	Expires time.Time
	// Groups are the groups of the token's bearer, Group first.
	Groups []string

	hash           [sha256.Size]byte
	authentication bool
	fault          error
}

// User returns the user name of the token's bearer.
func (e Entry) User() string { return userPrefix + e.ID }

// Expired reports whether the token has expired. A token whose expiration cannot be parsed has expired.
func (e Entry) Expired(now time.Time) bool { return !e.Expires.IsZero() && !now.Before(e.Expires) }

// Usable returns nil if the token authenticates its bearer now, else the reason why not.
func (e Entry) Usable(now time.Time) error {
	switch {
	case e.Expired(now):
		return errors.New("it has expired")
	case !e.authentication:
		return fmt.Errorf("it is not marked %s=true", keyAuthentication)
	}
	return e.fault
}

// FromSecret returns the entry of a token's Secret, or ErrNotBootstrap for another Secret. If the Secret has a fault, Usable
// returns it.
func FromSecret(s *corev1.Secret) (Entry, error) {
	id, ok := strings.CutPrefix(s.Name, SecretPrefix)
	if s.Namespace != Namespace || s.Type != corev1.SecretTypeBootstrapToken || !ok || !IsID(id) {
		return Entry{}, ErrNotBootstrap
	}
	e := Entry{
		ID: id, Description: string(s.Data[keyDescription]),
		hash: sha256.Sum256(s.Data[keySecret]), authentication: string(s.Data[keyAuthentication]) == "true",
	}
	var expiration, groups error
	e.Expires, expiration = expires(string(s.Data[keyExpiration]))
	e.Groups, groups = groupsOf(string(s.Data[keyGroups]))
	e.fault = cmp.Or(mismatch(s, id), expiration, groups)
	return e, nil
}

func mismatch(s *corev1.Secret, id string) error {
	if string(s.Data[keyID]) != id {
		return fmt.Errorf("%s does not match the secret's name", keyID)
	}
	return nil
}

// longAgo is the expiration of a token whose expiration cannot be parsed.
var longAgo = time.Unix(0, 0)

func expires(text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return longAgo, fmt.Errorf("%s is not a time as in RFC 3339", keyExpiration)
	}
	return at, nil
}

func groupsOf(list string) ([]string, error) {
	groups := []string{Group}
	if list == "" {
		return groups, nil
	}
	for group := range strings.SplitSeq(list, ",") {
		if !extraGroup().MatchString(group) {
			return groups, fmt.Errorf("%s: bootstrap group %q is invalid (must match %s)", keyGroups, group, extraGroup())
		}
		groups = append(groups, group)
	}
	slices.Sort(groups)
	return slices.Compact(groups), nil
}

// CheckGroup returns an error if no token may add the group.
func CheckGroup(group string) error {
	if !extraGroup().MatchString(group) {
		return fmt.Errorf("bootstrap group %q is invalid (must match %s)", group, extraGroup())
	}
	return nil
}

// known are the keys of a token's Secret that have a meaning.
var known = []string{keyID, keySecret, keyExpiration, keyAuthentication, keySigning, keyGroups, keyDescription}

// Faults returns, for a Secret of type bootstrap.kubernetes.io/token, the reasons why its token is not accepted, and the values
// that have no effect. The texts do not quote the values.
func Faults(s *corev1.Secret, now time.Time) []string {
	if s.Type != corev1.SecretTypeBootstrapToken {
		return nil
	}
	var faults []string
	fault := func(bad bool, format string, args ...any) {
		if bad {
			faults = append(faults, fmt.Sprintf(format, args...))
		}
	}
	id := string(s.Data[keyID])
	fault(s.Namespace != Namespace, "metadata.namespace: only secrets in %s are bootstrap tokens", Namespace)
	fault(!IsID(id), "data[%s]: must be six characters of a-z0-9", keyID)
	fault(IsID(id) && s.Name != SecretPrefix+id, "metadata.name: must be %sID, with the ID of data[%s]", SecretPrefix, keyID)
	secret := string(s.Data[keySecret])
	fault(len(secret) != secretLength || !allowed(secret), "data[%s]: must be sixteen characters of a-z0-9", keySecret)
	expires, err := expires(string(s.Data[keyExpiration]))
	fault(err != nil, "data[%s]: must be a time as in RFC 3339; the token is treated as expired", keyExpiration)
	fault(err == nil && Entry{Expires: expires}.Expired(now), "data[%s]: is past; the secret will be removed", keyExpiration)
	fault(string(s.Data[keyAuthentication]) != "true", "data[%s]: is not \"true\", so the token is not accepted", keyAuthentication)
	fault(string(s.Data[keySigning]) == "true", "data[%s]: has no effect, since this server signs no cluster-info", keySigning)
	_, err = groupsOf(string(s.Data[keyGroups]))
	fault(err != nil, "data[%s]: each group must match %s, or the token is not accepted", keyGroups, extraGroup())
	for _, key := range slices.Sorted(maps.Keys(s.Data)) {
		fault(!slices.Contains(known, key), "data[%s]: has no meaning in a bootstrap token", key)
	}
	return faults
}

// Spec describes a new token.
type Spec struct {
	Description string
	// Expires is when the token expires; zero means never.
	Expires time.Time
	// ExtraGroups are added to Group.
	ExtraGroups []string
}

// NewSecret returns the Secret of token t.
func NewSecret(t Token, spec Spec) *corev1.Secret {
	data := map[string][]byte{
		keyID: []byte(t.id), keySecret: []byte(t.secret), keyAuthentication: []byte("true"),
	}
	if !spec.Expires.IsZero() {
		data[keyExpiration] = []byte(spec.Expires.UTC().Format(time.RFC3339))
	}
	if spec.Description != "" {
		data[keyDescription] = []byte(spec.Description)
	}
	if len(spec.ExtraGroups) > 0 {
		data[keyGroups] = []byte(strings.Join(spec.ExtraGroups, ","))
	}
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: Namespace, Name: SecretPrefix + t.id},
		Type:       corev1.SecretTypeBootstrapToken,
		Data:       data,
	}
}
