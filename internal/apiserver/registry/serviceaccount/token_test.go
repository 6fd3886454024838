package serviceaccount_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	auditinternal "k8s.io/apiserver/pkg/apis/audit"
	"k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/warning"
	testingclock "k8s.io/utils/clock/testing"

	"lanyard.dev/internal/apiserver/issuance"
	"lanyard.dev/internal/apiserver/outage"
	"lanyard.dev/internal/apiserver/registry/serviceaccount"
	"lanyard.dev/internal/ledger"
	"lanyard.dev/internal/token"
)

// anchors are the existing objects, by kind/namespace/name. A lookup of "unlucky" fails, as a lookup in a stale index does.
type anchors map[string]token.Anchor

var errStale = errors.New("storage watch has not progressed in time")

func (a anchors) find(kind, namespace, name string) (token.Anchor, bool, error) {
	if name == "unlucky" {
		return token.Anchor{}, false, errStale
	}
	found, ok := a[kind+"/"+namespace+"/"+name]
	return found, ok, nil
}

func (a anchors) ServiceAccount(_ context.Context, namespace, name string) (token.Anchor, bool, error) {
	return a.find("account", namespace, name)
}

func (a anchors) Pod(_ context.Context, namespace, name string) (token.Anchor, bool, error) {
	return a.find("pod", namespace, name)
}

func (a anchors) Secret(_ context.Context, namespace, name string) (token.Anchor, bool, error) {
	return a.find("secret", namespace, name)
}

func (a anchors) Node(_ context.Context, name string) (token.Anchor, bool, error) {
	return a.find("node", "", name)
}

func world() anchors {
	return anchors{
		"account/ns/robot": {UID: "robot-uid"}, "account/ns/default": {UID: "default-uid"},
		"pod/ns/p": {UID: "p-uid", ServiceAccountName: "robot", NodeName: "n"}, "pod/ns/unplaced": {UID: "u-uid", ServiceAccountName: "robot"},
		"pod/ns/lost": {UID: "l-uid", ServiceAccountName: "robot", NodeName: "nowhere"}, "pod/ns/other": {UID: "o-uid", ServiceAccountName: "default"},
		"pod/ns/stranded": {UID: "st-uid", ServiceAccountName: "robot", NodeName: "leaving"},
		"pod/ns/blind":    {UID: "b-uid", ServiceAccountName: "robot", NodeName: "unlucky"},
		"secret/ns/s":     {UID: "s-uid"},
		"secret/away/s":   {UID: "wrong"}, "pod/away/q": {UID: "wrong", ServiceAccountName: "robot"},
		"node//n": {UID: "n-uid"},

		"account/ns/leaving": {UID: "leaving-uid", DeletionTimestamp: issued.Add(time.Hour)},
		"secret/ns/leaving":  {UID: "ls-uid", DeletionTimestamp: issued},
		"node//leaving":      {UID: "ln-uid", DeletionTimestamp: issued},
		"pod/ns/ending":      {UID: "e-uid", ServiceAccountName: "robot", DeletionTimestamp: issued.Add(time.Second)},
		"pod/ns/ended":       {UID: "ed-uid", ServiceAccountName: "robot", DeletionTimestamp: issued},
	}
}

// issuer records the requests for tokens.
type issuer struct {
	requests []token.Request
	err      error
}

var issued = time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC)

func (i *issuer) Issue(_ context.Context, r token.Request) (string, *token.Claims, error) {
	i.requests = append(i.requests, r)
	if i.err != nil {
		return "", nil, i.err
	}
	return "the-token", &token.Claims{
		ID: "1", Audience: r.Audiences, IssuedAt: issued.Unix(), Expiry: issued.Add(r.Lifetime).Unix(), KeyID: "the-key",
		Kubernetes: &token.Kubernetes{Namespace: r.Namespace, ServiceAccount: r.ServiceAccount, Pod: r.Pod, Secret: r.Secret, Node: r.Node},
	}, nil
}

// records records tokens.
type records struct {
	tokens []ledger.Token
	err    error
}

