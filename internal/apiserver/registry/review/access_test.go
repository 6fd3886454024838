package review_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"

	"lanyard.dev/internal/apiserver/registry/review"
)

// policy allows one action on one resource and one path, denies "never", and cannot decide about "unsure". The reason of
// its decision contains all attributes, so that the test sees which ones a review passes on.
type policy struct{ authorizer.AuthorizerFunc }

func newPolicy() policy {
	return policy{func(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
		who := a.GetUser()
		selectors := strings.Join([]string{
			who.GetName(), who.GetUID(), strings.Join(who.GetGroups(), "+"), strings.Join(who.GetExtra()["k"], "+"), a.GetVerb(), a.GetPath(),
			a.GetNamespace(), a.GetAPIGroup(), a.GetAPIVersion(), a.GetResource(), a.GetSubresource(), a.GetName(),
		}, "|")
		switch a.GetVerb() {
		case "get":
			return authorizer.DecisionAllow, selectors, nil
		case "never":
			return authorizer.DecisionDeny, selectors, nil
		case "unsure":
			return authorizer.DecisionNoOpinion, "", errors.New("storage watch has not progressed in time")
		}
		return authorizer.DecisionNoOpinion, "", nil
	}}
}

func resource(verb string) *authorizationv1.ResourceAttributes {
	return &authorizationv1.ResourceAttributes{
		Namespace: "ns", Verb: verb, Group: "apps", Version: "v1", Resource: "things", Subresource: "log", Name: "one",
	}
}

func path(verb string) *authorizationv1.NonResourceAttributes {
	return &authorizationv1.NonResourceAttributes{Verb: verb, Path: "/healthz"}
}

var someone = authorizationv1.SubjectAccessReviewSpec{
	User: "robot", UID: "u", Groups: []string{"g", "h"}, Extra: map[string]authorizationv1.ExtraValue{"k": {"v"}},
}

func of(change func(*authorizationv1.SubjectAccessReviewSpec)) authorizationv1.SubjectAccessReviewSpec {
	spec := *someone.DeepCopy()
	change(&spec)
	return spec
}

func answer(t *testing.T, storage rest.Creater, obj runtime.Object) (runtime.Object, error) {
	t.Helper()
	ctx := request.WithUser(request.WithNamespace(t.Context(), "ns"), &user.DefaultInfo{Name: "caller", Groups: []string{"cg"}})
	return storage.Create(ctx, obj, nil, &metav1.CreateOptions{})
}

