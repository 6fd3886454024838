package tokenvolume

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	compbasemetrics "k8s.io/component-base/metrics"
	"k8s.io/component-base/metrics/testutil"

	"lanyard.dev/internal/token"
)

// authority answers token requests as a real authority does. Its clock may be wrong.
type authority struct {
	mu sync.Mutex
	// asked has the times of the requests.
	asked []time.Time
	specs []authenticationv1.TokenRequestSpec
	// failure, where not nil, is the answer to every request.
	failure error
	// skew is how far its clock is ahead, limit the longest lifetime that it grants, delay the time that a request takes.
	skew, limit, delay time.Duration
	underWay, most     int
	// key, account, node and audience are the properties of new tokens. Tokens with other values are refused, and so are the
	// tokens whose jti is in revoked.
	key, account, node, audience string
	revoked                      map[string]bool
	// reviewed are the times of the reviews. reviewError, where not nil, is the answer to every review.
	reviewed    []time.Time
	reviewError error
}

// review answers a review as a real authority does.
func (a *authority) review(_ context.Context, text, audience string) (bool, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.reviewed = append(a.reviewed, time.Now())
	if a.reviewError != nil {
		return false, a.reviewError
	}
	decoded, err := token.Decode(text)
	if err != nil {
		return false, err
	}
	if audience == "" {
		audience = a.ownAudience()
	}
	found := traitsOf(decoded)
	return found.key == a.key && found.account == a.uid() && found.node == a.node && found.audience == audience && !a.revoked[decoded.Claims.ID], nil
}

func (a *authority) ownAudience() string { return cmp.Or(a.audience, "https://authority") }

func (a *authority) uid() string { return cmp.Or(a.account, "a") }

func (a *authority) request(ctx context.Context, namespace, account string, r *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked, a.specs = append(a.asked, time.Now()), append(a.specs, *r.Spec.DeepCopy())
	a.underWay++
	a.most = max(a.most, a.underWay)
	if a.delay > 0 {
		a.mu.Unlock()
		select {
		case <-time.After(a.delay):
		case <-ctx.Done():
		}
		a.mu.Lock()
	}
	a.underWay--
	if a.failure != nil || ctx.Err() != nil {
		return nil, errors.Join(a.failure, ctx.Err())
	}
	answer := r.DeepCopy()
	if seconds := int64(a.limit / time.Second); a.limit > 0 && *r.Spec.ExpirationSeconds > seconds {
		answer.Spec.ExpirationSeconds = &seconds
	}
	issued := time.Now().Add(a.skew)
	expires := issued.Add(time.Duration(*answer.Spec.ExpirationSeconds) * time.Second)
	audience := append(answer.Spec.Audiences, []string{a.ownAudience()}[len(answer.Spec.Audiences):]...)
	answer.Status.ExpirationTimestamp = metav1.NewTime(expires)
	payload := claims(namespace, account, r.Spec.BoundObjectRef, audience[0], issued, expires, len(a.asked))
	payload = strings.Replace(payload, `"uid":"a"}`, fmt.Sprintf(`"uid":%q}`, a.uid()), 1)
	if a.node != "" {
		payload = strings.Replace(payload, `"serviceaccount":`, fmt.Sprintf(`"node":{"name":"n","uid":%q},"serviceaccount":`, a.node), 1)
	}
	answer.Status.Token = signedBy(a.key, payload)
	return answer, nil
}

func (a *authority) set(change func(*authority)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	change(a)
}

// reviews returns the number of reviews.
func (a *authority) reviews() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.reviewed)
}

func (a *authority) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.asked)
}

func claims(namespace, account string, pod *authenticationv1.BoundObjectReference, audience string, issued, expires time.Time, id int) string {
	return fmt.Sprintf(`{"iss":"https://authority","sub":"system:serviceaccount:%s:%s","aud":[%q],"iat":%d,"exp":%d,"jti":"%d",`+
		`"kubernetes.io":{"namespace":%q,"serviceaccount":{"name":%q,"uid":"a"},"pod":{"name":%q,"uid":%q}}}`,
		namespace, account, audience, issued.Unix(), expires.Unix(), id, namespace, account, pod.Name, pod.UID)
}

