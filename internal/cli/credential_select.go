package cli

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/pflag"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/utils/clock"

	"lanyard.dev/internal/account"
	"lanyard.dev/internal/hint"
	"lanyard.dev/internal/pki"
	"lanyard.dev/internal/token"
)

// credentialSelector selects issued credentials by the flags and arguments of a command. Each condition that is given must hold.
type credentialSelector struct {
	namespace     string
	allNamespaces bool

	account, minter, node, bound, key, audience, user string

	unusedFor    time.Duration
	issuedBefore string
	withChildren bool

	clock clock.PassiveClock

	// What parse makes of the flags and arguments.
	fields   map[string]string
	before   time.Time
	ids      []string
	claims   *token.Claims // of a whole token
	inScope  string        // the namespace that the flags name, or ""
	explicit bool          // whether the flags name the namespace or all namespaces
}

func (s *credentialSelector) addTokenFlags(f *pflag.FlagSet) {
	f.StringVarP(&s.namespace, "namespace", "n", "", "namespace of the tokens (default: the namespace of the kubeconfig's context)")
	f.BoolVarP(&s.allNamespaces, "all-namespaces", "A", false, "the tokens of all namespaces")
	f.StringVar(&s.account, "account", "", "service account that the tokens are for, as NAMESPACE/NAME or NAME")
	f.StringVar(&s.bound, "bound", "", "object that the tokens are bound to, as pod/NAME, secret/NAME or node/NAME")
	f.StringVar(&s.node, "node", "", "node that the tokens are bound to, directly or by their pods")
	f.StringVar(&s.key, "key", "", "ID of the key that signed the tokens")
	f.StringVar(&s.audience, "audience", "", "audience of the tokens")
	s.addFlags(f)
}

func (s *credentialSelector) addCertificateFlags(f *pflag.FlagSet) {
	f.StringVar(&s.user, "user", "", "user that the certificates authenticate")
	f.StringVar(&s.node, "node", "", "node that the certificates authenticate")
	s.addFlags(f)
}

func (s *credentialSelector) addFlags(f *pflag.FlagSet) {
	f.StringVar(&s.minter, "minter", "", "user that requested them; a service account as sa:NAMESPACE/NAME")
	f.DurationVar(&s.unusedFor, "unused-for", 0, "only those without a known use for this time")
	f.StringVar(&s.issuedBefore, "issued-before", "", "only those issued before a time (RFC 3339), or longer ago than a duration such as 24h")
	f.BoolVar(&s.withChildren, "with-children", false, "also all that was requested with them, and with that, and so on")
}

// selects reports whether a flag selects by anything but the namespace.
func (s *credentialSelector) selects() bool {
	return len(s.fields) > 0 || len(s.ids) > 0 || s.unusedFor > 0 || s.issuedBefore != ""
}

// parse checks the flags, and makes selectors of them.
func (s *credentialSelector) parse() error {
	s.fields = map[string]string{}
	for field, value := range map[string]string{
		"spec.keyID": s.key, "spec.audiences": s.audience, "spec.username": s.user, "spec.mintedBy.username": userOf(s.minter),
	} {
		if value != "" {
			s.fields[field] = value
		}
	}
	var errs []error
	if s.allNamespaces && s.namespace != "" {
		errs = append(errs, errors.New("--all-namespaces and --namespace exclude each other"))
	}
	s.inScope, s.explicit = s.namespace, s.namespace != "" || s.allNamespaces
	errs = append(errs, s.parseAccount(), s.parseBound(), s.parseTimes())
	return errors.Join(errs...)
}

func (s *credentialSelector) parseAccount() error {
	if s.account == "" {
		return nil
	}
	name, err := account.Parse(s.account)
	if err != nil {
		return fmt.Errorf("--account: %w", err)
	}
	s.fields["spec.serviceAccount.name"] = name.Name
	if name.Namespace == "" {
		return nil
	}
	if s.namespace != "" && s.namespace != name.Namespace {
		return fmt.Errorf("--account %s is not in the namespace %s of --namespace", name, s.namespace)
	}
	s.inScope, s.explicit = name.Namespace, true
	return nil
}

// boundKinds are the kinds of objects that a token can be bound to, by the word that users write.
var boundKinds = map[string]string{"pod": "Pod", "secret": "Secret", "node": "Node"}

func (s *credentialSelector) parseBound() error {
	if s.bound == "" {
		return nil
	}
	word, name, ok := strings.Cut(s.bound, "/")
	kind := boundKinds[strings.ToLower(word)]
	if !ok || kind == "" || name == "" {
		return fmt.Errorf("--bound %q: write pod/NAME, secret/NAME or node/NAME", s.bound)
	}
	s.fields["spec.boundObject.kind"], s.fields["spec.boundObject.name"] = kind, name
	return nil
}

