package process

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/kubernetes/fake"
)

func TestBaseName(t *testing.T) {
	t.Parallel()
	for command, want := range map[string]string{
		"/usr/bin/Python3.11": "python3-11", "./dashboard": "dashboard", "/": "process", "--": "process", "a_b": "a-b", "日本": "process",
		"/bin/[": "process", strings.Repeat("x", 100): strings.Repeat("x", maxBase),
		strings.Repeat("x", maxBase-1) + "-y": strings.Repeat("x", maxBase-1),
	} {
		got := baseName(command)
		if got != want || len(validation.IsDNS1123Label(got+"-abcde")) > 0 {
			t.Errorf("%q: %q, want %q", command, got, want)
		}
	}
}

// TestGone distinguishes answers of the API server from answers of a proxy.
func TestGone(t *testing.T) {
	t.Parallel()
	pods := schema.GroupResource{Resource: "pods"}
	for name, test := range map[string]struct {
		err  error
		gone bool
	}{
		"no such pod":    {apierrors.NewNotFound(pods, "a"), true},
		"no such server": {apierrors.NewGenericServerResponse(http.StatusNotFound, "PATCH", pods, "a", "404 page not found", 0, true), false},
		"unavailable":    {apierrors.NewServiceUnavailable("down"), false},
	} {
		if got := isGone(test.err); got != test.gone {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestDeletePodAgain expects a second attempt after status 401: the next connection may present a newer certificate.
func TestDeletePodAgain(t *testing.T) {
	t.Parallel()
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p", UID: "1"}}
	for _, refusals := range []int{1, 2} {
		client, requests := fake.NewClientset(pod), 0
		do := func(ctx context.Context, _ time.Duration, request func(context.Context) error) error {
			if requests++; requests <= refusals {
				return apierrors.NewUnauthorized("expired")
			}
			return request(ctx)
		}
		if err := deletePod(client.CoreV1().Pods("ns"), pod, do); (err != nil) != (refusals > 1) || requests != 2 {
			t.Errorf("refused %d times: got %v after %d requests", refusals, err, requests)
		}
	}
}
