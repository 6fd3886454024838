package review_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"

	"lanyard.dev/internal/apiserver/registry/review"
)

// tokens accepts "good", a token for the audiences api and vault, and "careless", which it accepts for any audience.
type tokens struct{}

func (tokens) AuthenticateToken(ctx context.Context, text string) (*authenticator.Response, bool, error) {
	requested, _ := authenticator.AudiencesFrom(ctx)
	who := &user.DefaultInfo{Name: "robot", UID: "u", Groups: []string{"g"}, Extra: map[string][]string{"k": {"v"}}}
	switch text {
	case "good":
		both := authenticator.Audiences{"api", "vault"}.Intersect(requested)
		if len(both) == 0 {
			return nil, false, errors.New("token audiences are invalid for the target audiences")
		}
		return &authenticator.Response{User: who, Audiences: both}, true, nil
	case "careless":
		return &authenticator.Response{User: who, Audiences: []string{"somewhere else"}}, true, nil
	case "expired":
		return nil, false, errors.New("service account token has expired")
	case "userless":
		return &authenticator.Response{Audiences: requested}, true, nil
	}
	return nil, false, nil
}

func tokenReview(text string, audiences ...string) *authenticationv1.TokenReview {
	return &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: text, Audiences: audiences}}
}

func TestTokenReview(t *testing.T) {
	t.Parallel()
	who := authenticationv1.UserInfo{Username: "robot", UID: "u", Groups: []string{"g"}, Extra: map[string]authenticationv1.ExtraValue{"k": {"v"}}}
	refused := func(why string) authenticationv1.TokenReviewStatus {
		return authenticationv1.TokenReviewStatus{Error: why}
	}
	held := func(audiences ...string) authenticationv1.TokenReviewStatus {
		return authenticationv1.TokenReviewStatus{Authenticated: true, User: who, Audiences: audiences}
	}
	const audience = "token audiences are invalid for the target audiences"
	for _, test := range []struct {
		name string
		ask  *authenticationv1.TokenReview
		want authenticationv1.TokenReviewStatus
	}{
		{"no audience means the server's", tokenReview("good"), held("api")},
		{"another audience", tokenReview("good", "vault"), held("vault")},
		{"some of them", tokenReview("good", "nobody", "vault", "api"), held("api", "vault")},
		{"none of them", tokenReview("good", "nobody"), refused(audience)},
		{"an audience that was not requested", tokenReview("careless"), refused(audience)},
		{"expired", tokenReview("expired"), refused("service account token has expired")},
		{"a token of no issuer", tokenReview("junk"), refused("invalid bearer token")},
		{"no user", tokenReview("userless"), refused("invalid bearer token")},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			// The status that a client sends is ignored.
			test.ask.Status = authenticationv1.TokenReviewStatus{Authenticated: true, Error: "forged", User: authenticationv1.UserInfo{Username: "forged"}}
			out, err := review.NewToken(tokens{}, []string{"api"}).Create(t.Context(), test.ask, nil, &metav1.CreateOptions{})
			if err != nil {
				t.Fatal(err)
			}
			got := out.(*authenticationv1.TokenReview).Status
			slices.Sort(got.Audiences)
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestTokenBadRequests(t *testing.T) {
	t.Parallel()
	placed := tokenReview("good")
	placed.Namespace = "ns"
	refuse := func(context.Context, runtime.Object) error { return errors.New("admission says no") }
	storage := review.NewToken(tokens{}, []string{"api"})
	for _, test := range []struct {
		name string
		ask  runtime.Object
		want string
	}{
		{"no token", tokenReview(""), "token is required for TokenReview in authentication"},
		{"in a namespace", placed, "namespace is not allowed on this type: ns"},
		{"another kind", &corev1.Pod{}, "not a TokenReview: *v1.Pod"},
	} {
		if _, err := storage.Create(t.Context(), test.ask, nil, &metav1.CreateOptions{}); !apierrors.IsBadRequest(err) || err.Error() != test.want {
			t.Errorf("%s: %v, want %q", test.name, err, test.want)
		}
	}
	if _, err := storage.Create(t.Context(), tokenReview("good"), refuse, &metav1.CreateOptions{}); err == nil || err.Error() != "admission says no" {
		t.Errorf("refused by admission: %v", err)
	}
}

func TestSelfReview(t *testing.T) {
	t.Parallel()
	ctx := request.WithUser(t.Context(), &user.DefaultInfo{Name: "robot", UID: "u", Groups: []string{"g"}, Extra: map[string][]string{"k": {"v"}}})
	forged := &authenticationv1.SelfSubjectReview{}
	forged.Status.UserInfo.Username = "forged"
	out, err := (&review.SelfREST{}).Create(ctx, forged, nil, &metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	got := out.(*authenticationv1.SelfSubjectReview)
	want := authenticationv1.UserInfo{Username: "robot", UID: "u", Groups: []string{"g"}, Extra: map[string]authenticationv1.ExtraValue{"k": {"v"}}}
	if diff := cmp.Diff(want, got.Status.UserInfo); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got.CreationTimestamp.IsZero() {
		t.Error("no creationTimestamp")
	}
}

func TestSelfBadRequests(t *testing.T) {
	t.Parallel()
	storage := &review.SelfREST{}
	known := request.WithUser(t.Context(), &user.DefaultInfo{Name: "robot"})
	review := &authenticationv1.SelfSubjectReview{}
	if _, err := storage.Create(t.Context(), review, nil, &metav1.CreateOptions{}); !apierrors.IsBadRequest(err) {
		t.Errorf("no user: %v", err)
	}
	if _, err := storage.Create(known, &corev1.Pod{}, nil, &metav1.CreateOptions{}); !apierrors.IsBadRequest(err) {
		t.Errorf("another kind: %v", err)
	}
	refuse := func(context.Context, runtime.Object) error { return errors.New("admission says no") }
	if _, err := storage.Create(known, review, refuse, &metav1.CreateOptions{}); err == nil || err.Error() != "admission says no" {
		t.Errorf("refused by admission: %v", err)
	}
}
