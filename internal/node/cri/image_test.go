//go:build linux

package cri

import (
	"context"
	"encoding/base64"
	"errors"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"lanyard.dev/internal/node/nodetest"
)

const password = "correct horse/battery"

func pullSecret(host, username, password string) *corev1.Secret {
	auth := base64.StdEncoding.EncodeToString([]byte(username + ":" + password))
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "pull"}, Type: corev1.SecretTypeDockerConfigJson,
		Data: map[string][]byte{corev1.DockerConfigJsonKey: []byte(`{"auths":{"` + host + `":{"auth":"` + auth + `"}}}`)},
	}
}

func withImage(image string, policy corev1.PullPolicy) *corev1.Pod {
	pod := podOf("log", "ran")
	pod.Spec.Containers[0].Image, pod.Spec.Containers[0].ImagePullPolicy = image, policy
	return pod
}

func ensure(ctx context.Context, r *Runtime, pod *corev1.Pod, secrets ...*corev1.Secret) (string, error) {
	return r.EnsureImage(ctx, pod, &pod.Spec.Containers[0], secrets)
}

// requireImageError requires an *ImageError and returns its message.
func requireImageError(t *testing.T, err error, reason string) string {
	t.Helper()
	refused := &ImageError{}
	if !errors.As(err, &refused) || refused.Reason != reason {
		t.Fatalf("%v, want reason %s", err, reason)
	}
	return refused.Message
}

func TestPullPolicy(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	for name, test := range map[string]struct {
		image  string
		policy corev1.PullPolicy
		reason string
		want   string
	}{
		"present":          {"lanyard.test/tool:1", corev1.PullIfNotPresent, "", ""},
		"present, never":   {"lanyard.test/tool:1", corev1.PullNever, "", ""},
		"present, default": {"lanyard.test/tool:1", "", "", ""},
		"present, always":  {"lanyard.test/tool:1", corev1.PullAlways, ErrImagePull, `failed to pull image "lanyard.test/tool:1": `},
		"absent, never":    {"lanyard.test/none:1", corev1.PullNever, ErrImageNeverPull, `Container image "lanyard.test/none:1" is not present with pull policy of Never`},
		"absent":           {"lanyard.test/none:1", "", ErrImagePull, "lanyard.test"},
		"name": {
			"r.test/UPPER", "", InvalidImageName,
			`Failed to apply default image tag "r.test/UPPER": couldn't parse image name "r.test/UPPER": invalid reference format: repository name (UPPER) must be lowercase`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pod := withImage(test.image, test.policy)
			id, err := ensure(t.Context(), r, pod)
			if test.reason == "" {
				if err != nil || !strings.HasPrefix(id, "sha256:") {
					t.Errorf("image %q, %v", id, err)
				}
				return
			}
			if message := requireImageError(t, err, test.reason); !strings.Contains(message, test.want) {
				t.Errorf("%q, want %q in it", message, test.want)
			}
		})
	}
	for _, test := range []struct {
		image  string
		policy corev1.PullPolicy
		want   ImageState
	}{
		{"lanyard.test/tool:1", "", ImageUsable}, {"lanyard.test/none:1", "", ImageNeedsPull}, {"lanyard.test/tool", "", ImageNeedsPull},
		{"lanyard.test/tool:1", corev1.PullAlways, ImageNeedsPull},
		{"lanyard.test/tool:1", corev1.PullNever, ImageUsable}, {"lanyard.test/none:1", corev1.PullNever, ImageMissing},
	} {
		if got, err := r.ImageState(t.Context(), &corev1.Container{Image: test.image, ImagePullPolicy: test.policy}); err != nil || got != test.want {
			t.Errorf("%s with policy %q: state %v, %v, want %v", test.image, test.policy, got, err, test.want)
		}
	}
}

