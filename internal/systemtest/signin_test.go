package systemtest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"lanyard.dev/lanyardtest"
)

// trust is a configuration by which one authority takes the accounts of another for people.
func trust(t *testing.T, issuer *lanyardtest.Authority) string {
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
`, issuer.URL(), audience, ca)
}

const audience = "https://second.example"

// TestSignInByAnotherAuthority starts two authorities, the second of which trusts the first.
func TestSignInByAnotherAuthority(t *testing.T) {
	t.Parallel()
	issuer := lanyardtest.StartWith(t, lanyardtest.Options{MinTokenExpiration: time.Second})
	stranger := authority(t)
	file := filepath.Join(t.TempDir(), "authentication.yaml")
	if err := os.WriteFile(file, []byte(trust(t, issuer)), 0o600); err != nil {
		t.Fatal(err)
	}
	server := lanyardtest.StartWith(t, lanyardtest.Options{AuthenticationConfig: file})

	namespace := issuer.Namespace(t)
	issuer.CreateServiceAccount(t, namespace, "jane")
	good := issuer.Token(t, namespace, "jane", audience)
	name := "idp:system:serviceaccount:" + namespace + ":jane"
	eventually(t, "sign-in with a good token", func(context.Context) bool {
		who, err := signInWith(t, server, good)
		return err == nil && who.Username == name
	})
	who, err := signInWith(t, server, good)
	if err != nil || strings.Join(who.Groups, " ") != "staff system:authenticated" {
		t.Errorf("signed in to groups %v, %v", who.Groups, err)
	}

	elsewhere := stranger.Namespace(t)
	stranger.CreateServiceAccount(t, elsewhere, "jane")
	second := int64(1)
	short := issuer.TokenFor(t, namespace, "jane", authenticationv1.TokenRequestSpec{Audiences: []string{audience}, ExpirationSeconds: &second})
	eventually(t, "expiry", func(context.Context) bool {
		_, err := signInWith(t, server, short)
		return apierrors.IsUnauthorized(err)
	})
	for what, token := range map[string]string{
		"token of an unknown issuer": stranger.Token(t, elsewhere, "jane", audience),
		"token for its own issuer":   issuer.Token(t, namespace, "jane"),
		"token that was changed":     good[:len(good)-8] + "AAAAAAAA",
	} {
		if who, err := signInWith(t, server, token); !apierrors.IsUnauthorized(err) {
			t.Errorf("%s: signed in as %s, %v", what, who.Username, err)
		}
	}
	review := &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: good}}
	answer, err := server.Client().AuthenticationV1().TokenReviews().Create(t.Context(), review, metav1.CreateOptions{})
	if err != nil || !answer.Status.Authenticated || answer.Status.User.Username != name {
		t.Errorf("review: %+v, %v", answer.Status, err)
	}
}

// signInWith returns who the server takes the bearer of a token for.
func signInWith(t *testing.T, a *lanyardtest.Authority, token string) (authenticationv1.UserInfo, error) {
	t.Helper()
	client := clientFor(t, bearing(a.Config(), token))
	review, err := client.AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil {
		return authenticationv1.UserInfo{}, err
	}
	return review.Status.UserInfo, nil
}