// signed returns a token whose signature is not valid.
func signed(payload string) string { return signedBy("", payload) }

func signedBy(key, payload string) string {
	encode := base64.RawURLEncoding.EncodeToString
	return encode(fmt.Appendf(nil, `{"alg":"ES256","kid":%q}`, key)) + "." + encode([]byte(payload)) + "." + encode([]byte("secret-signature"))
}

func podNamed(name string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID("uid-of-" + name)},
		Spec:       corev1.PodSpec{ServiceAccountName: "dashboard-sa"},
	}
}

func projection(audience string, seconds int64) *corev1.ServiceAccountTokenProjection {
	return &corev1.ServiceAccountTokenProjection{Audience: audience, ExpirationSeconds: &seconds, Path: "token"}
}

// running returns Tokens that run in a bubble of simulated time until the test ends.
func running(t *testing.T, config TokensConfig) *Tokens {
	t.Helper()
	tokens := NewTokens(config)
	ctx, cancel := context.WithCancel(t.Context())
	expired := make(chan struct{})
	go func() {
		defer close(expired)
		tokens.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-expired
	})
	return tokens
}

func get(t *testing.T, tokens *Tokens, pod *corev1.Pod, source *corev1.ServiceAccountTokenProjection) string {
	t.Helper()
	text, err := tokens.Get(t.Context(), pod, source)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func simulate(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, test)
}

// elapse lets simulated time pass, and waits until all goroutines of the bubble are idle.
func elapse(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestGetAsksOnceAndForThePod(t *testing.T) {
	simulate(t, func(t *testing.T) {
		var a authority
		tokens := running(t, TokensConfig{Request: a.request})
		pod := podNamed("dashboard")
		first := get(t, tokens, pod, projection("", 3607))
		if again := get(t, tokens, pod, projection("", 3607)); again != first {
			t.Error("another token was returned while the first is valid")
		}
		if other := get(t, tokens, pod, projection("vault", 600)); other == first {
			t.Error("one token was returned for two audiences")
		}
		if len(a.specs) != 2 {
			t.Fatalf("%d requests, want 2", len(a.specs))
		}
		ref := a.specs[0].BoundObjectRef
		if len(a.specs[0].Audiences) != 0 || *a.specs[0].ExpirationSeconds != 3607 || *ref != (authenticationv1.BoundObjectReference{
			Kind: "Pod", APIVersion: "v1", Name: "dashboard", UID: pod.UID}) {
			t.Errorf("asked for %+v", a.specs[0])
		}
		if a.specs[1].Audiences[0] != "vault" || *a.specs[1].ExpirationSeconds != 600 {
			t.Errorf("asked for %+v", a.specs[1])
		}
	})
}

func TestTokenIsRenewedInTime(t *testing.T) {
	for name, test := range map[string]struct {
		seconds     int64
		skew, limit time.Duration
		from, to    time.Duration
	}{
		"an hour":                 {3600, 0, 0, 36 * time.Minute, 48 * time.Minute},
		"ten minutes":             {600, 0, 0, 6 * time.Minute, 8 * time.Minute},
		"a month":                 {30 * 86400, 0, 0, 18 * time.Hour, 24 * time.Hour},
		"authority's clock ahead": {3600, 50 * time.Minute, 0, 36 * time.Minute, 48 * time.Minute},
		"authority's clock late":  {3600, -3 * time.Hour, 0, 36 * time.Minute, 48 * time.Minute},
		"shortened":               {86400, 0, time.Hour, 36 * time.Minute, 48 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(t *testing.T) {
				a := authority{skew: test.skew, limit: test.limit}
				renewed := 0
				tokens := running(t, TokensConfig{Request: a.request, Renewed: func(types.UID) { renewed++ }})
				pod := podNamed("p")
				first := get(t, tokens, pod, projection("", test.seconds))
				elapse(test.from - time.Second)
				if a.count() != 1 || get(t, tokens, pod, projection("", test.seconds)) != first {
					t.Error("renewed too early")
				}
				elapse(test.to - test.from + 2*time.Second)
				if a.count() != 2 || renewed != 1 || get(t, tokens, pod, projection("", test.seconds)) == first {
					t.Errorf("%d requests and %d reported renewals; want 2 and 1", a.count(), renewed)
				}
				tokens.Forget(pod.UID)
				elapse(48 * time.Hour)
				if a.count() != 2 {
					t.Error("renewed for a pod that was forgotten")
				}
			})
		})
	}
}

