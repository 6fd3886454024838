// Package lease validates and prints leases.
//
// It does not know who competes for a lease, nor whether one has expired.
package lease

import (
	"context"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"lanyard.dev/internal/apiserver/registry"
)

// Warnings warns a client that leaves the choice of the holder to the server: this server makes none.
func Warnings(_ context.Context, l *coordinationv1.Lease) []string {
	if l.Spec.Strategy == nil || *l.Spec.Strategy == "" {
		return nil
	}
	return []string{"spec.strategy: this server chooses no holder (coordinated leader election is disabled, as by default in Kubernetes)"}
}

// Columns are the columns of kubectl get leases.
var Columns = []metav1.TableColumnDefinition{
	{Name: "Name", Type: "string", Format: "name", Description: "Name of the lease."},
	{Name: "Holder", Type: "string", Description: "Identity of the holder, if there is one."},
	{Name: "Age", Type: "string", Description: "Time since the lease was created."},
}

// Row returns a cell for each of Columns, with the age at the time now.
func Row(l *coordinationv1.Lease, now time.Time) []any {
	return []any{l.Name, ptr.Deref(l.Spec.HolderIdentity, ""), registry.Age(l.CreationTimestamp.Time, now)}
}

// Validate returns the faults of a new lease.
func Validate(l *coordinationv1.Lease) field.ErrorList {
	errs := validation.ValidateObjectMeta(&l.ObjectMeta, true, validation.NameIsDNSSubdomain, field.NewPath("metadata"))
	return append(errs, validateSpec(&l.Spec, field.NewPath("spec"))...)
}

// ValidateUpdate returns the faults of updated and of its difference from old.
func ValidateUpdate(updated, old *coordinationv1.Lease) field.ErrorList {
	errs := validation.ValidateObjectMetaUpdate(&updated.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))
	return append(errs, validateSpec(&updated.Spec, field.NewPath("spec"))...)
}

func validateSpec(spec *coordinationv1.LeaseSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if d := spec.LeaseDurationSeconds; d != nil && *d <= 0 {
		errs = append(errs, field.Invalid(path.Child("leaseDurationSeconds"), *d, "must be greater than 0"))
	}
	if n := spec.LeaseTransitions; n != nil && *n < 0 {
		errs = append(errs, field.Invalid(path.Child("leaseTransitions"), *n, "must be greater than or equal to 0"))
	}
	if spec.Strategy != nil {
		errs = append(errs, validateStrategy(*spec.Strategy, path.Child("strategy"))...)
	}
	coordinated := spec.Strategy != nil && *spec.Strategy != ""
	if h := spec.PreferredHolder; h != nil && *h != "" && !coordinated {
		errs = append(errs, field.Forbidden(path.Child("preferredHolder"), "may only be specified if `strategy` is defined"))
	}
	return errs
}

// validateStrategy accepts the strategy that Kubernetes defines, and any name that is qualified with a domain.
func validateStrategy(s coordinationv1.CoordinatedLeaseStrategy, path *field.Path) field.ErrorList {
	if !strings.Contains(string(s), "/") {
		if s == coordinationv1.OldestEmulationVersion {
			return nil
		}
		return field.ErrorList{field.NotSupported(path, s, []coordinationv1.CoordinatedLeaseStrategy{coordinationv1.OldestEmulationVersion})}
	}
	var errs field.ErrorList
	for _, msg := range utilvalidation.IsQualifiedName(string(s)) {
		errs = append(errs, field.Invalid(path, s, msg))
	}
	return errs
}
