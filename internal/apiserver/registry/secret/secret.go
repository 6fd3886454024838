// Package secret serves secrets: their defaults, what is refused, their table, their storage.
//
// It does not know how secrets are encrypted at rest, and no fault it reports quotes a secret's value.
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

// Strategy returns how secrets are written.
func Strategy() registry.Strategy[*corev1.Secret] {
	return registry.Strategy[*corev1.Secret]{OnUpdate: keepType, Check: Validate, CheckUpdate: ValidateUpdate, Warn: warnings}
}

// keepType lets an update leave the type out.
func keepType(_ context.Context, obj, old *corev1.Secret) {
	if obj.Type == "" {
		obj.Type = old.Type
	}
}

// warnings tells of a token that never expires that it will not come, and of a bootstrap token that nobody can use why.
func warnings(_ context.Context, obj *corev1.Secret) []string {
	if obj.Type == corev1.SecretTypeBootstrapToken {
		return bootstraptoken.Faults(obj, time.Now())
	}
	if obj.Type != corev1.SecretTypeServiceAccountToken || len(obj.Data[corev1.ServiceAccountTokenKey]) > 0 {
		return nil
	}
	return []string{"type " + string(corev1.SecretTypeServiceAccountToken) + ": no token is filled in, since tokens that never expire are not issued; use 'kubectl create token' instead"}
}

// SetDefaults gives s the type Opaque where it has none, and moves stringData into data, where it wins over a key of
// the same name. It is idempotent. It must run on every decoded secret before Validate does: stringData is written
// only, so what is left in it is neither checked nor to be stored.
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

// Fields returns what a field selector may ask of s.
func Fields(s *corev1.Secret) fields.Set {
	return fields.Set{"metadata.name": s.Name, "metadata.namespace": s.Namespace, "type": string(s.Type)}
}

// Columns are those of kubectl get secrets.
var Columns = []metav1.TableColumnDefinition{
	{Name: "Name", Type: "string", Format: "name", Description: "Name of the secret."},
	{Name: "Type", Type: "string", Description: "What the secret is for, which says what keys it has."},
	{Name: "Data", Type: "string", Description: "Number of keys; their values are not shown."},
	{Name: "Age", Type: "string", Description: "Time since the secret was created."},
}

// Row returns a cell for each of Columns, the age as of now.
func Row(s *corev1.Secret, now time.Time) []any {
	return []any{s.Name, string(s.Type), int64(len(s.Data)), registry.Age(s.CreationTimestamp.Time, now)}
}

const (
	immutable = "field is immutable when `immutable` is set"
	redacted  = "<secret contents redacted>"
)

// Validate returns every fault of a new secret.
func Validate(s *corev1.Secret) field.ErrorList {
	errs := validation.ValidateObjectMeta(&s.ObjectMeta, true, validation.NameIsDNSSubdomain, field.NewPath("metadata"))
	errs = append(errs, validateData(s.Data, field.NewPath("data"))...)
	return append(errs, validateType(s)...)
}

// ValidateUpdate returns every fault of updated and of its change from old.
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

// validateData counts values only, not keys, towards the limit.
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

// validateType demands the keys that readers of each well-known type rely on. Other types, bootstrap tokens among
// them, may hold anything.
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

// jsonFault says where err lies, and not what lies there: the decoder's own words quote a byte of the secret.
func jsonFault(err error) string {
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		return fmt.Sprintf("must be a JSON object: syntax error at byte %d", syntax.Offset)
	}
	return "must be a JSON object"
}