func TestAccessAnswers(t *testing.T) {
	t.Parallel()
	az := newPolicy()
	type status = authorizationv1.SubjectAccessReviewStatus
	subject := func(change func(*authorizationv1.SubjectAccessReviewSpec)) runtime.Object {
		return &authorizationv1.SubjectAccessReview{Spec: of(change), Status: status{Allowed: true, Reason: "forged"}}
	}
	local := func(change func(*authorizationv1.SubjectAccessReviewSpec)) runtime.Object {
		return &authorizationv1.LocalSubjectAccessReview{ObjectMeta: metav1.ObjectMeta{Namespace: "ns"}, Spec: of(change)}
	}
	for _, test := range []struct {
		name    string
		storage rest.Creater
		ask     runtime.Object
		want    status
	}{
		{"resource", review.NewSubject(az), subject(func(s *authorizationv1.SubjectAccessReviewSpec) { s.ResourceAttributes = resource("get") }),
			status{Allowed: true, Reason: "robot|u|g+h|v|get||ns|apps|v1|things|log|one"}},
		{"any version", review.NewSubject(az), subject(func(s *authorizationv1.SubjectAccessReviewSpec) {
			s.ResourceAttributes = resource("get")
			s.ResourceAttributes.Version = ""
		}), status{Allowed: true, Reason: "robot|u|g+h|v|get||ns|apps|*|things|log|one"}},
		{"path", review.NewSubject(az), subject(func(s *authorizationv1.SubjectAccessReviewSpec) { s.NonResourceAttributes = path("get") }),
			status{Allowed: true, Reason: "robot|u|g+h|v|get|/healthz||||||"}},
		{"groups only", review.NewSubject(az), subject(func(s *authorizationv1.SubjectAccessReviewSpec) {
			s.User, s.ResourceAttributes = "", resource("get")
		}), status{Allowed: true, Reason: "|u|g+h|v|get||ns|apps|v1|things|log|one"}},
		{"no", review.NewSubject(az), subject(func(s *authorizationv1.SubjectAccessReviewSpec) { s.ResourceAttributes = resource("list") }), status{}},
		{"never", review.NewSubject(az), subject(func(s *authorizationv1.SubjectAccessReviewSpec) { s.ResourceAttributes = resource("never") }),
			status{Denied: true, Reason: "robot|u|g+h|v|never||ns|apps|v1|things|log|one"}},
		{"unsure", review.NewSubject(az), subject(func(s *authorizationv1.SubjectAccessReviewSpec) { s.ResourceAttributes = resource("unsure") }),
			status{EvaluationError: "storage watch has not progressed in time"}},
		{"local", review.NewLocal(az), local(func(s *authorizationv1.SubjectAccessReviewSpec) { s.ResourceAttributes = resource("get") }),
			status{Allowed: true, Reason: "robot|u|g+h|v|get||ns|apps|v1|things|log|one"}},
		{"local, namespace from the path", review.NewLocal(az),
			&authorizationv1.LocalSubjectAccessReview{Spec: of(func(s *authorizationv1.SubjectAccessReviewSpec) { s.ResourceAttributes = resource("list") })}, status{}},
		{"self", review.NewSelf(az), &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: resource("get")}},
			status{Allowed: true, Reason: "caller||cg||get||ns|apps|v1|things|log|one"}},
		{"self, path", review.NewSelf(az), &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{NonResourceAttributes: path("get")}},
			status{Allowed: true, Reason: "caller||cg||get|/healthz||||||"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			out, err := answer(t, test.storage, test.ask)
			if err != nil {
				t.Fatal(err)
			}
			if got := statusOf(out); got != test.want {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
}

func statusOf(obj runtime.Object) authorizationv1.SubjectAccessReviewStatus {
	switch r := obj.(type) {
	case *authorizationv1.SubjectAccessReview:
		return r.Status
	case *authorizationv1.LocalSubjectAccessReview:
		return r.Status
	case *authorizationv1.SelfSubjectAccessReview:
		return r.Status
	}
	return authorizationv1.SubjectAccessReviewStatus{}
}

func TestAccessInvalid(t *testing.T) {
	t.Parallel()
	az := newPolicy()
	subject := func(change func(*authorizationv1.SubjectAccessReviewSpec)) runtime.Object {
		return &authorizationv1.SubjectAccessReview{Spec: of(change)}
	}
	local := func(namespace string, change func(*authorizationv1.SubjectAccessReviewSpec)) runtime.Object {
		return &authorizationv1.LocalSubjectAccessReview{ObjectMeta: metav1.ObjectMeta{Namespace: namespace}, Spec: of(change)}
	}
	for _, test := range []struct {
		name    string
		storage rest.Creater
		ask     runtime.Object
		want    string
	}{
		{"neither resource nor path", review.NewSubject(az), subject(func(*authorizationv1.SubjectAccessReviewSpec) {}),
			"spec.resourceAttributes: Invalid value: null: exactly one of nonResourceAttributes or resourceAttributes must be specified"},
		{"resource and path", review.NewSubject(az), subject(func(s *authorizationv1.SubjectAccessReviewSpec) {
			s.ResourceAttributes, s.NonResourceAttributes = resource("get"), path("get")
		}), "cannot be specified in combination with resourceAttributes"},
		{"no user", review.NewSubject(az), subject(func(s *authorizationv1.SubjectAccessReviewSpec) {
			s.User, s.Groups, s.ResourceAttributes = "", nil, resource("get")
		}), `spec.user: Invalid value: "": at least one of user or group must be specified`},
		{"metadata", review.NewSubject(az), &authorizationv1.SubjectAccessReview{ObjectMeta: metav1.ObjectMeta{Name: "x"},
			Spec: of(func(s *authorizationv1.SubjectAccessReviewSpec) { s.ResourceAttributes = resource("get") })}, "metadata: Invalid value"},
		{"self, neither resource nor path", review.NewSelf(az), &authorizationv1.SelfSubjectAccessReview{}, "exactly one of"},
		{"local, path", review.NewLocal(az), local("ns", func(s *authorizationv1.SubjectAccessReviewSpec) { s.NonResourceAttributes = path("get") }),
			"disallowed on this kind of request"},
		{"local, another namespace", review.NewLocal(az), local("other", func(s *authorizationv1.SubjectAccessReviewSpec) { s.ResourceAttributes = resource("get") }),
			`spec.resourceAttributes.namespace: Invalid value: "ns": must match metadata.namespace`},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			_, err := answer(t, test.storage, test.ask)
			if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

func TestAccessBadRequests(t *testing.T) {
	t.Parallel()
	storage := review.NewSelf(newPolicy())
	ask := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: resource("get")}}
	if _, err := storage.Create(t.Context(), ask, nil, &metav1.CreateOptions{}); !apierrors.IsBadRequest(err) {
		t.Errorf("no user on the request: %v", err)
	}
	if _, err := answer(t, storage, &corev1.Pod{}); !apierrors.IsBadRequest(err) {
		t.Errorf("another kind: %v", err)
	}
	ctx := request.WithUser(t.Context(), &user.DefaultInfo{Name: "caller"})
	refuse := func(context.Context, runtime.Object) error { return errors.New("admission says no") }
	if _, err := storage.Create(ctx, ask, refuse, &metav1.CreateOptions{}); err == nil || err.Error() != "admission says no" || ask.Status.Allowed {
		t.Errorf("refused by admission: %v, %+v", err, ask.Status)
	}
}

// TestSelectors checks that the selectors of a review mean the same as the selectors of a list request.
func TestSelectors(t *testing.T) {
	t.Parallel()
	// The authorizer's reason is the selectors of the request.
	az := authorizer.AuthorizerFunc(func(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
		fields, _ := a.GetFieldSelector()
		labels, _ := a.GetLabelSelector()
		var selectors []string
		for _, r := range fields {
			selectors = append(selectors, fmt.Sprint(r.Field, " ", r.Operator, " ", r.Value))
		}
		for _, r := range labels {
			selectors = append(selectors, r.String())
		}
		return authorizer.DecisionAllow, strings.Join(selectors, "; "), nil
	})
	type field = authorizationv1.FieldSelectorAttributes
	type label = authorizationv1.LabelSelectorAttributes
	fields := func(all ...metav1.FieldSelectorRequirement) *field { return &field{Requirements: all} }
	labels := func(all ...metav1.LabelSelectorRequirement) *label { return &label{Requirements: all} }
	one := metav1.FieldSelectorRequirement{Key: "spec.nodeName", Operator: metav1.FieldSelectorOpIn, Values: []string{"n"}}
	const ignored = "spec.resourceAttributes.%s partially ignored due to parse error"
	for name, test := range map[string]struct {
		field                *field
		label                *label
		selectors, evaluates string
		invalid              string
	}{
		"none":                   {},
		"a field, as in a query": {field: &field{RawSelector: "spec.nodeName=n,metadata.name!=m"}, selectors: "metadata.name != m; spec.nodeName = n"},
		"a field":                {field: fields(one), selectors: "spec.nodeName = n"},
		"not a field":            {field: fields(metav1.FieldSelectorRequirement{Key: "a", Operator: metav1.FieldSelectorOpNotIn, Values: []string{"b"}}), selectors: "a != b"},
		"two values":             {field: fields(one, metav1.FieldSelectorRequirement{Key: "a", Operator: metav1.FieldSelectorOpIn, Values: []string{"b", "c"}}), selectors: "spec.nodeName = n", evaluates: fmt.Sprintf(ignored, "fieldSelector")},
		"a field that exists":    {field: fields(metav1.FieldSelectorRequirement{Key: "a", Operator: metav1.FieldSelectorOpExists}), evaluates: fmt.Sprintf(ignored, "fieldSelector")},
		"an unknown operator":    {field: fields(one, metav1.FieldSelectorRequirement{Key: "a", Operator: "Like", Values: []string{"b"}}), selectors: "spec.nodeName = n", evaluates: "not a valid field selector operator"},
		"a garbled query":        {field: &field{RawSelector: "spec.nodeName"}, evaluates: fmt.Sprintf(ignored, "fieldSelector")},
		"labels, as in a query":  {label: &label{RawSelector: "a in (b,c),!d"}, selectors: "a in (b,c); !d"},
		"labels": {label: labels(metav1.LabelSelectorRequirement{Key: "a", Operator: metav1.LabelSelectorOpExists}, metav1.LabelSelectorRequirement{Key: "b", Operator: metav1.LabelSelectorOpIn, Values: []string{"c"}}),
			selectors: "a; b in (c)"},
		"a malformed label":    {label: labels(metav1.LabelSelectorRequirement{Key: "a b", Operator: metav1.LabelSelectorOpExists}), evaluates: fmt.Sprintf(ignored, "labelSelector")},
		"garbled labels":       {label: &label{RawSelector: "a in"}, evaluates: fmt.Sprintf(ignored, "labelSelector")},
		"both forms":           {field: &field{RawSelector: "a=b", Requirements: fields(one).Requirements}, invalid: "spec.resourceAttributes.fieldSelector.rawSelector"},
		"neither form":         {label: &label{}, invalid: "spec.resourceAttributes.labelSelector.requirements"},
		"no key":               {field: fields(metav1.FieldSelectorRequirement{Operator: metav1.FieldSelectorOpExists}), invalid: "fieldSelector.requirements[0].key"},
		"no values":            {label: labels(metav1.LabelSelectorRequirement{Key: "a", Operator: metav1.LabelSelectorOpNotIn}), invalid: "labelSelector.requirements[0].values"},
		"values of what is":    {field: fields(metav1.FieldSelectorRequirement{Key: "a", Operator: metav1.FieldSelectorOpExists, Values: []string{"b"}}), invalid: "fieldSelector.requirements[0].values"},
		"both, of both kinds":  {field: fields(one), label: &label{RawSelector: "a=b"}, selectors: "spec.nodeName = n; a=b"},
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
			if got.Reason != test.selectors || (got.EvaluationError == "") != (test.evaluates == "") || !strings.Contains(got.EvaluationError, test.evaluates) {
				t.Errorf("selectors %q, %q; want %q, %q", got.Reason, got.EvaluationError, test.selectors, test.evaluates)
			}
		})
	}
}
