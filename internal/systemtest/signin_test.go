// Promise: certificates, bootstrap tokens and tokens of other issuers identify exactly who they were made for.

package systemtest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"lanyard.dev/internal/bootstraptoken"
	"lanyard.dev/internal/pki"
	"lanyard.dev/lanyardtest"
)

// TestCertificatesIdentifyTheirHolder requests a certificate from each signer, and signs in with it.
func TestCertificatesIdentifyTheirHolder(t *testing.T) {
	t.Parallel()
	a := authority(t)
	usages := []certificatesv1.KeyUsage{certificatesv1.UsageClientAuth, certificatesv1.UsageDigitalSignature}
	for signer, c := range map[string]struct {
		name   string
		groups []string
		byHand bool // the node's request is approved automatically
	}{
		certificatesv1.KubeAPIServerClientSignerName:        {"jane@example.com", []string{"dev", "ops"}, true},
		certificatesv1.KubeAPIServerClientKubeletSignerName: {"system:node:n1", []string{"system:nodes"}, false},
	} {
		t.Run(signer, func(t *testing.T) {
			t.Parallel()
			key, request, err := pki.NewRequest(c.name, c.groups)
			if err != nil {
				t.Fatal(err)
			}
			client := a.Client()
			made := requestCertificate(t, client, request, signer, usages)
			if c.byHand {
				approve(t, client, made)
			}
			certificate := awaitCertificate(t, client, made)
			who, err := identify(t, withCertificate(a.Config(), certificate, key))
			if err != nil {
				t.Fatal(err)
			}
			want := append(slices.Clone(c.groups), "system:authenticated")
			if who.Username != c.name || !slices.Equal(who.Groups, want) {
				t.Errorf("signed in as %s of %v, want %s of %v", who.Username, who.Groups, c.name, want)
			}
		})
	}
}

func requestCertificate(t *testing.T, client kubernetes.Interface, request []byte, signer string, usages []certificatesv1.KeyUsage) string {
	t.Helper()
	hour := int32(3600)
	made, err := client.CertificatesV1().CertificateSigningRequests().Create(t.Context(), &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "test-"},
		Spec:       certificatesv1.CertificateSigningRequestSpec{Request: request, SignerName: signer, Usages: usages, ExpirationSeconds: &hour},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return made.Name
}

func approve(t *testing.T, client kubernetes.Interface, name string) {
	t.Helper()
	requests := client.CertificatesV1().CertificateSigningRequests()
	r, err := requests.Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	r.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue}}
	if _, err := requests.UpdateApproval(t.Context(), name, r, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// awaitCertificate watches the request until it has a certificate.
func awaitCertificate(t *testing.T, client kubernetes.Interface, name string) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	events, err := client.CertificatesV1().CertificateSigningRequests().Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + name})
	if err != nil {
		t.Fatal(err)
	}
	defer events.Stop()
	for event := range events.ResultChan() {
		r, ok := event.Object.(*certificatesv1.CertificateSigningRequest)
		if ok && len(r.Status.Certificate) > 0 {
			return r.Status.Certificate
		}
	}
	t.Fatalf("request %s was not signed", name)
	return nil
}

