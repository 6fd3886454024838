// Package serviceaccount serves service accounts: what is refused, their table, their storage.
//
// It does not know how a token is signed or verified, nor which accounts a namespace starts with.
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

// Strategy returns how service accounts are written.
func Strategy() registry.Strategy[*corev1.ServiceAccount] {
	return registry.Strategy[*corev1.ServiceAccount]{
		OnCreate: func(_ context.Context, obj *corev1.ServiceAccount) { keepNamesOnly(obj) },
		OnUpdate: func(_ context.Context, obj, _ *corev1.ServiceAccount) { keepNamesOnly(obj) },
		Check:    Validate, CheckUpdate: ValidateUpdate, Warn: warnings,
	}
}

// warnings is Kubernetes' own advice.
func warnings(_ context.Context, obj *corev1.ServiceAccount) []string {
	if _, ok := obj.Annotations[enforceMountable]; !ok {
		return nil
	}
	return []string{"metadata.annotations[" + enforceMountable + "]: deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets"}
}

// enforceMountable limits the pods of an account to the secrets that it lists.
const enforceMountable = "kubernetes.io/enforce-mountable-secrets"

// keepNamesOnly cuts references to secrets down to the name: they are always of the account's own namespace.
func keepNamesOnly(obj *corev1.ServiceAccount) {
	for i, ref := range obj.Secrets {
		obj.Secrets[i] = corev1.ObjectReference{Name: ref.Name}
	}
}

// Columns are those of kubectl get serviceaccounts. There is no count of secrets: nothing fills that list in any
// more, and Kubernetes 1.37 does not print it either.
var Columns = []metav1.TableColumnDefinition{
	{Name: "Name", Type: "string", Format: "name", Description: "Name of the service account."},
	{Name: "Age", Type: "string", Description: "Time since the service account was created."},
}

// Row returns a cell for each of Columns, the age as of now.
func Row(account *corev1.ServiceAccount, now time.Time) []any {
	return []any{account.Name, registry.Age(account.CreationTimestamp.Time, now)}
}

// Validate returns every fault of a new account. As in Kubernetes only the metadata can be at fault: the secrets that
// an account names need not exist.
func Validate(account *corev1.ServiceAccount) field.ErrorList {
	return validation.ValidateObjectMeta(&account.ObjectMeta, true, validation.ValidateServiceAccountName, field.NewPath("metadata"))
}

// ValidateUpdate returns every fault of updated and of its change from old.
func ValidateUpdate(updated, old *corev1.ServiceAccount) field.ErrorList {
	errs := validation.ValidateObjectMetaUpdate(&updated.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))
	return append(errs, Validate(updated)...)
}