func (r *records) RecordToken(_ context.Context, t ledger.Token) error {
	r.tokens = append(r.tokens, t)
	return r.err
}

var minter = ledger.Minter{User: "admin", Credential: "X509SHA256=1", Address: "192.0.2.1", UserAgent: "kubectl"}

// advice records warnings.
type advice []string

func (a *advice) AddWarning(_, text string) { *a = append(*a, text) }

// answer is the result of one request.
type answer struct {
	out      *authenticationv1.TokenRequest
	err      error
	requests []token.Request
	records  []ledger.Token
	warnings advice
	audited  map[string]string
}

func ask(t *testing.T, name string, req *authenticationv1.TokenRequest, configure ...func(*serviceaccount.TokenConfig, *metav1.CreateOptions)) answer {
	t.Helper()
	var a answer
	signs, recorded := &issuer{}, &records{}
	config := serviceaccount.TokenConfig{Issuer: signs, Recorder: recorded, Anchors: world(), Audiences: []string{"api"}, Lifetimes: token.LifetimePolicy{Max: 2 * time.Hour}, Clock: testingclock.NewFakePassiveClock(issued)}
	options := &metav1.CreateOptions{}
	for _, c := range configure {
		c(&config, options)
	}
	ctx := audit.WithAuditContext(request.WithNamespace(issuance.WithMinter(t.Context(), minter), "ns"))
	if err := audit.AuditContextFrom(ctx).Init(audit.RequestAuditConfig{Level: auditinternal.LevelMetadata}, nil); err != nil {
		t.Fatal(err)
	}
	out, err := serviceaccount.NewTokenREST(config).Create(warning.WithWarningRecorder(ctx, &a.warnings), name, req, nil, options)
	a.out, _ = out.(*authenticationv1.TokenRequest)
	a.err, a.requests, a.records = err, signs.requests, recorded.tokens
	a.audited = audit.AuditContextFrom(ctx).GetEventAnnotations()
	return a
}

func spec(mutate func(*authenticationv1.TokenRequestSpec)) *authenticationv1.TokenRequest {
	r := &authenticationv1.TokenRequest{}
	if mutate != nil {
		mutate(&r.Spec)
	}
	return r
}

func lasting(seconds int64) *authenticationv1.TokenRequest {
	return spec(func(s *authenticationv1.TokenRequestSpec) { s.ExpirationSeconds = &seconds })
}

func bound(kind, name, uid string) *authenticationv1.TokenRequest {
	return spec(func(s *authenticationv1.TokenRequestSpec) {
		s.BoundObjectRef = &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: kind, Name: name}
		s.BoundObjectRef.UID = types.UID(uid)
	})
}

func ofAccount(uid types.UID) *authenticationv1.TokenRequest {
	return &authenticationv1.TokenRequest{ObjectMeta: metav1.ObjectMeta{UID: uid}}
}

