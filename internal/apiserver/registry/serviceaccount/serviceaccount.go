// Package serviceaccount validates and prints service accounts, and serves their subresource token.
//
// It does not know how a token is signed or verified, nor which accounts a new namespace has.
package serviceaccount

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"lanyard.dev/internal/apiserver/registry"
)

// Strategy returns how service accounts are created and updated.
func Strategy() registry.Strategy[*corev1.ServiceAccount] {
	return registry.Strategy[*corev1.ServiceAccount]{
		OnCreate: func(_ context.Context, obj *corev1.ServiceAccount) { keepNamesOnly(obj) },
		OnUpdate: func(_ context.Context, obj, _ *corev1.ServiceAccount) { keepNamesOnly(obj) },
		Check:    Validate, CheckUpdate: ValidateUpdate, Warn: warnings,
	}
}

// warnings returns Kubernetes' warning about a deprecated annotation.
func warnings(_ context.Context, obj *corev1.ServiceAccount) []string {
	if _, ok := obj.Annotations[enforceMountable]; !ok {
		return nil
	}
	return []string{"metadata.annotations[" + enforceMountable + "]: deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets"}
}

// enforceMountable is the annotation that allows pods of the account to mount only the secrets that it lists.
const enforceMountable = "kubernetes.io/enforce-mountable-secrets"

// keepNamesOnly removes all but the name from references to secrets. The secrets are always in the namespace of the
// account.
func keepNamesOnly(obj *corev1.ServiceAccount) {
	for i, ref := range obj.Secrets {
		obj.Secrets[i] = corev1.ObjectReference{Name: ref.Name}
	}
}

// Columns are the columns of kubectl get serviceaccounts. Kubernetes 1.37 does not print the number of secrets either,
// because that list is no longer filled.
var Columns = []metav1.TableColumnDefinition{
	{Name: "Name", Type: "string", Format: "name", Description: "Name of the service account."},
	{Name: "Age", Type: "string", Description: "Time since the service account was created."},
}

// Row returns a cell for each of Columns, with the age at the time now.
func Row(account *corev1.ServiceAccount, now time.Time) []any {
	return []any{account.Name, registry.Age(account.CreationTimestamp.Time, now)}
}

// Validate returns the faults of a new account. As in Kubernetes, only the metadata is checked: the secrets need not exist.
func Validate(account *corev1.ServiceAccount) field.ErrorList {
	return validation.ValidateObjectMeta(&account.ObjectMeta, true, validation.ValidateServiceAccountName, field.NewPath("metadata"))
}

// ValidateUpdate returns the faults of updated and of its difference from old.
func ValidateUpdate(updated, old *corev1.ServiceAccount) field.ErrorList {
	errs := validation.ValidateObjectMetaUpdate(&updated.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))
	return append(errs, Validate(updated)...)
}