func (s *credentialSelector) parseTimes() error {
	if s.unusedFor < 0 {
		return fmt.Errorf("--unused-for %v: must not be negative", s.unusedFor)
	}
	if s.issuedBefore == "" {
		return nil
	}
	if ago, err := time.ParseDuration(s.issuedBefore); err == nil && ago >= 0 {
		s.before = s.clock.Now().Add(-ago)
		return nil
	}
	var err error
	if s.before, err = time.Parse(time.RFC3339, s.issuedBefore); err != nil {
		return fmt.Errorf("--issued-before %q: write a time such as 2026-03-01T12:00:00Z, or a duration such as 24h", s.issuedBefore)
	}
	return nil
}

// userOf returns the user name for the short form of a service account, and other names unchanged.
func userOf(text string) string {
	if !strings.HasPrefix(text, "sa:") {
		return strings.TrimPrefix(text, "user:")
	}
	name, err := account.Parse(text)
	if err != nil || name.Namespace == "" {
		return text
	}
	return name.User()
}

// addToken adds an argument: the ID of a token, or a whole token. An error does not repeat the argument, which may be a secret.
func (s *credentialSelector) addToken(arg string) error {
	arg = strings.TrimSpace(arg)
	id := strings.TrimPrefix(arg, "JTI=")
	if parsed, err := uuid.Parse(id); err == nil && len(id) == len(parsed.String()) {
		s.ids = append(s.ids, parsed.String())
		return nil
	}
	decoded, err := token.Decode(arg)
	if err != nil {
		return hint.New(errors.New("the argument is neither the ID of a token nor a token"),
			"an ID is a UUID: lanyard token list shows it, and it is the claim jti of the token")
	}
	// The ID is printed, and nothing in the token is verified. Every ID that a Lanyard makes is a UUID.
	if decoded.Claims == nil || uuid.Validate(decoded.Claims.ID) != nil || decoded.Claims.Kubernetes == nil {
		return errors.New("the token has no ID of the form that a Lanyard makes, so none has issued it")
	}
	if s.claims != nil {
		return errors.New("more than one token given")
	}
	s.claims = decoded.Claims
	s.ids = append(s.ids, decoded.Claims.ID)
	return nil
}

// addCertificate adds an argument: the ID of a certificate, or a certificate in PEM.
func (s *credentialSelector) addCertificate(arg string) error {
	arg = strings.TrimSpace(arg)
	digest := strings.ToLower(strings.TrimPrefix(arg, "X509SHA256="))
	if raw, err := hex.DecodeString(digest); err == nil && len(raw) == sha256.Size {
		s.ids = append(s.ids, digest)
		return nil
	}
	for block := range pki.Blocks([]byte(arg)) {
		if block.Type == "CERTIFICATE" {
			sum := sha256.Sum256(block.Bytes)
			s.ids = append(s.ids, hex.EncodeToString(sum[:]))
			return nil
		}
	}
	return hint.New(errors.New("the argument is neither the ID of a certificate nor a certificate in PEM"),
		"an ID is a SHA-256 digest: lanyard certificate list shows it")
}

// matches reports whether a credential meets the conditions that the server does not check.
func (s *credentialSelector) matches(c credential) bool {
	if !s.before.IsZero() && !c.meta().CreationTimestamp.Time.Before(s.before) {
		return false
	}
	if s.unusedFor == 0 {
		return true
	}
	last := c.meta().CreationTimestamp.Time
	if used := c.lastUsed(); used != nil && used.Time.After(last) {
		last = used.Time.Time
	}
	return s.clock.Since(last) >= s.unusedFor
}

// selector returns the field selector for the flags, and the name of an object if one is asked for.
func (s *credentialSelector) selector(name string) fields.Selector {
	var all []fields.Selector
	for _, field := range slices.Sorted(maps.Keys(s.fields)) {
		all = append(all, fields.OneTermEqualSelector(field, s.fields[field]))
	}
	if name != "" {
		all = append(all, fields.OneTermEqualSelector("metadata.name", name))
	}
	return fields.AndSelectors(all...)
}