func TestIssue(t *testing.T) {
	t.Parallel()
	want := token.Request{
		Namespace: "ns", ServiceAccount: token.Ref{Name: "robot", UID: "robot-uid"}, Audiences: []string{"api"}, Lifetime: time.Hour,
	}
	with := func(mutate func(*token.Request)) token.Request { r := want; mutate(&r); return r }
	for _, test := range []struct {
		name string
		req  *authenticationv1.TokenRequest
		want token.Request
	}{
		{"defaults", spec(nil), want},
		{"audiences", spec(func(s *authenticationv1.TokenRequestSpec) { s.Audiences = []string{"a", "b"} }),
			with(func(r *token.Request) { r.Audiences = []string{"a", "b"} })},
		{"shortest", lasting(600), with(func(r *token.Request) { r.Lifetime = 10 * time.Minute })},
		{"longest without a cut", lasting(7200), with(func(r *token.Request) { r.Lifetime = 2 * time.Hour })},
		{"pod, and its node", bound("Pod", "p", ""), with(func(r *token.Request) {
			r.Pod, r.Node = &token.Ref{Name: "p", UID: "p-uid"}, &token.Ref{Name: "n", UID: "n-uid"}
		})},
		{"pod by UID", bound("Pod", "unplaced", "u-uid"), with(func(r *token.Request) { r.Pod = &token.Ref{Name: "unplaced", UID: "u-uid"} })},
		{"pod on an unknown node", bound("Pod", "lost", ""), with(func(r *token.Request) { r.Pod = &token.Ref{Name: "lost", UID: "l-uid"} })},
		{"pod in its grace period", bound("Pod", "ending", ""), with(func(r *token.Request) { r.Pod = &token.Ref{Name: "ending", UID: "e-uid"} })},
		{"UID of the account", ofAccount("robot-uid"), want},
		{"secret", bound("Secret", "s", "s-uid"), with(func(r *token.Request) { r.Secret = &token.Ref{Name: "s", UID: "s-uid"} })},
		{"node", bound("Node", "n", ""), with(func(r *token.Request) { r.Node = &token.Ref{Name: "n", UID: "n-uid"} })},
		{"kind of the core group, version left out", spec(func(s *authenticationv1.TokenRequestSpec) {
			s.BoundObjectRef = &authenticationv1.BoundObjectReference{Kind: "Secret", Name: "s"}
		}), with(func(r *token.Request) { r.Secret = &token.Ref{Name: "s", UID: "s-uid"} })},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			a := ask(t, "robot", test.req)
			if a.err != nil {
				t.Fatal(a.err)
			}
			if diff := cmp.Diff([]token.Request{test.want}, a.requests); diff != "" {
				t.Errorf("requests to the issuer (-want +got):\n%s", diff)
			}
			s := a.out.Status
			if s.Token != "the-token" || !s.ExpirationTimestamp.Time.Equal(issued.Add(test.want.Lifetime)) {
				t.Errorf("status %+v", s)
			}
			if a.out.Name != "robot" || a.out.Namespace != "ns" || a.out.UID != "robot-uid" || a.out.CreationTimestamp.IsZero() ||
				*a.out.Spec.ExpirationSeconds != int64(test.want.Lifetime/time.Second) || !slices.Equal(a.out.Spec.Audiences, test.want.Audiences) {
				t.Errorf("got %+v", a.out)
			}
			if a.audited["authentication.kubernetes.io/issued-credential-id"] != "JTI=1" {
				t.Errorf("audit annotations %v", a.audited)
			}
			if len(a.warnings) > 0 {
				t.Errorf("warnings %q", a.warnings)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	named := func(namespace, name string) *authenticationv1.TokenRequest {
		return &authenticationv1.TokenRequest{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	}
	for _, test := range []struct {
		name, account string
		req           *authenticationv1.TokenRequest
		is            func(error) bool
		want          string
	}{
		{"no such account", "nobody", spec(nil), apierrors.IsNotFound, `serviceaccounts "nobody" not found`},
		{"account in deletion", "leaving", spec(nil), apierrors.IsConflict, "is being deleted"},
		{"account created again", "robot", ofAccount("old"), apierrors.IsConflict, "the UID in the token request (old) does not match the UID of the service account (robot-uid)"},
		{"pod past its grace period", "robot", bound("Pod", "ended", ""), apierrors.IsConflict, `"ended": the object is being deleted`},
		{"secret in deletion", "robot", bound("Secret", "leaving", ""), apierrors.IsConflict, "is being deleted"},
		{"node in deletion", "robot", bound("Node", "leaving", ""), apierrors.IsConflict, "is being deleted"},
		{"node of the pod in deletion", "robot", bound("Pod", "stranded", ""), apierrors.IsConflict, `nodes "leaving": the object is being deleted`},
		{"memory is stale", "unlucky", spec(nil), apierrors.IsServiceUnavailable, errStale.Error()},
		{"another name", "robot", named("", "other"), apierrors.IsInvalid, "must match the service account name if specified"},
		{"another namespace", "robot", named("away", ""), apierrors.IsInvalid, "must match the service account namespace if specified"},
		{"too short", "robot", lasting(599), apierrors.IsInvalid, "spec.expirationSeconds: Invalid value: 599: may not specify a duration less than 10 minutes"},
		{"negative", "robot", lasting(-1), apierrors.IsInvalid, "less than 10 minutes"},
		{"too long", "robot", lasting(1<<32 + 1), apierrors.IsInvalid, "may not specify a duration larger than 2^32 seconds"},
		{"overflowing", "robot", lasting(1<<63 - 1), apierrors.IsInvalid, "2^32 seconds"},
		{"empty audience", "robot", spec(func(s *authenticationv1.TokenRequestSpec) { s.Audiences = []string{"a", ""} }), apierrors.IsInvalid, "spec.audiences[1]"},
		{"no such pod", "robot", bound("Pod", "nowhere", ""), apierrors.IsNotFound, `pods "nowhere" not found`},
		{"pod of another namespace", "robot", bound("Pod", "q", ""), apierrors.IsNotFound, `pods "q" not found`},
		{"pod of another account", "robot", bound("Pod", "other", ""), apierrors.IsBadRequest, `cannot bind token for serviceaccount "robot" to pod running with different serviceaccount name`},
		{"pod re-created", "robot", bound("Pod", "p", "old"), apierrors.IsConflict, "the UID in the bound object reference (old) does not match the UID in record"},
		{"pod unknown now", "robot", bound("Pod", "unlucky", ""), apierrors.IsServiceUnavailable, errStale.Error()},
		{"node of the pod unknown now", "robot", bound("Pod", "blind", ""), apierrors.IsServiceUnavailable, errStale.Error()},
		{"no such secret", "robot", bound("Secret", "nowhere", ""), apierrors.IsNotFound, `secrets "nowhere" not found`},
		{"secret re-created", "robot", bound("Secret", "s", "old"), apierrors.IsConflict, "does not match"},
		{"no such node", "robot", bound("Node", "nowhere", ""), apierrors.IsNotFound, `nodes "nowhere" not found`},
		{"node re-created", "robot", bound("Node", "n", "old"), apierrors.IsConflict, "does not match"},
		{"another kind", "robot", bound("ConfigMap", "c", ""), apierrors.IsBadRequest, "cannot bind token for serviceaccount to object of type /v1, Kind=ConfigMap"},
		{"another group", "robot", spec(func(s *authenticationv1.TokenRequestSpec) {
			s.BoundObjectRef = &authenticationv1.BoundObjectReference{APIVersion: "apps/v1", Kind: "Pod", Name: "p"}
		}), apierrors.IsBadRequest, "apps/v1, Kind=Pod"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			a := ask(t, test.account, test.req)
			if a.err == nil || !test.is(a.err) || !strings.Contains(a.err.Error(), test.want) {
				t.Errorf("got %v, want %q", a.err, test.want)
			}
			if a.out != nil || len(a.requests) > 0 || len(a.audited) > 0 {
				t.Errorf("a refused request was answered %+v, requests %+v, audited %v", a.out, a.requests, a.audited)
			}
		})
	}
}

func TestCutLifetimeDrawsAWarning(t *testing.T) {
	t.Parallel()
	a := ask(t, "robot", lasting(7201))
	if a.err != nil {
		t.Fatal(a.err)
	}
	if !slices.Equal(a.warnings, advice{"requested expiration of 7201 seconds shortened to 7200 seconds"}) {
		t.Errorf("warnings %q", a.warnings)
	}
	if *a.out.Spec.ExpirationSeconds != 7200 || a.requests[0].Lifetime != 2*time.Hour {
		t.Errorf("got %+v, requests %+v", a.out.Spec, a.requests)
	}
}

// TestCutDefaultLifetime leaves out the lifetime, where even the default is above the limit.
func TestCutDefaultLifetime(t *testing.T) {
	t.Parallel()
	a := ask(t, "robot", spec(nil), func(c *serviceaccount.TokenConfig, _ *metav1.CreateOptions) { c.Lifetimes.Max = 20 * time.Minute })
	if a.err != nil || a.requests[0].Lifetime != 20*time.Minute || len(a.warnings) != 1 {
		t.Errorf("got %v, %+v, %q", a.err, a.requests, a.warnings)
	}
}

func TestDefaultAccountDrawsAWarning(t *testing.T) {
	t.Parallel()
	a := ask(t, "default", spec(nil))
	if a.err != nil || len(a.warnings) != 1 || !strings.Contains(a.warnings[0], "kubectl create serviceaccount NAME -n ns") {
		t.Errorf("got %v, %q", a.err, a.warnings)
	}
}

func TestDryRunIssuesNothing(t *testing.T) {
	t.Parallel()
	dry := func(_ *serviceaccount.TokenConfig, o *metav1.CreateOptions) { o.DryRun = []string{metav1.DryRunAll} }
	forged := spec(nil)
	forged.Status.Token = "forged"
	a := ask(t, "robot", forged, dry)
	if a.err != nil || a.out.Status.Token != "" || len(a.requests) > 0 || len(a.records) > 0 || len(a.audited) > 0 {
		t.Errorf("got %+v, %v, requests %+v, records %+v, audited %v", a.out, a.err, a.requests, a.records, a.audited)
	}
	if a := ask(t, "robot", lasting(1), dry); !apierrors.IsInvalid(a.err) {
		t.Errorf("a bad request: %v", a.err)
	}
}

func TestAdmissionSeesACopyAndMayRefuse(t *testing.T) {
	t.Parallel()
	signs := &issuer{}
	storage := serviceaccount.NewTokenREST(serviceaccount.TokenConfig{Issuer: signs, Anchors: world(), Audiences: []string{"api"}})
	ctx := request.WithNamespace(t.Context(), "ns")
	refuse := func(_ context.Context, obj runtime.Object) error {
		obj.(*authenticationv1.TokenRequest).Spec.Audiences = []string{"forged"}
		return errors.New("admission says no")
	}
	req := spec(nil)
	_, err := storage.Create(ctx, "robot", req, refuse, &metav1.CreateOptions{})
	if err == nil || err.Error() != "admission says no" || len(signs.requests) > 0 || len(req.Spec.Audiences) > 0 {
		t.Errorf("got %v, requests %+v, request %+v", err, signs.requests, req)
	}
	if _, err := storage.Create(ctx, "robot", &corev1.Pod{}, nil, &metav1.CreateOptions{}); !apierrors.IsBadRequest(err) {
		t.Errorf("another kind: %v", err)
	}
}

func TestTooLargeTokenIsInvalid(t *testing.T) {
	t.Parallel()
	a := ask(t, "robot", spec(nil), func(c *serviceaccount.TokenConfig, _ *metav1.CreateOptions) {
		c.Issuer = &issuer{err: token.ErrTooLarge}
	})
	if !apierrors.IsInvalid(a.err) || !strings.Contains(a.err.Error(), "spec.audiences") {
		t.Errorf("got %v", a.err)
	}
}

// TestAlgorithmOfAudiences checks which algorithm is requested for which audiences. A dry run reports a conflict too.
func TestAlgorithmOfAudiences(t *testing.T) {
	t.Parallel()
	configure := func(c *serviceaccount.TokenConfig, _ *metav1.CreateOptions) {
		c.Algorithms = token.AlgorithmPolicy{"entra": "RS256", "bank": "ES384"}
	}
	for _, tt := range []struct {
		audiences []string
		want      string
	}{{nil, ""}, {[]string{"vault"}, ""}, {[]string{"vault", "entra"}, "RS256"}} {
		a := ask(t, "robot", spec(func(s *authenticationv1.TokenRequestSpec) { s.Audiences = tt.audiences }), configure)
		if a.err != nil || len(a.requests) != 1 || string(a.requests[0].Algorithm) != tt.want {
			t.Errorf("%q: %+v, %v; want %q", tt.audiences, a.requests, a.err, tt.want)
		}
	}
	conflict := spec(func(s *authenticationv1.TokenRequestSpec) { s.Audiences = []string{"entra", "bank"} })
	for _, dryRun := range [][]string{nil, {metav1.DryRunAll}} {
		a := ask(t, "robot", conflict, configure, func(_ *serviceaccount.TokenConfig, o *metav1.CreateOptions) { o.DryRun = dryRun })
		if !apierrors.IsInvalid(a.err) || !strings.Contains(a.err.Error(), `spec.audiences`) || len(a.requests) != 0 {
			t.Errorf("dry run %v: %v with %d requests, want an invalid request", dryRun, a.err, len(a.requests))
		}
	}
}

func TestIssuerFails(t *testing.T) {
	t.Parallel()
	a := ask(t, "robot", spec(nil), func(c *serviceaccount.TokenConfig, _ *metav1.CreateOptions) {
		c.Issuer = &issuer{err: errors.New("issue token for ns/robot: no key")}
	})
	// The error of the issuer names the account, so the error must not name it again.
	if !apierrors.IsInternalError(a.err) || strings.Count(a.err.Error(), "issue token for") != 1 || !strings.Contains(a.err.Error(), "ns/robot: no key") {
		t.Errorf("got %v", a.err)
	}
	if a.out != nil || len(a.audited) > 0 {
		t.Errorf("answered %+v, audited %v", a.out, a.audited)
	}
}

// TestSignerIsUnavailable checks that clients are told to try again, without the cause.
func TestSignerIsUnavailable(t *testing.T) {
	t.Parallel()
	a := ask(t, "robot", spec(nil), func(c *serviceaccount.TokenConfig, _ *metav1.CreateOptions) {
		c.Issuer = &issuer{err: fmt.Errorf("%w: the cause", token.ErrSignerUnavailable)}
	})
	undecided := outage.Of(a.err)
	if undecided == nil || a.out != nil || len(a.audited) > 0 {
		t.Fatalf("answered %+v, %v, audited %v", a.out, a.err, a.audited)
	}
	status := undecided.Status()
	if status.Code != http.StatusServiceUnavailable || !strings.Contains(status.Message, "the signer does not answer; try again") ||
		strings.Contains(status.Message, "the cause") || status.Details.RetryAfterSeconds == 0 {
		t.Errorf("status %+v", status)
	}
}

// TestTokenIsRecorded checks the record of a token, and that no token is returned if the record may not be durable.
func TestTokenIsRecorded(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		ref         *authenticationv1.BoundObjectReference
		bound, node ledger.Object
	}{
		{},
		{&authenticationv1.BoundObjectReference{Kind: "Secret", Name: "s"}, ledger.Object{Kind: "Secret", Name: "s", UID: "s-uid"}, ledger.Object{}},
		{&authenticationv1.BoundObjectReference{Kind: "Node", Name: "n"}, ledger.Object{Kind: "Node", Name: "n", UID: "n-uid"}, ledger.Object{}},
		{&authenticationv1.BoundObjectReference{Kind: "Pod", Name: "p"}, ledger.Object{Kind: "Pod", Name: "p", UID: "p-uid"}, ledger.Object{Kind: "Node", Name: "n", UID: "n-uid"}},
	} {
		bind := func(s *authenticationv1.TokenRequestSpec) { s.BoundObjectRef = tt.ref }
		a := ask(t, "robot", spec(bind))
		sum := sha256.Sum256([]byte(a.out.Status.Token))
		want := []ledger.Token{{
			ID: "1", Namespace: "ns", Account: "robot", AccountUID: a.requests[0].ServiceAccount.UID, Audiences: []string{"api"},
			Bound: tt.bound, Node: tt.node, Issued: time.Unix(issued.Unix(), 0), Expires: time.Unix(issued.Add(time.Hour).Unix(), 0),
			Key: "the-key", Digest: ledger.Digest(sum[:]), Minter: minter,
		}}
		if !reflect.DeepEqual(a.records, want) {
			t.Errorf("records %+v, want %+v", a.records, want)
		}
	}
	a := ask(t, "robot", spec(nil), func(c *serviceaccount.TokenConfig, _ *metav1.CreateOptions) {
		c.Recorder = &records{err: errors.New("etcd is away")}
	})
	if outage.Of(a.err) == nil || a.out != nil || len(a.audited) > 0 {
		t.Errorf("without a durable record: %v, %+v, audited %v", a.err, a.out, a.audited)
	}
}
