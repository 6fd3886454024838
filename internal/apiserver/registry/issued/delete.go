package issued

import (
	"context"

	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/util/dryrun"

	"lanyard.dev/internal/apiserver/outage"
	"lanyard.dev/internal/apiserver/registry"
	"lanyard.dev/internal/ledger"
)

// Delete implements rest.GracefulDeleter: it revokes a credential. The answer is a Status, as for other kinds.
func (s *REST[R]) Delete(ctx context.Context, name string, validate rest.ValidateObjectFunc, options *metav1.DeleteOptions) (runtime.Object, bool, error) {
	if err := s.settle(ctx, ""); err != nil {
		return nil, false, err
	}
	record, err := s.find(ctx, name)
	if err != nil {
		return nil, false, err
	}
	if err := s.admit(ctx, &record, validate, options); err != nil {
		return nil, false, err
	}
	if err := s.revoke(ctx, options, []ledger.Revocation{s.revocation(&record)}); err != nil {
		return nil, false, err
	}
	return registry.Deleted(s.resource, name, types.UID(s.id(&record))), true, nil
}

// DeleteCollection implements rest.CollectionDeleter: it revokes all credentials that the options select, in one write if they
// are not too many. It returns a list of them.
func (s *REST[R]) DeleteCollection(ctx context.Context, validate rest.ValidateObjectFunc, options *metav1.DeleteOptions,
	which *internalversion.ListOptions,
) (runtime.Object, error) {
	all := internalversion.ListOptions{}
	if which != nil {
		all.LabelSelector, all.FieldSelector = which.LabelSelector, which.FieldSelector
	}
	if err := s.settle(ctx, ""); err != nil {
		return nil, err
	}
	f, err := s.newFilter(ctx, &all)
	if err != nil {
		return nil, err
	}
	var deleted []runtime.Object
	var revocations []ledger.Revocation
	err = s.each(&f, "", 0, func(record *R) (bool, error) {
		phase, err := s.phase(ctx, record)
		if err != nil || !f.matchPhase(phase) {
			return true, err
		}
		deleted, revocations = append(deleted, s.object(record, phase)), append(revocations, s.revocation(record))
		return true, s.admit(ctx, record, validate, options)
	})
	if err != nil {
		return nil, err
	}
	if err := s.revoke(ctx, options, revocations); err != nil {
		return nil, err
	}
	return s.list(deleted), nil
}

// admit checks the preconditions and the admission of a deletion.
func (s *REST[R]) admit(ctx context.Context, record *R, validate rest.ValidateObjectFunc, options *metav1.DeleteOptions) error {
	if options != nil {
		id, version := s.id(record), versionText(*s.revision(record))
		if err := registry.CheckPreconditions(s.resource, id, types.UID(id), version, options.Preconditions); err != nil {
			return err
		}
	}
	if validate == nil {
		return nil
	}
	return validate(ctx, s.object(record, ""))
}

func (s *REST[R]) revoke(ctx context.Context, options *metav1.DeleteOptions, revocations []ledger.Revocation) error {
	if len(revocations) == 0 || options != nil && dryrun.IsDryRun(options.DryRun) {
		return nil
	}
	if err := s.Revoke(ctx, revocations); err != nil {
		return outage.New(err)
	}
	return nil
}