// TestManyPodsAreRenewedWithoutABurst creates 500 pods in one second and counts their requests over several periods.
func TestManyPodsAreRenewedWithoutABurst(t *testing.T) {
	const pods = 500
	for name, test := range map[string]struct {
		seconds int64
		// most is the maximum number of requests in any second. 500 renewals of 10-minute tokens are 4.2 per second on average.
		most    int
		periods int
	}{
		"tokens of pods": {3607, 7, 5}, "shortest tokens": {600, 16, 8},
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(t *testing.T) {
				random := rand.New(rand.NewPCG(1, 2))
				var a authority
				tokens := running(t, TokensConfig{Request: a.request, Random: random.Float64})
				for i := range pods {
					get(t, tokens, podNamed(fmt.Sprint(i)), projection("", test.seconds))
				}
				a.set(func(a *authority) { a.asked = nil })
				elapse(time.Duration(test.periods) * time.Duration(test.seconds) * time.Second * 4 / 5)
				perSecond := map[int64]int{}
				for _, at := range a.asked {
					perSecond[at.Unix()]++
				}
				most := 0
				for _, n := range perSecond {
					most = max(most, n)
				}
				t.Logf("%d renewals of %d pods, at most %d in one second", len(a.asked), pods, most)
				if most > test.most {
					t.Errorf("%d requests in one second, want %d at most", most, test.most)
				}
				if least := pods * (test.periods - 1); len(a.asked) < least {
					t.Errorf("%d renewals, want %d at least", len(a.asked), least)
				}
			})
		})
	}
}

// TestAuthorityAway has the authority fail for hours. Requests do not become frequent, each pod's failure is reported twice,
// and all tokens are renewed soon after the authority is back.
func TestAuthorityAway(t *testing.T) {
	simulate(t, func(t *testing.T) {
		const pods = 100
		var a authority
		reported := map[types.UID]int{}
		var mu sync.Mutex
		tokens := running(t, TokensConfig{Request: a.request, Failed: func(uid types.UID, err error) {
			mu.Lock()
			defer mu.Unlock()
			reported[uid]++
			if strings.Contains(err.Error(), "secret-signature") || strings.Contains(err.Error(), "eyJ") {
				t.Errorf("the error contains the token: %v", err)
			}
		}})
		for i := range pods {
			get(t, tokens, podNamed(fmt.Sprint(i)), projection("", 3600))
		}
		a.set(func(a *authority) { a.failure, a.asked = errors.New("connection refused"), nil })
		elapse(59 * time.Minute)
		if got := get(t, tokens, podNamed("7"), projection("", 3600)); got == "" {
			t.Error("Get does not return the old token while it is valid")
		}
		elapse(time.Minute)
		before := a.count()
		elapse(time.Hour)
		// Every token is requested every 30 to 60 seconds.
		if tries := a.count() - before; tries < pods*60 || tries > pods*130 {
			t.Errorf("%d requests in an hour for %d pods", tries, pods)
		}
		if _, err := tokens.Get(t.Context(), podNamed("7"), projection("", 3600)); err == nil || !strings.Contains(err.Error(), "connection refused") {
			t.Errorf("got %v after the token has ended", err)
		}
		if len(reported) != pods || reported["uid-of-7"] != 2 {
			t.Errorf("failures of %d pods were reported, of one pod %d times; want %d and 2", len(reported), reported["uid-of-7"], pods)
		}
		a.set(func(a *authority) { a.failure, a.asked = nil, nil })
		elapse(time.Minute + 10*time.Second)
		if a.count() != pods {
			t.Errorf("%d tokens were renewed within 70 s, want %d", a.count(), pods)
		}
		for i := 20; i < len(a.asked); i++ {
			if gap := a.asked[i].Sub(a.asked[i-20]); gap < 20*spacing {
				t.Fatalf("20 renewals within %v", gap)
			}
		}
	})
}

