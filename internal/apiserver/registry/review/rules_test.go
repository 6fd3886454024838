package review_test

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/request"

	"lanyard.dev/internal/apiserver/registry/review"
)

// resolver returns the rules of "robot" in "ns", and an error in "stale".
type resolver struct{}

func (resolver) RulesFor(_ context.Context, who user.Info, namespace string) ([]authorizer.ResourceRuleInfo, []authorizer.NonResourceRuleInfo, bool, error) {
	if namespace == "stale" {
		return nil, nil, true, errors.New("storage watch has not progressed in time")
	}
	if who.GetName() != "robot" || namespace != "ns" {
		return nil, nil, false, nil
	}
	return []authorizer.ResourceRuleInfo{&authorizer.DefaultResourceRuleInfo{
			Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"pods"}, ResourceNames: []string{"p"}}},
		[]authorizer.NonResourceRuleInfo{&authorizer.DefaultNonResourceRuleInfo{Verbs: []string{"get"}, NonResourceURLs: []string{"/healthz"}}}, false, nil
}

func TestRulesReview(t *testing.T) {
	t.Parallel()
	none := authorizationv1.SubjectRulesReviewStatus{ResourceRules: []authorizationv1.ResourceRule{}, NonResourceRules: []authorizationv1.NonResourceRule{}}
	stale := none
	stale.Incomplete, stale.EvaluationError = true, "storage watch has not progressed in time"
	for _, test := range []struct {
		user, namespace string
		want            authorizationv1.SubjectRulesReviewStatus
	}{
		{"robot", "ns", authorizationv1.SubjectRulesReviewStatus{
			ResourceRules:    []authorizationv1.ResourceRule{{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"pods"}, ResourceNames: []string{"p"}}},
			NonResourceRules: []authorizationv1.NonResourceRule{{Verbs: []string{"get"}, NonResourceURLs: []string{"/healthz"}}},
		}},
		{"robot", "other", none}, {"someone", "ns", none}, {"robot", "stale", stale},
	} {
		t.Run(test.user+" in "+test.namespace, func(t *testing.T) {
			t.Parallel()
			ctx := request.WithUser(t.Context(), &user.DefaultInfo{Name: test.user})
			ask := &authorizationv1.SelfSubjectRulesReview{Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: test.namespace}}
			ask.Status.ResourceRules = []authorizationv1.ResourceRule{{Verbs: []string{"forged"}}}
			out, err := review.NewRules(resolver{}).Create(ctx, ask, nil, &metav1.CreateOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, out.(*authorizationv1.SelfSubjectRulesReview).Status); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestRulesBadRequests(t *testing.T) {
	t.Parallel()
	storage := review.NewRules(resolver{})
	known := request.WithUser(t.Context(), &user.DefaultInfo{Name: "robot"})
	ask := &authorizationv1.SelfSubjectRulesReview{Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: "ns"}}
	for _, test := range []struct {
		ctx  context.Context
		ask  runtime.Object
		want string
	}{
		{t.Context(), ask, "no user present on request"},
		{known, &authorizationv1.SelfSubjectRulesReview{}, "no namespace on request"},
		{known, &corev1.Pod{}, "not a SelfSubjectRulesReview: *v1.Pod"},
	} {
		if _, err := storage.Create(test.ctx, test.ask, nil, &metav1.CreateOptions{}); !apierrors.IsBadRequest(err) || err.Error() != test.want {
			t.Errorf("got %v, want %q", err, test.want)
		}
	}
	refuse := func(context.Context, runtime.Object) error { return errors.New("admission says no") }
	if _, err := storage.Create(known, ask, refuse, &metav1.CreateOptions{}); err == nil || err.Error() != "admission says no" {
		t.Errorf("refused by admission: %v", err)
	}
}
