// Package configmap validates and prints config maps.
//
// It does not know what any key of a config map means.
package configmap

import (
	"bytes"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"lanyard.dev/internal/apiserver/registry"
)

// Columns are the columns of kubectl get configmaps.
var Columns = []metav1.TableColumnDefinition{
	{Name: "Name", Type: "string", Format: "name", Description: "Name of the config map."},
	{Name: "Data", Type: "string", Description: "Number of keys, textual and binary together."},
	{Name: "Age", Type: "string", Description: "Time since the config map was created."},
}

// Row returns a cell for each of Columns, with the age at the time now.
func Row(cm *corev1.ConfigMap, now time.Time) []any {
	return []any{cm.Name, int64(len(cm.Data) + len(cm.BinaryData)), registry.Age(cm.CreationTimestamp.Time, now)}
}

const immutable = "field is immutable when `immutable` is set"

// Validate returns the faults of a new config map. The limit of its size applies to values, not to keys.
func Validate(cm *corev1.ConfigMap) field.ErrorList {
	errs := validation.ValidateObjectMeta(&cm.ObjectMeta, true, validation.NameIsDNSSubdomain, field.NewPath("metadata"))
	total := 0
	for key, value := range cm.Data {
		path := field.NewPath("data").Key(key)
		errs = append(errs, validateKey(key, path)...)
		if _, both := cm.BinaryData[key]; both {
			errs = append(errs, field.Invalid(path, key, "duplicate of key present in binaryData"))
		}
		total += len(value)
	}
	for key, value := range cm.BinaryData {
		errs = append(errs, validateKey(key, field.NewPath("binaryData").Key(key))...)
		total += len(value)
	}
	if total > corev1.MaxSecretSize {
		// The empty path, printed as [], means the whole object: the sizes of both maps are added.
		errs = append(errs, field.TooLong(field.NewPath(""), "", corev1.MaxSecretSize))
	}
	return errs
}

func validateKey(key string, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for _, msg := range utilvalidation.IsConfigMapKey(key) {
		errs = append(errs, field.Invalid(path, key, msg))
	}
	return errs
}

// ValidateUpdate returns the faults of updated and of its difference from old.
func ValidateUpdate(updated, old *corev1.ConfigMap) field.ErrorList {
	errs := validation.ValidateObjectMetaUpdate(&updated.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))
	if isSet(old.Immutable) {
		errs = append(errs, validateUnchanged(updated, old)...)
	}
	return append(errs, Validate(updated)...)
}

func isSet(b *bool) bool { return b != nil && *b }

func validateUnchanged(updated, old *corev1.ConfigMap) field.ErrorList {
	var errs field.ErrorList
	if !isSet(updated.Immutable) {
		errs = append(errs, field.Forbidden(field.NewPath("immutable"), immutable))
	}
	if !maps.Equal(updated.Data, old.Data) {
		errs = append(errs, field.Forbidden(field.NewPath("data"), immutable))
	}
	if !maps.EqualFunc(updated.BinaryData, old.BinaryData, bytes.Equal) {
		errs = append(errs, field.Forbidden(field.NewPath("binaryData"), immutable))
	}
	return errs
}
