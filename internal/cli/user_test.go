package cli

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/rest"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/clientcmd"

	"lanyard.dev/internal/hint"
	"lanyard.dev/internal/pki"
)

// signer returns a client of a cluster whose signer changes a request with answer when it is approved. Requests in refused are
// forbidden.
func signer(answer func(*certificatesv1.CertificateSigningRequest), refused ...string) *fake.Clientset {
	client := fake.NewClientset()
	client.PrependReactor("*", "*", func(a clienttesting.Action) (bool, apiruntime.Object, error) {
		for _, r := range refused {
			if verb, resource, _ := strings.Cut(r, " "); a.Matches(verb, resource) {
				return true, nil, apierrors.NewForbidden(a.GetResource().GroupResource(), "", nil)
			}
		}
		return false, nil, nil
	})
	client.PrependReactor("create", "certificatesigningrequests", func(a clienttesting.Action) (bool, apiruntime.Object, error) {
		a.(clienttesting.CreateAction).GetObject().(*certificatesv1.CertificateSigningRequest).Name = "made"
		return false, nil, nil
	})
	client.PrependReactor("update", "certificatesigningrequests/approval", func(a clienttesting.Action) (bool, apiruntime.Object, error) {
		answer(a.(clienttesting.UpdateAction).GetObject().(*certificatesv1.CertificateSigningRequest))
		return false, nil, nil
	})
	client.PrependReactor("create", "selfsubjectaccessreviews", func(a clienttesting.Action) (bool, apiruntime.Object, error) {
		review := a.(clienttesting.CreateAction).GetObject().(*authorizationv1.SelfSubjectAccessReview)
		review.Status.Allowed = review.Spec.ResourceAttributes.Resource != "signers"
		return true, review, nil
	})
	return client
}

func TestCertificateRequest(t *testing.T) {
	t.Parallel()
	condition := func(kind certificatesv1.RequestConditionType) func(*certificatesv1.CertificateSigningRequest) {
		return func(r *certificatesv1.CertificateSigningRequest) {
			r.Status.Conditions = append(r.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{Type: kind, Status: corev1.ConditionTrue, Message: "no thanks"})
		}
	}
	issue := func(r *certificatesv1.CertificateSigningRequest) { r.Status.Certificate = []byte("chain") }
	nothing := func(*certificatesv1.CertificateSigningRequest) {}
	for name, c := range map[string]struct {
		answer     func(*certificatesv1.CertificateSigningRequest)
		refused    string
		want, hint string
		left       int
	}{
		"signed":                {issue, "", "", "", 1},
		"never signed":          {nothing, "", "certificate request made was approved, but not signed within 50ms", "--cluster-signing-cert-file", 0},
		"refused by the signer": {condition(certificatesv1.CertificateFailed), "", "failed: no thanks", "", 0},
		"denied by another":     {condition(certificatesv1.CertificateDenied), "", "denied: no thanks", "", 0},
		"may not create":        {issue, "create certificatesigningrequests", "create a certificate request", "you lack the permission to approve signers.certificates.k8s.io with resource name kubernetes.io/kube-apiserver-client", 0},
		"may not approve":       {issue, "update certificatesigningrequests/approval", "approve certificate request made", "you lack the permission to approve signers", 0},
		"may not remove":        {nothing, "delete certificatesigningrequests", "delete certificate request made", "", 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := signer(c.answer, c.refused)
			chain, err := (&certificateRequest{client: client, ttl: time.Hour, timeout: 50 * time.Millisecond}).run(t.Context())
			switch {
			case c.want == "" && (err != nil || string(chain) != "chain"):
				t.Errorf("got %q, %v", chain, err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(hint.Of(err), c.hint)):
				t.Errorf("got %v (hint: %s), want %q (hint: %s)", err, hint.Of(err), c.want, c.hint)
			}
			if got := left(t, client); got != c.left {
				t.Errorf("%d requests are left, want %d", got, c.left)
			}
		})
	}
}

// left returns the number of certificate requests in the cluster.
func left(t *testing.T, client *fake.Clientset) int {
	t.Helper()
	list, err := client.Tracker().List(certificatesv1.SchemeGroupVersion.WithResource("certificatesigningrequests"), certificatesv1.SchemeGroupVersion.WithKind("CertificateSigningRequest"), "")
	if err != nil {
		t.Fatal(err)
	}
	return len(list.(*certificatesv1.CertificateSigningRequestList).Items)
}

// TestCertificateRequestInterrupted expects that the request is deleted after Ctrl-C.
func TestCertificateRequestInterrupted(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	client := signer(func(*certificatesv1.CertificateSigningRequest) { cancel() })
	if _, err := (&certificateRequest{client: client, ttl: time.Hour, timeout: time.Minute}).run(ctx); err == nil || err.Error() != "interrupted" {
		t.Errorf("got %v", err)
	}
	if got := left(t, client); got != 0 {
		t.Errorf("%d requests are left", got)
	}
}

