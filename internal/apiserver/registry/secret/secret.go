// Package secret validates and prints secrets, and sets their defaults.
//
// It does not know how secrets are encrypted at rest. No fault that it returns contains the value of a secret.
package secret

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"lanyard.dev/internal/apiserver/registry"
	"lanyard.dev/internal/bootstraptoken"
	"lanyard.dev/internal/nodeaccess"
)

// Strategy returns how secrets are created and updated.
func Strategy() registry.Strategy[*corev1.Secret] {
	return registry.Strategy[*corev1.Secret]{OnUpdate: keepType, Check: Validate, CheckUpdate: ValidateUpdate, Warn: warnings}
}

// keepType keeps the stored type if an update leaves it out.
func keepType(_ context.Context, obj, old *corev1.Secret) {
	if obj.Type == "" {
		obj.Type = old.Type
	}
}

// warnings returns warnings about a secret that requests a token without expiry, which this server does not issue, and
// about a bootstrap token that cannot be used.
func warnings(_ context.Context, obj *corev1.Secret) []string {
	if obj.Type == corev1.SecretTypeBootstrapToken {
		return bootstraptoken.Faults(obj, time.Now())
	}
	if obj.Type != corev1.SecretTypeServiceAccountToken || len(obj.Data[corev1.ServiceAccountTokenKey]) > 0 {
		return nil
	}
	return []string{"type " + string(corev1.SecretTypeServiceAccountToken) + ": no token is filled in, since tokens that never expire are not issued; use 'kubectl create token' instead"}
}

// SetDefaults sets the type Opaque if there is none, and moves stringData into data, where it replaces the values of the
// same keys. It is idempotent. It must run on each decoded secret before Validate, because stringData is write-only: it is
// neither validated nor stored.
func SetDefaults(s *corev1.Secret) {
	if s.Type == "" {
		s.Type = corev1.SecretTypeOpaque
	}
	if len(s.StringData) > 0 && s.Data == nil {
		s.Data = make(map[string][]byte, len(s.StringData))
	}
	for key, value := range s.StringData {
		s.Data[key] = []byte(value)
	}
	s.StringData = nil
}

// Fields returns the fields that a field selector may name, with the values of s.
func Fields(s *corev1.Secret) fields.Set {
	return fields.Set{"metadata.name": s.Name, "metadata.namespace": s.Namespace, "type": string(s.Type)}
}

// Columns are the columns of kubectl get secrets.
var Columns = []metav1.TableColumnDefinition{
	{Name: "Name", Type: "string", Format: "name", Description: "Name of the secret."},
	{Name: "Type", Type: "string", Description: "Type of the secret, which determines its keys."},
	{Name: "Data", Type: "string", Description: "Number of keys; their values are not shown."},
	{Name: "Age", Type: "string", Description: "Time since the secret was created."},
}

// Row returns a cell for each of Columns, with the age at the time now.
func Row(s *corev1.Secret, now time.Time) []any {
	return []any{s.Name, string(s.Type), int64(len(s.Data)), registry.Age(s.CreationTimestamp.Time, now)}
}

const (
	immutable = "field is immutable when `immutable` is set"
	redacted  = "<secret contents redacted>"
)

// Validate returns the faults of a new secret.
func Validate(s *corev1.Secret) field.ErrorList {
	errs := validation.ValidateObjectMeta(&s.ObjectMeta, true, validation.NameIsDNSSubdomain, field.NewPath("metadata"))
	errs = append(errs, validateData(s.Data, field.NewPath("data"))...)
	return append(errs, validateType(s)...)
}

// ValidateUpdate returns the faults of updated and of its difference from old.
func ValidateUpdate(updated, old *corev1.Secret) field.ErrorList {
	errs := validation.ValidateObjectMetaUpdate(&updated.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))
	errs = append(errs, validation.ValidateImmutableField(updated.Type, old.Type, field.NewPath("type"))...)
	if isSet(old.Immutable) {
		if !isSet(updated.Immutable) {
			errs = append(errs, field.Forbidden(field.NewPath("immutable"), immutable))
		}
		if !maps.EqualFunc(updated.Data, old.Data, bytes.Equal) {
			errs = append(errs, field.Forbidden(field.NewPath("data"), immutable))
		}
	}
	return append(errs, Validate(updated)...)
}

func isSet(b *bool) bool { return b != nil && *b }

// validateData checks the keys and the size. The limit applies to values, not to keys.
func validateData(data map[string][]byte, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	total := 0
	for key, value := range data {
		for _, msg := range utilvalidation.IsConfigMapKey(key) {
			errs = append(errs, field.Invalid(path.Key(key), key, msg))
		}
		total += len(value)
	}
	if total > corev1.MaxSecretSize {
		errs = append(errs, field.TooLong(path, "", corev1.MaxSecretSize))
	}
	return errs
}

// validateType requires the keys that each well-known type must have. Secrets of other types, including bootstrap tokens,
// may contain anything.
func validateType(s *corev1.Secret) field.ErrorList {
	switch s.Type {
	case corev1.SecretTypeServiceAccountToken:
		if s.Annotations[corev1.ServiceAccountNameKey] == "" {
			path := field.NewPath("metadata", "annotations").Key(corev1.ServiceAccountNameKey)
			return field.ErrorList{field.Required(path, "")}
		}
	case nodeaccess.EvictionType:
		if err := nodeaccess.CheckEviction(s); err != nil {
			return field.ErrorList{field.Forbidden(field.NewPath("type"), fmt.Sprintf("a secret of type %s evicts a node: %v", s.Type, err))}
		}
	case corev1.SecretTypeDockercfg:
		return requireJSON(s.Data, corev1.DockerConfigKey)
	case corev1.SecretTypeDockerConfigJson:
		return requireJSON(s.Data, corev1.DockerConfigJsonKey)
	case corev1.SecretTypeBasicAuth:
		return requireEither(s.Data, corev1.BasicAuthUsernameKey, corev1.BasicAuthPasswordKey)
	case corev1.SecretTypeSSHAuth:
		if len(s.Data[corev1.SSHAuthPrivateKey]) == 0 {
			return field.ErrorList{missing(corev1.SSHAuthPrivateKey)}
		}
	case corev1.SecretTypeTLS:
		return requireEach(s.Data, corev1.TLSCertKey, corev1.TLSPrivateKeyKey)
	}
	return nil
}

func missing(key string) *field.Error {
	return field.Required(field.NewPath("data").Key(key), "")
}

func requireEach(data map[string][]byte, keys ...string) field.ErrorList {
	var errs field.ErrorList
	for _, key := range keys {
		if _, ok := data[key]; !ok {
			errs = append(errs, missing(key))
		}
	}
	return errs
}

func requireEither(data map[string][]byte, keys ...string) field.ErrorList {
	errs := requireEach(data, keys...)
	if len(errs) < len(keys) {
		return nil
	}
	return errs
}

func requireJSON(data map[string][]byte, key string) field.ErrorList {
	if errs := requireEach(data, key); len(errs) > 0 {
		return errs
	}
	if err := json.Unmarshal(data[key], &map[string]json.RawMessage{}); err != nil {
		return field.ErrorList{field.Invalid(field.NewPath("data").Key(key), redacted, jsonFault(err))}
	}
	return nil
}

// jsonFault returns the position of a syntax error. The decoder's own text is not used, because it quotes a byte of the
// secret.
func jsonFault(err error) string {
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		return fmt.Sprintf("must be a JSON object: syntax error at byte %d", syntax.Offset)
	}
	return "must be a JSON object"
}