func TestPull(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	registry := nodetest.NewRegistry(t, "somebody", password, nodetest.Tool())
	image := registry.Host + "/tool:1"
	pod := withImage(image, corev1.PullAlways)
	for name, secrets := range map[string][]*corev1.Secret{
		"none": nil, "elsewhere": {pullSecret("registry.test", "somebody", password)}, "wrong": {pullSecret(registry.Host, "somebody", "wrong-password-9")},
	} {
		_, err := ensure(t.Context(), r, pod, secrets...)
		if message := requireImageError(t, err, ErrImagePull); strings.Contains(message, "wrong-password") {
			t.Errorf("%s: %s", name, message)
		}
	}
	if registry.Resolved() != 0 {
		t.Fatalf("the registry resolved the image %d times", registry.Resolved())
	}
	// The valid credentials are found among invalid ones.
	ran := start(t, r, podWith(ensure(t.Context(), r, pod, pullSecret(registry.Host, "somebody", "old"), pullSecret(registry.Host, "somebody", password)))(t))
	ran.await(ran.id, Exited)
	if log := ran.logs(ran.id, &corev1.PodLogOptions{}); log != "ran\n" {
		t.Errorf("the output of the pulled image is %q", log)
	}
	before := registry.Resolved()
	if _, err := ensure(t.Context(), r, withImage(image, corev1.PullIfNotPresent)); err != nil || registry.Resolved() != before {
		t.Errorf("an image that is present was requested %d times, %v", registry.Resolved()-before, err)
	}
}

// podWith returns a pod that runs an image by its ID, as CreateContainer does.
func podWith(imageID string, err error) func(t *testing.T) *corev1.Pod {
	return func(t *testing.T) *corev1.Pod {
		t.Helper()
		if err != nil || !strings.HasPrefix(imageID, "sha256:") {
			t.Fatalf("image %q, %v", imageID, err)
		}
		return withImage("lanyard.test/tool:1", corev1.PullIfNotPresent)
	}
}

// TestPullTogether requests one image many times while the registry does not answer.
func TestPullTogether(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	registry := nodetest.NewRegistry(t, "", "", nodetest.Tool())
	release := registry.Hold()
	defer release()
	var group sync.WaitGroup
	errs := make([]error, 5)
	for i := range errs {
		group.Go(func() { _, errs[i] = ensure(t.Context(), r, withImage(registry.Host+"/tool:1", corev1.PullAlways)) })
	}
	eventually(t, "all wait for one pull", func(context.Context) bool {
		r.pulls.mu.Lock()
		defer r.pulls.mu.Unlock()
		for _, one := range r.pulls.running {
			return one.waiters == len(errs)
		}
		return false
	})
	release()
	group.Wait()
	if err := errors.Join(errs...); err != nil || registry.Resolved() != 1 {
		t.Errorf("the image was resolved %d times, %v", registry.Resolved(), err)
	}
}

func TestPulls(t *testing.T) {
	t.Parallel()
	var all pulls
	begun, ended := make(chan struct{}), make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() {
		_, err := all.do(ctx, "a", func(ctx context.Context) (string, error) {
			close(begun)
			<-ctx.Done()
			ended <- ctx.Err()
			return "", ctx.Err()
		})
		result <- err
	}()
	<-begun
	if id, err := all.do(t.Context(), "b", func(context.Context) (string, error) { return "other", nil }); id != "other" || err != nil {
		t.Errorf("another image: %q, %v", id, err)
	}
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Errorf("who gave up got %v", err)
	}
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("a pull without waiting callers ended with %v", err)
	}
	if id, err := all.do(t.Context(), "a", func(context.Context) (string, error) { return "anew", nil }); id != "anew" || err != nil {
		t.Errorf("once more: %q, %v", id, err)
	}
}

func TestParseImage(t *testing.T) {
	t.Parallel()
	digest := "@sha256:" + strings.Repeat("a", 64)
	for text, want := range map[string]string{
		"busybox": "docker.io/library/busybox:latest", "a/b:1": "docker.io/a/b:1", "localhost/b": "localhost/b:latest", "r.test:5000/b:1": "r.test:5000/b:1",
		"r.test/b" + digest: "r.test/b" + digest, "r.test/b:1" + digest: "r.test/b:1" + digest,
		"": "", "a b": "", "-": "", "A": "", "r.test/b:": "", strings.Repeat("a", 64): "", "a@sha256:short": "",
	} {
		got, err := parseImage(text)
		if want == "" {
			if err == nil {
				t.Errorf("%q is %s", text, got)
			}
			continue
		}
		if err != nil || got.String() != want {
			t.Errorf("%q is %v, %v; want %s", text, got, err, want)
		}
	}
}
