package serviceaccount

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

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