// TestReplacedRequestIsNotApproved replaces the request that an administrator is about to approve. A user who may create and
// delete requests, but not approve them, must not get a request approved in this way.
func TestReplacedRequestIsNotApproved(t *testing.T) {
	t.Parallel()
	client := signer(func(*certificatesv1.CertificateSigningRequest) {})
	approvals := 0
	client.PrependReactor("update", "certificatesigningrequests/approval", func(a clienttesting.Action) (bool, apiruntime.Object, error) {
		approvals++
		return true, nil, apierrors.NewConflict(a.GetResource().GroupResource(), "made", nil)
	})
	client.PrependReactor("get", "certificatesigningrequests", func(clienttesting.Action) (bool, apiruntime.Object, error) {
		return true, &certificatesv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{Name: "made", UID: "another"}}, nil
	})
	_, err := (&certificateRequest{client: client, ttl: time.Hour, timeout: 50 * time.Millisecond}).run(t.Context())
	if !errors.Is(err, errReplaced) || approvals != 1 {
		t.Errorf("got %v after %d approvals", err, approvals)
	}
}

func TestUserKubeconfigValidate(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	for name, c := range map[string]struct {
		o    userKubeconfigOptions
		want string
	}{
		"person":           {userKubeconfigOptions{name: "jane@example.com", groups: []string{"dev", "ops"}, ttl: day}, ""},
		"system group":     {userKubeconfigOptions{name: "jane", groups: []string{"system:monitoring"}, ttl: day}, ""},
		"masters":          {userKubeconfigOptions{name: "jane", groups: []string{"system:masters"}, ttl: day}, "certificates of this group are not issued"},
		"group twice":      {userKubeconfigOptions{name: "jane", groups: []string{"a", "a"}, ttl: day}, "given twice"},
		"no name":          {userKubeconfigOptions{ttl: day}, "must be printable text"},
		"space at the end": {userKubeconfigOptions{name: "jane ", ttl: day}, "must be printable text"},
		"line break":       {userKubeconfigOptions{name: "ja\nne", ttl: day}, "must be printable text"},
		"empty group":      {userKubeconfigOptions{name: "jane", groups: []string{""}, ttl: day}, "--group"},
		"account":          {userKubeconfigOptions{name: "system:serviceaccount:a:b", ttl: day}, "not for people"},
		"too short":        {userKubeconfigOptions{name: "jane", ttl: time.Minute}, "must be between 10m"},
		"too long":         {userKubeconfigOptions{name: "jane", ttl: 100 * 365 * day}, "must be between 10m"},
	} {
		c.o.timeout = time.Second
		err := c.o.validate()
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}

func TestCheckTarget(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const earlier = `{kind: Config, clusters: [{name: cluster, cluster: {server: "https://a"}}], users: [{name: jane, user: {}}]}`
	const several = `{kind: Config, clusters: [{name: cluster, cluster: {server: "https://a"}}], users: [{name: jane, user: {}}, {name: me, user: {}}]}`
	for name, c := range map[string]struct {
		target string
		ok     bool
	}{
		"new": {filepath.Join(dir, "none"), true}, "standard output": {"", true}, "renewal": {file("a", earlier), true},
		"other users besides": {file("b", several), false}, "no kubeconfig": {file("c", "notes"), false}, "directory": {dir, false},
	} {
		if err := (&userKubeconfigOptions{name: "jane", target: c.target}).checkTarget("https://a"); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := (&userKubeconfigOptions{name: "jane", target: filepath.Join(dir, "a")}).checkTarget("https://b"); err == nil {
		t.Error("overwrites the kubeconfig of another server")
	}
}

// TestDeliver writes the kubeconfig for a certificate that the signer has issued.
func TestDeliver(t *testing.T) {
	t.Parallel()
	dir, now := t.TempDir(), time.Now()
	ca, err := pki.EnsureAuthority(filepath.Join(dir, "ca.crt"), filepath.Join(dir, "ca.key"), "ca", now)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := ca.NewClient("jane", []string{"ops", "dev"}, now)
	if err != nil {
		t.Fatal(err)
	}
	server := &rest.Config{Host: "https://a:1/path", TLSClientConfig: rest.TLSClientConfig{CAFile: filepath.Join(dir, "ca.crt"), ServerName: "b", CertData: []byte("admin's"), KeyData: []byte("admin's")}}
	var messages bytes.Buffer
	o := &userKubeconfigOptions{streams: streams{err: &messages}, name: "jane", groups: []string{"dev", "ops"}, ttl: 5 * 365 * 24 * time.Hour, target: filepath.Join(dir, "out")}
	if err := o.deliver(server, pair.KeyPEM, pair.CertPEM); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(messages.String(), "jane (of dev, ops) can sign in until 20") || !strings.Contains(messages.String(), "earlier than requested: the server allows 36") {
		t.Errorf("printed %q", messages.String())
	}
	info, err := os.Stat(o.target)
	if err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	got, err := clientcmd.BuildConfigFromFlags("", o.target)
	if err != nil {
		t.Fatal(err)
	}
	if got.Host != server.Host || got.ServerName != "b" || !bytes.Equal(got.CAData, ca.CertPEM()) || !bytes.Equal(got.CertData, pair.CertPEM) || !bytes.Equal(got.KeyData, pair.KeyPEM) {
		t.Errorf("kubeconfig leads to %s (%s) with another CA, certificate or key", got.Host, got.ServerName)
	}
	for name, other := range map[string]*userKubeconfigOptions{
		"another name": {name: "john", groups: o.groups}, "another group": {name: "jane", groups: []string{"dev"}},
	} {
		if err := other.deliver(server, pair.KeyPEM, pair.CertPEM); err == nil || !strings.Contains(err.Error(), "issued a certificate for") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := o.deliver(server, []byte("junk"), pair.CertPEM); err == nil || strings.Contains(err.Error(), "BEGIN") {
		t.Errorf("certificate of another key: %v", err)
	}
}