// TestRequesterIsTheCaller checks that a request is in the name of its sender, and that a user who may only create requests
// cannot approve or sign them.
func TestRequesterIsTheCaller(t *testing.T) {
	t.Parallel()
	a := authority(t)
	config := a.Config()
	config.Impersonate = rest.ImpersonationConfig{UserName: "asker", Groups: []string{"system:authenticated"}, Extra: map[string][]string{"example.com/k": {"v"}}}
	asker := clientFor(t, config)
	namespace := a.Namespace(t)
	bindClusterRole(t, a.Client(), namespace+"-asker", userSubject("asker"), certificateRule("create,get", "certificatesigningrequests"),
		certificateRule("update", "certificatesigningrequests/approval,certificatesigningrequests/status"))
	_, request, err := pki.NewRequest("jane", nil)
	if err != nil {
		t.Fatal(err)
	}
	requests := asker.CertificatesV1().CertificateSigningRequests()
	made, err := requests.Create(t.Context(), &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "test-"},
		Spec: certificatesv1.CertificateSigningRequestSpec{
			Request: request, SignerName: certificatesv1.KubeAPIServerClientSignerName, Usages: []certificatesv1.KeyUsage{certificatesv1.UsageClientAuth},
			Username: "root", Groups: []string{"system:masters"}, UID: "0", Extra: map[string]certificatesv1.ExtraValue{"forged": {"x"}},
		},
		Status: certificatesv1.CertificateSigningRequestStatus{Conditions: []certificatesv1.CertificateSigningRequestCondition{{Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if s := made.Spec; s.Username != "asker" || s.UID != "" || !slices.Equal(s.Groups, []string{"system:authenticated"}) || len(s.Extra) != 1 || len(s.Extra["example.com/k"]) != 1 {
		t.Errorf("requester %q %q %v %v", s.Username, s.UID, s.Groups, s.Extra)
	}
	if len(made.Status.Conditions) > 0 {
		t.Errorf("created with conditions %v", made.Status.Conditions)
	}
	made.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue}}
	if _, err := requests.UpdateApproval(t.Context(), made.Name, made, metav1.UpdateOptions{}); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "approve requests with signerName") {
		t.Errorf("approval of the user's own request: %v, want forbidden", err)
	}
	own, err := pki.EnsureAuthority(filepath.Join(t.TempDir(), "crt"), filepath.Join(t.TempDir(), "key"), "own", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	made.Status = certificatesv1.CertificateSigningRequestStatus{Certificate: own.CertPEM()}
	if _, err := requests.UpdateStatus(t.Context(), made, metav1.UpdateOptions{}); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "sign requests with signerName") {
		t.Errorf("signature of the user's own request: %v, want forbidden", err)
	}
}

// certificateRule returns a rule for certificates.k8s.io.
func certificateRule(verbs, resources string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{Verbs: strings.Split(verbs, ","), APIGroups: []string{certificatesv1.GroupName}, Resources: strings.Split(resources, ",")}
}

func TestAdministratorCertificate(t *testing.T) {
	t.Parallel()
	a := authority(t)
	review := selfAccessReview(t, a.Config(), authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &authorizationv1.ResourceAttributes{Group: "*", Resource: "*", Verb: "*"}})
	if !review.Status.Allowed {
		t.Errorf("the administrator: %+v", review.Status)
	}
	stranger := withForeignCertificate(t, a.Config())
	if _, err := clientFor(t, stranger).CoreV1().Namespaces().List(t.Context(), metav1.ListOptions{}); !apierrors.IsUnauthorized(err) {
		t.Errorf("a certificate of another authority: %v, want unauthorized", err)
	}
}

// withForeignCertificate returns config with the administrator's certificate of another authority.
func withForeignCertificate(t *testing.T, config *rest.Config) *rest.Config {
	t.Helper()
	other := lanyardtest.Start(t).Config()
	config.TLSClientConfig.CertData, config.TLSClientConfig.KeyData = other.CertData, other.KeyData
	config.TLSClientConfig.CertFile, config.TLSClientConfig.KeyFile = other.CertFile, other.KeyFile
	return config
}

