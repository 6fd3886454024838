//go:build linux

package volume

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"lanyard.dev/internal/node/objects"
	"lanyard.dev/internal/tokenvolume"
	"lanyard.dev/lanyardtest"
)

// TestWithARealAuthority mounts the volume that admission adds to a pod, waits until its token is renewed, takes the token
// over with a new Volumes, and deletes the pod.
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
	}
	v := New(config)
	v.OnRenew(func(_ *corev1.Pod, volumes []string) { renewed <- volumes[0] })
	end := run(t, v)
	dir := setUp(t, v, pod)[name]
	token := filepath.Join(dir, "token")
	first := content(t, token)
	if who := review(t, authority, first); !who.Authenticated || who.User.Username != "system:serviceaccount:"+namespace+":dashboard-sa" {
		t.Errorf("the token identifies %+v", who)
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

// TestAnAccountIsMadeAgain deletes and creates the account of a running pod, while the volumes use the permissions of a node.
func TestAnAccountIsMadeAgain(t *testing.T) {
	asRoot(t)
	authority := lanyardtest.Start(t)
	admin, namespace := authority.Client(), authority.Namespace(t)
	authority.CreateServiceAccount(t, namespace, "dashboard-sa")
	pod, err := admin.CoreV1().Pods(namespace).Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "dashboard"},
		Spec: corev1.PodSpec{
			ServiceAccountName: "dashboard-sa", NodeName: "node-1", Containers: []corev1.Container{{Name: "c", Image: "i"}},
			Volumes: []corev1.Volume{volumeOf("vault", corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
				{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", Audience: "vault"}},
			}}})},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	asNode := authority.Config()
	asNode.Impersonate = rest.ImpersonationConfig{UserName: "system:node:node-1", Groups: []string{"system:nodes", "system:authenticated"}}
	client, err := kubernetes.NewForConfig(asNode)
	if err != nil {
		t.Fatal(err)
	}
	store := objects.New(t.Context(), client.CoreV1())
	reasons, renewed := make(chan string, 10), make(chan string, 10)
	v := New(Config{
		Root: filepath.Join(t.TempDir(), "pods"), Objects: store,
		Request: tokenvolume.RequestBy(client.CoreV1()), Review: tokenvolume.ReviewBy(client.AuthenticationV1()),
		Refused: func(_ *corev1.Pod, why string) { reasons <- why },
		Failed:  func(_ *corev1.Pod, err error) { t.Logf("failed: %v", err) },
	})
	v.OnRenew(func(_ *corev1.Pod, volumes []string) {
		for _, volume := range volumes {
			renewed <- volume
		}
	})
	run(t, v)
	paths := setUp(t, v, pod)
	files := map[string]string{} // the first tokens, by file
	for _, dir := range paths {
		file := filepath.Join(dir, "token")
		files[file] = content(t, file)
	}
	awaitAccount := func() { // until the watch has begun
		for range 1000 {
			if store.Account(namespace, "dashboard-sa") != "" {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Fatal("the account was not seen")
	}
	awaitAccount()
	if err := admin.CoreV1().ServiceAccounts(namespace).Delete(t.Context(), "dashboard-sa", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	authority.CreateServiceAccount(t, namespace, "dashboard-sa")
	made := time.Now()
	deadline := time.After(30 * time.Second)
	for range files {
		select {
		case <-renewed:
		case <-deadline:
			t.Fatal("not every token was replaced")
		}
	}
	t.Logf("replaced within %v", time.Since(made))
	for file, first := range files {
		audiences := []string{"vault"}
		if !strings.Contains(file, "vault") {
			audiences = nil
		}
		if content(t, file) == first || !reviewFor(t, authority, content(t, file), audiences).Authenticated || reviewFor(t, authority, first, audiences).Authenticated {
			t.Errorf("%s holds no new token that is accepted in place of the old one", file)
		}
	}
	for range files {
		// A review may come between the deletion and the creation.
		if why := <-reasons; why != "its service account was deleted and created again" && why != "the authority refuses it" {
			t.Errorf("refused because %s", why)
		}
	}
}

func review(t *testing.T, authority *lanyardtest.Authority, token string) authenticationv1.TokenReviewStatus {
	t.Helper()
	return reviewFor(t, authority, token, nil)
}

func reviewFor(t *testing.T, authority *lanyardtest.Authority, token string, audiences []string) authenticationv1.TokenReviewStatus {
	t.Helper()
	asked := &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token, Audiences: audiences}}
	answer, err := authority.Client().AuthenticationV1().TokenReviews().Create(context.Background(), asked, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return answer.Status
}
