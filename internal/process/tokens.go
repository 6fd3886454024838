package process

import (
	"context"
	"fmt"
	"io/fs"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"golang.org/x/sync/errgroup"

	"lanyard.dev/internal/tokenvolume"
)

const (
	secretMode = 0o600
	publicMode = 0o644
)

// content is what the volume is to show, and for how long that is good.
type content struct {
	files map[string]tokenvolume.File
	// issued and expires are those of the token that dies first, by this machine's clock.
	issued, expires time.Time
	hasCA           bool
}

// fetch requests all that the volume shows. pod exists.
func (c *Config) fetch(ctx context.Context, pod *corev1.Pod) (*content, error) {
	wanted := append([]Audience{{Path: tokenFile}}, c.Audiences...)
	answers := make([]*authenticationv1.TokenRequest, len(wanted))
	issued := c.Clock.Now()
	group, ctx := errgroup.WithContext(ctx)
	for i, audience := range wanted {
		group.Go(func() (err error) {
			answers[i], err = c.request(ctx, pod, audience.Name)
			return err
		})
	}
	var ca []byte
	group.Go(func() error {
		ca = c.Server.authorities(ctx, c.Client, pod.Namespace)
		return nil
	})
	if err := group.Wait(); err != nil {
		return nil, err
	}
	got := &content{files: map[string]tokenvolume.File{}, issued: issued, hasCA: len(ca) > 0}
	got.files[namespaceFile] = c.file([]byte(pod.Namespace), publicMode)
	if got.hasCA {
		got.files[caFile] = c.file(ca, publicMode)
	}
	for i, answer := range answers {
		got.files[wanted[i].Path] = c.file([]byte(answer.Status.Token), secretMode)
		if expires := issued.Add(lifetime(answer, issued)); got.expires.IsZero() || expires.Before(got.expires) {
			got.expires = expires
		}
	}
	return got, nil
}

func (c *Config) file(data []byte, mode fs.FileMode) tokenvolume.File {
	file := tokenvolume.File{Data: data, Mode: mode, UID: unset, GID: unset}
	if c.User.Other {
		file.UID, file.GID = c.User.UID, c.User.GID
	}
	return file
}

// request asks for a token that dies with the pod.
func (c *Config) request(ctx context.Context, pod *corev1.Pod, audience string) (*authenticationv1.TokenRequest, error) {
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: ptr.To(int64(c.TTL / time.Second)),
		BoundObjectRef:    &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID},
	}}
	if audience != "" {
		request.Spec.Audiences = []string{audience}
	}
	account := pod.Spec.ServiceAccountName
	answer, err := c.Client.CoreV1().ServiceAccounts(pod.Namespace).CreateToken(ctx, account, request, metav1.CreateOptions{})
	switch {
	case err != nil:
		return nil, fmt.Errorf("request a token of %s/%s: %w", pod.Namespace, account, err)
	case answer.Status.Token == "":
		return nil, fmt.Errorf("request a token of %s/%s: the answer holds none", pod.Namespace, account)
	}
	return answer, nil
}

// lifetime is how long a token lives from now. The authority's clock may show another time than this machine's, so what
// it grants counts for more than when it says that ends.
func lifetime(answer *authenticationv1.TokenRequest, now time.Time) time.Duration {
	until := answer.Status.ExpirationTimestamp.Sub(now)
	if granted := answer.Spec.ExpirationSeconds; granted != nil {
		return time.Duration(*granted) * time.Second
	}
	return until
}
