package review_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"lanyard.dev/internal/apiserver/registry/review"
)

// TestSelectors: a review asks about the objects that its selectors choose, as a list with the same selectors would.
func TestSelectors(t *testing.T) {
	t.Parallel()
	// It answers with the selectors that it was asked about.
	az := authorizer.AuthorizerFunc(func(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
		fields, _ := a.GetFieldSelector()
		labels, _ := a.GetLabelSelector()
		var asked []string
		for _, r := range fields {
			asked = append(asked, fmt.Sprint(r.Field, " ", r.Operator, " ", r.Value))
		}
		for _, r := range labels {
			asked = append(asked, r.String())
		}
		return authorizer.DecisionAllow, strings.Join(asked, "; "), nil
	})
	type field = authorizationv1.FieldSelectorAttributes
	type label = authorizationv1.LabelSelectorAttributes
	fields := func(all ...metav1.FieldSelectorRequirement) *field { return &field{Requirements: all} }
	labels := func(all ...metav1.LabelSelectorRequirement) *label { return &label{Requirements: all} }
	one := metav1.FieldSelectorRequirement{Key: "spec.nodeName", Operator: metav1.FieldSelectorOpIn, Values: []string{"n"}}
	const ignored = "spec.resourceAttributes.%s partially ignored due to parse error"
	for name, test := range map[string]struct {
		field            *field
		label            *label
		asked, evaluates string
		invalid          string
	}{
		"none":                   {},
		"a field, as in a query": {field: &field{RawSelector: "spec.nodeName=n,metadata.name!=m"}, asked: "metadata.name != m; spec.nodeName = n"},
		"a field":                {field: fields(one), asked: "spec.nodeName = n"},
		"not a field":            {field: fields(metav1.FieldSelectorRequirement{Key: "a", Operator: metav1.FieldSelectorOpNotIn, Values: []string{"b"}}), asked: "a != b"},
		"two values":             {field: fields(one, metav1.FieldSelectorRequirement{Key: "a", Operator: metav1.FieldSelectorOpIn, Values: []string{"b", "c"}}), asked: "spec.nodeName = n", evaluates: fmt.Sprintf(ignored, "fieldSelector")},
		"a field that exists":    {field: fields(metav1.FieldSelectorRequirement{Key: "a", Operator: metav1.FieldSelectorOpExists}), evaluates: fmt.Sprintf(ignored, "fieldSelector")},
		"an unknown operator":    {field: fields(one, metav1.FieldSelectorRequirement{Key: "a", Operator: "Like", Values: []string{"b"}}), asked: "spec.nodeName = n", evaluates: "not a valid field selector operator"},
		"a garbled query":        {field: &field{RawSelector: "spec.nodeName"}, evaluates: fmt.Sprintf(ignored, "fieldSelector")},
		"labels, as in a query":  {label: &label{RawSelector: "a in (b,c),!d"}, asked: "a in (b,c); !d"},
		"labels": {label: labels(metav1.LabelSelectorRequirement{Key: "a", Operator: metav1.LabelSelectorOpExists}, metav1.LabelSelectorRequirement{Key: "b", Operator: metav1.LabelSelectorOpIn, Values: []string{"c"}}),
			asked: "a; b in (c)"},
		"a malformed label":    {label: labels(metav1.LabelSelectorRequirement{Key: "a b", Operator: metav1.LabelSelectorOpExists}), evaluates: fmt.Sprintf(ignored, "labelSelector")},
		"garbled labels":       {label: &label{RawSelector: "a in"}, evaluates: fmt.Sprintf(ignored, "labelSelector")},
		"both forms":           {field: &field{RawSelector: "a=b", Requirements: fields(one).Requirements}, invalid: "spec.resourceAttributes.fieldSelector.rawSelector"},
		"neither form":         {label: &label{}, invalid: "spec.resourceAttributes.labelSelector.requirements"},
		"no key":               {field: fields(metav1.FieldSelectorRequirement{Operator: metav1.FieldSelectorOpExists}), invalid: "fieldSelector.requirements[0].key"},
		"no values":            {label: labels(metav1.LabelSelectorRequirement{Key: "a", Operator: metav1.LabelSelectorOpNotIn}), invalid: "labelSelector.requirements[0].values"},
		"values of what is":    {field: fields(metav1.FieldSelectorRequirement{Key: "a", Operator: metav1.FieldSelectorOpExists, Values: []string{"b"}}), invalid: "fieldSelector.requirements[0].values"},
		"both, of both kinds":  {field: fields(one), label: &label{RawSelector: "a=b"}, asked: "spec.nodeName = n; a=b"},
		"labels none can have": {label: &label{RawSelector: "a=" + strings.Repeat("b", 64)}, evaluates: fmt.Sprintf(ignored, "labelSelector")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			about := resource("list")
			about.FieldSelector, about.LabelSelector = test.field, test.label
			out, err := answer(t, review.NewSelf(az), &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: about}})
			if test.invalid != "" {
				if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), test.invalid) {
					t.Errorf("got %v, want %s to be invalid", err, test.invalid)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got := statusOf(out)
			if got.Reason != test.asked || (got.EvaluationError == "") != (test.evaluates == "") || !strings.Contains(got.EvaluationError, test.evaluates) {
				t.Errorf("asked %q, %q; want %q, %q", got.Reason, got.EvaluationError, test.asked, test.evaluates)
			}
		})
	}
}