func TestRequestsInFlightAreBounded(t *testing.T) {
	simulate(t, func(t *testing.T) {
		a := authority{delay: 5 * time.Second}
		tokens := running(t, TokensConfig{Request: a.request})
		var all sync.WaitGroup
		for i := range 40 {
			all.Go(func() {
				if _, err := tokens.Get(t.Context(), podNamed(fmt.Sprint(i)), projection("", 600)); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		elapse(time.Hour)
		if a.most != inFlight {
			t.Errorf("%d requests were under way at once, want %d", a.most, inFlight)
		}
	})
}

func TestAHangingAuthorityDoesNotBlockForever(t *testing.T) {
	simulate(t, func(t *testing.T) {
		a := authority{delay: time.Hour}
		tokens := running(t, TokensConfig{Request: a.request})
		if _, err := tokens.Get(t.Context(), podNamed("p"), projection("", 600)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := tokens.Get(ctx, podNamed("p"), projection("", 600)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
}

func TestTheTokenOfADeletedPodIsNotRenewed(t *testing.T) {
	pods := corev1.Resource("pods")
	for name, test := range map[string]struct {
		answer error
		tries  func(int) bool
	}{
		"deleted":             {apierrors.NewNotFound(pods, "p"), func(n int) bool { return n == 1 }},
		"another of the name": {apierrors.NewConflict(pods, "p", errors.New("the UID does not match")), func(n int) bool { return n == 1 }},
		"another's pod":       {apierrors.NewNotFound(pods, "q"), func(n int) bool { return n > 50 }},
		"account deleted":     {apierrors.NewNotFound(corev1.Resource("serviceaccounts"), "p"), func(n int) bool { return n > 50 }},
		"not known yet":       {apierrors.NewForbidden(pods, "p", errors.New("no relationship found")), func(n int) bool { return n > 50 }},
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(t *testing.T) {
				var a authority
				tokens := running(t, TokensConfig{Request: a.request})
				first := get(t, tokens, podNamed("p"), projection("", 3600))
				a.set(func(a *authority) { a.failure, a.asked = test.answer, nil })
				elapse(50 * time.Minute)
				if get(t, tokens, podNamed("p"), projection("", 3600)) != first {
					t.Error("the token changed")
				}
				elapse(time.Hour)
				if !test.tries(a.count()) {
					t.Errorf("asked %d times", a.count())
				}
			})
		})
	}
}

func TestAdopt(t *testing.T) {
	now := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC) // when every bubble begins
	pod := podNamed("p")
	self := &authenticationv1.BoundObjectReference{Name: "p", UID: pod.UID}
	other := &authenticationv1.BoundObjectReference{Name: "p", UID: "another"}
	made := func(ref *authenticationv1.BoundObjectReference, audience string, age, lifetime time.Duration) string {
		return signed(claims("shop", "dashboard-sa", ref, audience, now.Add(-age), now.Add(lifetime-age), 1))
	}
	for name, test := range map[string]struct {
		text     string
		audience string
		want     bool
	}{
		"fresh":               {made(self, "vault", time.Minute, time.Hour), "vault", true},
		"default audience":    {made(self, "https://authority", time.Minute, time.Hour), "", true},
		"shortened":           {made(self, "vault", time.Minute, 30*time.Minute), "vault", true},
		"due":                 {made(self, "vault", 59*time.Minute, time.Hour), "vault", true},
		"ended":               {made(self, "vault", time.Hour, time.Hour), "vault", false},
		"too long":            {made(self, "vault", time.Minute, 61*time.Minute), "vault", false},
		"other audience":      {made(self, "bank", time.Minute, time.Hour), "vault", false},
		"other pod":           {made(other, "vault", time.Minute, time.Hour), "vault", false},
		"from the future":     {made(self, "vault", -time.Hour, time.Hour), "vault", false},
		"of another account":  {signed(claims("shop", "admin", self, "vault", now, now.Add(time.Hour), 1)), "vault", false},
		"of another place":    {signed(claims("bank", "dashboard-sa", self, "vault", now, now.Add(time.Hour), 1)), "vault", false},
		"no times":            {signed(`{"kubernetes.io":{"pod":{"name":"p","uid":"uid-of-p"}}}`), "", false},
		"no claims":           {signed(`{}`), "", false},
		"no token":            {"hello", "", false},
		"much too long":       {strings.Repeat("a", 1<<20), "", false},
		"nothing":             {"", "", false},
		"two audiences, ours": {signed(strings.Replace(claims("shop", "dashboard-sa", self, "vault", now, now.Add(time.Hour), 1), `["vault"]`, `["vault","x"]`, 1)), "vault", false},
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(t *testing.T) {
				var a authority
				tokens := running(t, TokensConfig{Request: a.request})
				if got := tokens.Adopt(pod, projection(test.audience, 3600), test.text); got != test.want {
					t.Fatalf("Adopt = %v, want %v", got, test.want)
				}
				got := get(t, tokens, pod, projection(test.audience, 3600))
				if adopted := got == test.text && a.count() == 0; adopted != test.want {
					t.Errorf("%d requests; want the token taken over: %v", a.count(), test.want)
				}
				elapse(48*time.Minute + time.Second)
				if got == get(t, tokens, pod, projection(test.audience, 3600)) {
					t.Error("it was not renewed")
				}
			})
		})
	}
}