// findTokens returns the selected tokens. context is the namespace of the kubeconfig.
func (s *credentialSelector) findTokens(ctx context.Context, client *credentialClient, context string) ([]credential, error) {
	if s.node != "" {
		s.fields["spec.node.name"] = s.node
	}
	namespace := s.inScope
	if !s.explicit {
		namespace = context
	}
	names := s.ids
	if len(names) == 0 {
		names = []string{""}
	}
	var all []credential
	for _, name := range names {
		found, err := s.findToken(ctx, client, namespace, name)
		if err != nil {
			return nil, err
		}
		if name != "" && len(found) == 0 {
			return nil, hint.New(fmt.Errorf("there is no record of token %s", name),
				"it has expired, is revoked, is in another namespace, or comes from another server")
		}
		all = append(all, found...)
	}
	if err := s.checkClaims(all); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(c credential) bool { return !s.matches(c) }), nil
}

// findToken returns the tokens that the flags select, with this name unless it is empty. An ID is unique, so a token with an ID is
// looked for in all namespaces, as far as the caller may.
func (s *credentialSelector) findToken(ctx context.Context, client *credentialClient, namespace, name string) ([]credential, error) {
	switch {
	case name != "" && s.claims != nil && s.claims.ID == name && !s.explicit:
		namespace = s.claims.Kubernetes.Namespace
	case name != "" && !s.explicit:
		found, err := client.tokens(ctx, "", s.selector(name))
		if !apierrors.IsForbidden(err) {
			return found, err
		}
	}
	return client.tokens(ctx, namespace, s.selector(name))
}

// checkClaims refuses a whole token whose claims are not those of the record: anybody can write a token with any ID.
func (s *credentialSelector) checkClaims(all []credential) error {
	for _, c := range all {
		claims := s.claims
		if claims == nil || claims.ID != c.token.Name {
			continue
		}
		k, spec := claims.Kubernetes, &c.token.Spec
		if k.Namespace != c.token.Namespace || k.ServiceAccount.Name != spec.ServiceAccount.Name || k.ServiceAccount.UID != string(spec.ServiceAccount.UID) ||
			claims.IssuedAt != c.token.CreationTimestamp.Unix() || claims.Expiry != spec.ExpirationTimestamp.Unix() {
			return hint.New(fmt.Errorf("the server has issued another token with the ID %s, so this one is forged", c.token.Name),
				"to end the token that the server has issued, give its ID")
		}
	}
	return nil
}

// nodeUserPrefix is the prefix of the user name of every node.
const nodeUserPrefix = "system:node:"

// findCertificates returns the selected certificates.
func (s *credentialSelector) findCertificates(ctx context.Context, client *credentialClient) ([]credential, error) {
	if s.node != "" {
		s.fields["spec.username"] = nodeUserPrefix + s.node
	}
	names := s.ids
	if len(names) == 0 {
		names = []string{""}
	}
	var all []credential
	for _, name := range names {
		found, err := client.certificates(ctx, s.selector(name))
		if err != nil {
			return nil, err
		}
		if name != "" && len(found) == 0 {
			return nil, hint.New(fmt.Errorf("there is no record of certificate %s", name), "it has expired, is revoked, or another server signed it")
		}
		all = append(all, found...)
	}
	return slices.DeleteFunc(all, func(c credential) bool { return !s.matches(c) }), nil
}

// manyParents is the number of credentials from which all records are read, instead of those of each one's children.
const manyParents = 20

// descendants returns what was requested with the credentials, with that, and so on, without the credentials themselves.
func descendants(ctx context.Context, client *credentialClient, parents []credential) ([]credential, error) {
	seen := map[string]bool{}
	for _, parent := range parents {
		seen[parent.id()] = true
	}
	var all []credential
	for len(parents) > 0 {
		children, err := childrenOf(ctx, client, parents)
		if err != nil {
			return nil, fmt.Errorf("find what was requested with them: %w", err)
		}
		children = slices.DeleteFunc(children, func(c credential) bool {
			known := seen[c.id()]
			seen[c.id()] = true
			return known
		})
		all, parents = append(all, children...), children
	}
	return all, nil
}

func childrenOf(ctx context.Context, client *credentialClient, parents []credential) ([]credential, error) {
	selectors, ids := []fields.Selector{fields.Everything()}, map[string]bool{}
	for _, parent := range parents {
		ids[parent.id()] = true
	}
	if len(parents) <= manyParents {
		selectors = nil
		for id := range ids {
			selectors = append(selectors, fields.OneTermEqualSelector("spec.mintedBy.credentialID", id))
		}
	}
	var all []credential
	for _, selector := range selectors {
		tokens, err := client.tokens(ctx, "", selector)
		if err != nil {
			return nil, err
		}
		certificates, err := client.certificates(ctx, selector)
		if err != nil {
			return nil, err
		}
		all = append(append(all, tokens...), certificates...)
	}
	return slices.DeleteFunc(all, func(c credential) bool { return !ids[c.minter().CredentialID] }), nil
}
