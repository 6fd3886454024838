package systemtest

import (
	"net/http"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"

	"lanyard.dev/internal/token"
	"lanyard.dev/lanyardtest"
)

// The benchmarks count the whole round trip over HTTPS on one connection, client and server together.

const reviewPath = "/apis/authentication.k8s.io/v1/tokenreviews"

// post sends one body again and again.
func post(b *testing.B, c *caller, path string, next func(i int) []byte) {
	b.Helper()
	c.must(b, http.MethodPost, path, next(0))
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		i++
		if got := c.do(b, http.MethodPost, path, next(i)); got.code != http.StatusCreated {
			b.Fatal(got)
		}
	}
}

// benched is an account with a token that may do what the benchmarks do.
func benched(b *testing.B) (a *lanyardtest.Authority, namespace string, holder *caller) {
	b.Helper()
	a = authority(b)
	namespace = a.Namespace(b)
	a.CreateServiceAccount(b, namespace, "benched")
	a.Grant(b, namespace, "benched", readConfigMaps, rbacRule("", "serviceaccounts/token", "create"))
	return a, namespace, bearer(b, a.Config(), a.Token(b, namespace, "benched"))
}

func BenchmarkTokenRequest(b *testing.B) {
	_, namespace, holder := benched(b)
	body := []byte(`{"apiVersion":"authentication.k8s.io/v1","kind":"TokenRequest","spec":{"expirationSeconds":3600}}`)
	post(b, holder, "/api/v1/namespaces/"+namespace+"/serviceaccounts/benched/token", func(int) []byte { return body })
}

func reviewOf(b *testing.B, text string) []byte {
	return encode(b, authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: text}})
}

func BenchmarkTokenReviewHot(b *testing.B) {
	a, namespace, _ := benched(b)
	body := reviewOf(b, a.Token(b, namespace, "benched"))
	post(b, callerFor(b, a.Config()), reviewPath, func(int) []byte { return body })
}

// BenchmarkTokenReviewCold goes round more tokens than the verifier remembers.
func BenchmarkTokenReviewCold(b *testing.B) {
	a := authority(b)
	f := forgerAt(b, a, a.Namespace(b), "benched")
	bodies := make([][]byte, 2*token.DefaultCacheSize)
	for i := range bodies {
		bodies[i] = reviewOf(b, f.issued(0))
	}
	post(b, callerFor(b, a.Config()), reviewPath, func(i int) []byte { return bodies[i%len(bodies)] })
}

func BenchmarkAuthenticatedGet(b *testing.B) {
	_, namespace, holder := benched(b)
	path := "/api/v1/namespaces/" + namespace + "/configmaps/" + rootCAMap
	holder.must(b, http.MethodGet, path, nil)
	b.ReportAllocs()
	for b.Loop() {
		if got := holder.get(b, path); got.code != http.StatusOK {
			b.Fatal(got)
		}
	}
}

func BenchmarkSubjectAccessReview(b *testing.B) {
	a, namespace, _ := benched(b)
	body := encode(b, authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User:               "system:serviceaccount:" + namespace + ":benched",
		ResourceAttributes: &authorizationv1.ResourceAttributes{Namespace: namespace, Verb: "get", Resource: "configmaps"},
	}})
	post(b, callerFor(b, a.Config()), "/apis/authorization.k8s.io/v1/subjectaccessreviews", func(int) []byte { return body })
}
