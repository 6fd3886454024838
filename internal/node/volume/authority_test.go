//go:build linux

package volume

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"lanyard.dev/internal/node/objects"
	"lanyard.dev/internal/node/tokenvolume"
	"lanyard.dev/lanyardtest"
)

// TestWithARealAuthority mounts the volume that admission gives a pod, has its token renewed and taken over, and deletes
// the pod.
func TestWithARealAuthority(t *testing.T) {
	asRoot(t)
	authority := lanyardtest.StartWith(t, lanyardtest.Options{MinTokenExpiration: time.Second})
	client, namespace := authority.Client(), authority.Namespace(t)
	authority.CreateServiceAccount(t, namespace, "dashboard-sa")
	pod, err := client.CoreV1().Pods(namespace).Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "dashboard"},
		Spec:       corev1.PodSpec{ServiceAccountName: "dashboard-sa", Containers: []corev1.Container{{Name: "c", Image: "i"}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	name := pod.Spec.Volumes[0].Name
	tokenvolume.TokenSources(&pod.Spec.Volumes[0])[0].ExpirationSeconds = number[int64](4)

	renewed := make(chan string, 10)
	config := Config{
		Root: filepath.Join(t.TempDir(), "pods"), Objects: objects.New(t.Context(), client.CoreV1()), Request: tokenvolume.RequestBy(client.CoreV1()),
		OnRenew: func(_ *corev1.Pod, volumes []string) { renewed <- volumes[0] },
	}
	v := New(config)
	end := run(t, v)
	dir := setUp(t, v, pod)[name]
	token := filepath.Join(dir, "token")
	first := content(t, token)
	if who := review(t, authority, first); !who.Authenticated || who.User.Username != "system:serviceaccount:"+namespace+":dashboard-sa" {
		t.Errorf("the token stands for %+v", who)
	}
	if got := content(t, filepath.Join(dir, "namespace")); got != namespace {
		t.Errorf("namespace is %q", got)
	}
	if content(t, filepath.Join(dir, "ca.crt")) == "" {
		t.Error("ca.crt is empty")
	}
	select {
	case got := <-renewed:
		if second := content(t, token); got != name || second == first || !review(t, authority, second).Authenticated {
			t.Errorf("volume %s was renewed with a token that is old or not accepted", got)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the token was not renewed")
	}
	end()

	latest := content(t, token)
	next := New(config)
	defer next.queue.ShutDown()
	if !next.tokens.Adopt(pod, tokenvolume.TokenSources(&pod.Spec.Volumes[0])[0], latest) {
		t.Error("a real token is not taken over")
	}
	now := int64(0)
	if err := client.CoreV1().Pods(namespace).Delete(t.Context(), pod.Name, metav1.DeleteOptions{GracePeriodSeconds: &now}); err != nil {
		t.Fatal(err)
	}
	if review(t, authority, latest).Authenticated {
		t.Error("the token of a deleted pod is accepted")
	}
}

func review(t *testing.T, authority *lanyardtest.Authority, token string) authenticationv1.TokenReviewStatus {
	t.Helper()
	asked := &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token}}
	answer, err := authority.Client().AuthenticationV1().TokenReviews().Create(context.Background(), asked, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return answer.Status
}
