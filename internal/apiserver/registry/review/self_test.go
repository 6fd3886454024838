package review_test

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"

	"lanyard.dev/internal/apiserver/registry/review"
)

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
		t.Errorf("nobody: %v", err)
	}
	if _, err := storage.Create(known, &corev1.Pod{}, nil, &metav1.CreateOptions{}); !apierrors.IsBadRequest(err) {
		t.Errorf("another kind: %v", err)
	}
	refuse := func(context.Context, runtime.Object) error { return errors.New("admission says no") }
	if _, err := storage.Create(known, review, refuse, &metav1.CreateOptions{}); err == nil || err.Error() != "admission says no" {
		t.Errorf("refused by admission: %v", err)
	}
}