func TestBootstrapToken(t *testing.T) {
	t.Parallel()
	a := lanyardtest.Start(t)
	secrets := a.Client().CoreV1().Secrets(bootstraptoken.Namespace)
	sign := func(token bootstraptoken.Token) (authenticationv1.UserInfo, error) {
		t.Helper()
		return identify(t, bearing(a.Config(), token.Reveal()))
	}
	token := bootstraptoken.New()
	if _, err := sign(token); !apierrors.IsUnauthorized(err) {
		t.Errorf("before the secret exists: %v", err)
	}
	made, err := secrets.Create(t.Context(), bootstraptoken.NewSecret(token, bootstraptoken.Spec{Expires: time.Now().Add(time.Hour)}), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	user, err := sign(token)
	if err != nil || user.Username != "system:bootstrap:"+token.ID() || strings.Join(user.Groups, " ") != "system:bootstrappers system:authenticated" {
		t.Errorf("after the secret was created: %+v, %v", user, err)
	}
	review := &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token.Reveal()}}
	reviewed, err := a.Client().AuthenticationV1().TokenReviews().Create(t.Context(), review, metav1.CreateOptions{})
	if err != nil || !reviewed.Status.Authenticated {
		t.Errorf("a review: %+v, %v", reviewed.Status, err)
	}
	review.Spec.Audiences = []string{"vault"}
	reviewed, err = a.Client().AuthenticationV1().TokenReviews().Create(t.Context(), review, metav1.CreateOptions{})
	if err != nil || reviewed.Status.Authenticated {
		t.Errorf("a review for another audience: %+v, %v", reviewed.Status, err)
	}
	made.Data["usage-bootstrap-authentication"] = []byte("false")
	if _, err := secrets.Update(t.Context(), made, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := sign(token); !apierrors.IsUnauthorized(err) {
		t.Errorf("disabled: %v", err)
	}
	if err := secrets.Delete(t.Context(), made.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := sign(token); !apierrors.IsUnauthorized(err) {
		t.Errorf("deleted: %v", err)
	}

	expired := bootstraptoken.New()
	old, err := secrets.Create(t.Context(), bootstraptoken.NewSecret(expired, bootstraptoken.Spec{Expires: time.Now().Add(-time.Second)}), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sign(expired); !apierrors.IsUnauthorized(err) {
		t.Errorf("expired: %v", err)
	}
	eventually(t, "the expired token's secret is removed", func(ctx context.Context) bool {
		_, err := secrets.Get(ctx, old.Name, metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	})
}

// authenticationConfig returns a configuration by which an authority accepts the accounts of issuer as users.
func authenticationConfig(t *testing.T, issuer *lanyardtest.Authority) string {
	t.Helper()
	ca, err := os.ReadFile(filepath.Join(issuer.DataDir(), "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf(`apiVersion: apiserver.config.k8s.io/v1
kind: AuthenticationConfiguration
jwt:
- issuer:
    url: %s
    audiences: [%s]
    certificateAuthority: %q
  claimMappings:
    username: {claim: sub, prefix: "idp:"}
    groups: {expression: "['staff']"}
`, issuer.URL(), signInAudience, ca)
}

const signInAudience = "https://second.example"

// TestSignInByAnotherAuthority signs in at one authority with tokens that another one has issued.
func TestSignInByAnotherAuthority(t *testing.T) {
	t.Parallel()
	issuer := lanyardtest.StartWith(t, lanyardtest.Options{MinTokenExpiration: time.Second})
	stranger := authority(t)
	file := filepath.Join(t.TempDir(), "authentication.yaml")
	if err := os.WriteFile(file, []byte(authenticationConfig(t, issuer)), 0o600); err != nil {
		t.Fatal(err)
	}
	server := lanyardtest.StartWith(t, lanyardtest.Options{AuthenticationConfig: file})

	namespace := issuer.Namespace(t)
	issuer.CreateServiceAccount(t, namespace, "jane")
	good := issuer.Token(t, namespace, "jane", signInAudience)
	name := "idp:system:serviceaccount:" + namespace + ":jane"
	eventually(t, "sign-in with a good token", func(context.Context) bool {
		who, err := identify(t, bearing(server.Config(), good))
		return err == nil && who.Username == name
	})
	who, err := identify(t, bearing(server.Config(), good))
	if err != nil || strings.Join(who.Groups, " ") != "staff system:authenticated" {
		t.Errorf("signed in to groups %v, %v", who.Groups, err)
	}

	elsewhere := stranger.Namespace(t)
	stranger.CreateServiceAccount(t, elsewhere, "jane")
	second := int64(1)
	short := issuer.TokenFor(t, namespace, "jane", authenticationv1.TokenRequestSpec{Audiences: []string{signInAudience}, ExpirationSeconds: &second})
	eventually(t, "the token expires", func(context.Context) bool {
		_, err := identify(t, bearing(server.Config(), short))
		return apierrors.IsUnauthorized(err)
	})
	for what, token := range map[string]string{
		"token of an unknown issuer": stranger.Token(t, elsewhere, "jane", signInAudience),
		"token for its own issuer":   issuer.Token(t, namespace, "jane"),
		"token that was changed":     good[:len(good)-8] + "AAAAAAAA",
	} {
		if who, err := identify(t, bearing(server.Config(), token)); !apierrors.IsUnauthorized(err) {
			t.Errorf("%s: signed in as %s, %v", what, who.Username, err)
		}
	}
	review := &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: good}}
	answer, err := server.Client().AuthenticationV1().TokenReviews().Create(t.Context(), review, metav1.CreateOptions{})
	if err != nil || !answer.Status.Authenticated || answer.Status.User.Username != name {
		t.Errorf("review: %+v, %v", answer.Status, err)
	}
}