func TestMetrics(t *testing.T) {
	simulate(t, func(t *testing.T) {
		var a authority
		registry := compbasemetrics.NewKubeRegistry()
		tokens := running(t, TokensConfig{Request: a.request, Metrics: registry})
		get(t, tokens, podNamed("p"), projection("", 3600))
		elapse(50 * time.Minute)
		left, _ := tokens.untilExpiry()
		want := fmt.Sprintf(`# HELP lanyard_token_earliest_expiry_seconds [ALPHA] Seconds until the first of the pods' tokens expires; below 0 if one has expired. Absent if there is no token.
# TYPE lanyard_token_earliest_expiry_seconds gauge
lanyard_token_earliest_expiry_seconds %v
# HELP lanyard_token_renewals_total [ALPHA] Renewals of pods' tokens, by result (success, error). Programs that read their token only once are refused some time after a success.
# TYPE lanyard_token_renewals_total counter
lanyard_token_renewals_total{result="success"} 1
# HELP lanyard_token_requests_total [ALPHA] Tokens that the agent requested from the authority, by reason (initial, renewal) and result (success, error).
# TYPE lanyard_token_requests_total counter
lanyard_token_requests_total{reason="initial",result="success"} 1
lanyard_token_requests_total{reason="renewal",result="success"} 1
`, left.Seconds())
		if err := testutil.GatherAndCompare(registry, strings.NewReader(want)); err != nil {
			t.Error(err)
		}
	})
}

// FuzzTakeOver checks that takeOver accepts no text but a valid token of this pod.
func FuzzTakeOver(f *testing.F) {
	now := time.Unix(1_800_000_000, 0)
	self := &authenticationv1.BoundObjectReference{Name: "p", UID: "u"}
	f.Add(signed(claims("shop", "a", self, "vault", now, now.Add(time.Hour), 1)))
	f.Add(signed(claims("shop", "a", self, "vault", now.Add(-time.Hour), now.Add(time.Second), 1)))
	f.Add("a.b.c")
	f.Fuzz(func(t *testing.T, text string) {
		found, ok := takeOver(text, tokenSpec{"u", "vault", time.Hour}, podRef{"shop", "p", "a"}, now)
		if ok && (found.text != text || !found.expires.After(now) || found.expires.Sub(found.issued) > time.Hour) {
			t.Errorf("took over a token of %v to %v", found.issued, found.expires)
		}
	})
}
