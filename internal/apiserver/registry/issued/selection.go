package issued

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apiserver/pkg/endpoints/request"

	identity "lanyard.dev/apis/identity/v1alpha1"
	"lanyard.dev/internal/apiserver/outage"
)

// Check returns nil if the authority accepts a credential that has a record, ErrRefused if it does not, and another error if this
// cannot be decided now.
type Check[R any] func(context.Context, *R) error

// ErrRefused means that the authority refuses a credential that has a record.
var ErrRefused = errors.New("the credential is not accepted")

// selectable returns the names of the fields that a field selector may name, with that of the phase.
func selectable[V any](fields map[string]V) []string {
	return append(slices.Sorted(maps.Keys(fields)), phaseField)
}

// filter selects records.
type filter[R any] struct {
	query query
	// tests are all conditions. The query only makes the search shorter.
	tests []func(*R) bool
	// phases are the tests of the phase.
	phases []func(identity.Phase) bool
}

// newFilter returns the filter of a request.
func (k *kind[R]) newFilter(ctx context.Context, options *internalversion.ListOptions) (filter[R], error) {
	var f filter[R]
	if namespace := request.NamespaceValue(ctx); namespace != "" {
		f.query.tokens.Namespace = namespace
		f.tests = append(f.tests, func(record *R) bool { return k.namespace(record) == namespace })
	}
	if options == nil {
		return f, nil
	}
	if options.FieldSelector != nil {
		for _, r := range options.FieldSelector.Requirements() {
			if err := k.addField(&f, r); err != nil {
				return f, err
			}
		}
	}
	if options.LabelSelector != nil && !options.LabelSelector.Empty() {
		k.addLabels(&f, options.LabelSelector)
	}
	return f, nil
}

// addLabels adds a label selector.
func (k *kind[R]) addLabels(f *filter[R], selector labels.Selector) {
	requirements, _ := selector.Requirements()
	for _, r := range requirements {
		field, values := k.labelFields[r.Key()], r.ValuesUnsorted()
		switch r.Operator() {
		case selection.Equals, selection.DoubleEquals, selection.In:
			if field != "" && len(values) == 1 {
				k.index[field](&f.query, values[0])
			}
		}
	}
	f.tests = append(f.tests, func(record *R) bool { return selector.Matches(k.labels(record)) })
}

// addField adds a requirement of a field selector. For a field with several values, "=" means that one of them is equal, and "!="
// that none is.
func (k *kind[R]) addField(f *filter[R], r fields.Requirement) error {
	equal := r.Operator != selection.NotEquals
	if r.Field == phaseField {
		f.phases = append(f.phases, func(phase identity.Phase) bool { return (string(phase) == r.Value) == equal })
		return nil
	}
	values, ok := k.fields[r.Field]
	if !ok {
		return apierrors.NewBadRequest("field label not supported: " + r.Field)
	}
	if add := k.index[r.Field]; add != nil && equal && r.Value != "" {
		add(&f.query, r.Value)
	}
	f.tests = append(f.tests, func(record *R) bool {
		has := values(record)
		return (slices.Contains(has, r.Value) || len(has) == 0 && r.Value == "") == equal
	})
	return nil
}

// match reports whether the filter selects a record. It ignores the phase.
func (f *filter[R]) match(record *R) bool {
	for _, test := range f.tests {
		if !test(record) {
			return false
		}
	}
	return true
}

// matchPhase reports whether the filter selects a phase.
func (f *filter[R]) matchPhase(phase identity.Phase) bool {
	for _, test := range f.phases {
		if !test(phase) {
			return false
		}
	}
	return true
}

// phase returns the phase of a credential. The error is an outage.Error if the phase cannot be determined now.
func (s *REST[R]) phase(ctx context.Context, record *R) (identity.Phase, error) {
	switch err := s.Check(ctx, record); {
	case err == nil:
		return identity.PhaseActive, nil
	case errors.Is(err, ErrRefused):
		return identity.PhaseInvalid, nil
	default:
		return "", outage.New(err)
	}
}

// versionText returns a revision as the resource version of an object.
func versionText(revision uint64) string { return strconv.FormatUint(revision, 10) }

// parseVersion returns the revision of a resource version. The empty version and "0" mean none.
func parseVersion(text string) (uint64, error) {
	if text == "" {
		return 0, nil
	}
	revision, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, apierrors.NewBadRequest(fmt.Sprintf("invalid resource version %q", text))
	}
	return revision, nil
}
