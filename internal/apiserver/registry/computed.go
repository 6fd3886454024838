package registry

import (
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

// The storage of objects that are made from other data answers in the same way as a Store. These are the parts of its answers.

// CheckPreconditions returns a conflict if an object does not have the UID and the resource version that a deletion requires. p may
// be nil.
func CheckPreconditions(resource schema.GroupResource, name string, uid types.UID, version string, p *metav1.Preconditions) error {
	if p == nil {
		return nil
	}
	if p.UID != nil && *p.UID != uid {
		return apierrors.NewConflict(resource, name, fmt.Errorf("the precondition requires the UID %s, and the object has the UID %s", *p.UID, uid))
	}
	if p.ResourceVersion != nil && *p.ResourceVersion != version {
		return apierrors.NewConflict(resource, name,
			fmt.Errorf("the precondition requires the resource version %s, and the object has %s", *p.ResourceVersion, version))
	}
	return nil
}

// Deleted returns the answer to the deletion of an object.
func Deleted(resource schema.GroupResource, name string, uid types.UID) *metav1.Status {
	return &metav1.Status{Status: metav1.StatusSuccess, Details: &metav1.StatusDetails{
		Name: name, Group: resource.Group, Kind: resource.Resource, UID: uid,
	}}
}

// NewTooOld returns the error of a watch from a resource version whose changes are not remembered. The client then lists again.
func NewTooOld() error {
	return apierrors.NewResourceExpired("too old resource version: list again")
}
