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

// TestGone tells the API server's word from a proxy's.
func TestGone(t *testing.T) {
	t.Parallel()
	pods := schema.GroupResource{Resource: "pods"}
	for name, test := range map[string]struct {
		err  error
		gone bool
	}{
		"no such pod":    {apierrors.NewNotFound(pods, "a"), true},
		"no such server": {apierrors.NewGenericServerResponse(http.StatusNotFound, "PATCH", pods, "a", "404 page not found", 0, true), false},
		"away":           {apierrors.NewServiceUnavailable("away"), false},
	} {
		if got := isGone(test.err); got != test.gone {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestDeletePodAgain tries once more where the caller is not known: the next connection may show a newer certificate.
func TestDeletePodAgain(t *testing.T) {
	t.Parallel()
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p", UID: "1"}}
	for _, refusals := range []int{1, 2} {
		client, asked := fake.NewClientset(pod), 0
		ask := func(ctx context.Context, _ time.Duration, request func(context.Context) error) error {
			if asked++; asked <= refusals {
				return apierrors.NewUnauthorized("who?")
			}
			return request(ctx)
		}
		if err := deletePod(client.CoreV1().Pods("ns"), pod, ask); (err != nil) != (refusals > 1) || asked != 2 {
			t.Errorf("refused %d times: %v after %d requests", refusals, err, asked)
		}
	}
}
