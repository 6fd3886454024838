package bootstraptoken_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	testingclock "k8s.io/utils/clock/testing"

	"lanyard.dev/internal/bootstraptoken"
)

const text = "abcdef.0123456789abcdef"

var now = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

type source struct{ err error }

func (s *source) Fresh() error { return s.err }

func parse(t testing.TB, text string) bootstraptoken.Token {
	t.Helper()
	token, ok := bootstraptoken.Parse(text)
	if !ok {
		t.Fatalf("%q is not a token", text)
	}
	return token
}

func TestParse(t *testing.T) {
	t.Parallel()
	if parse(t, text).Reveal() != text || parse(t, text).ID() != "abcdef" {
		t.Error("a token is not read as it was written")
	}
	for _, bad := range []string{
		"", "abcdef", "abcdef.", "abcdef.0123456789abcde", "abcdef.0123456789abcdef0", "abcdef-0123456789abcdef",
		"ABCDEF.0123456789abcdef", "abcdef.0123456789ABCDEF", "abcde.f0123456789abcdef", " abcdef.0123456789abcde",
		"abcdef.0123456789abcde\n", "abcdéf.0123456789abcde", "abcdef.0123456789abc.ef",
	} {
		if _, ok := bootstraptoken.Parse(bad); ok {
			t.Errorf("%q is taken for a token", bad)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(text)
	f.Add("eyJhbGciOiJFUzI1NiJ9.e30.c2ln")
	f.Fuzz(func(t *testing.T, in string) {
		token, ok := bootstraptoken.Parse(in)
		if ok && token.Reveal() != in {
			t.Errorf("%q reads as %q", in, token.Reveal())
		}
	})
}

func TestNewIsRandomAndHidesItself(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for range 200 {
		token := bootstraptoken.New()
		if _, ok := bootstraptoken.Parse(token.Reveal()); !ok || seen[token.Reveal()] {
			t.Fatalf("made %q", token.Reveal())
		}
		seen[token.Reveal()] = true
		secret := token.Reveal()[7:]
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
			if shown := fmt.Sprintf(verb, token); strings.Contains(shown, secret) {
				t.Errorf("%s shows the secret", verb)
			}
		}
	}
}

func TestVerify(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		change func(*corev1.Secret)
		give   string
		err    string // empty if it holds
		groups []string
	}{
		{name: "whole", groups: []string{"system:bootstrappers"}},
		{name: "wrong secret", give: "abcdef.0123456789abcdeg", err: "no such bootstrap token"},
		{name: "wrong id", give: "abcdeg.0123456789abcdef", err: "no such bootstrap token"},
		{name: "no secret stored", change: func(s *corev1.Secret) { delete(s.Data, "token-secret") }, err: "no such bootstrap token"},
		{name: "other namespace", change: func(s *corev1.Secret) { s.Namespace = "default" }, err: "no such bootstrap token"},
		{name: "other type", change: func(s *corev1.Secret) { s.Type = corev1.SecretTypeOpaque }, err: "no such bootstrap token"},
		{name: "other name", change: func(s *corev1.Secret) { s.Name = "abcdef" }, err: "no such bootstrap token"},
		{name: "name that is no id", change: func(s *corev1.Secret) { s.Name += "x" }, err: "no such bootstrap token"},
		{name: "another's id", change: func(s *corev1.Secret) { s.Data["token-id"] = []byte("fedcba") }, err: "bootstrap token abcdef: token-id does not match the secret's name"},
		{name: "being deleted", change: func(s *corev1.Secret) { s.DeletionTimestamp = &metav1.Time{Time: now} }, err: "no such bootstrap token"},
		{name: "expired", change: func(s *corev1.Secret) { s.Data["expiration"] = []byte("2026-06-01T12:00:00Z") }, err: "bootstrap token abcdef: it has expired"},
		{name: "not yet expired", change: func(s *corev1.Secret) { s.Data["expiration"] = []byte("2026-06-01T12:00:01Z") }, groups: []string{"system:bootstrappers"}},
		{name: "expiration elsewhere", change: func(s *corev1.Secret) { s.Data["expiration"] = []byte("2026-06-01T13:59:00+02:00") }, err: "bootstrap token abcdef: it has expired"},
		{name: "unreadable expiration", change: func(s *corev1.Secret) { s.Data["expiration"] = []byte("tomorrow") }, err: "bootstrap token abcdef: it has expired"},
		{name: "not for authentication", change: func(s *corev1.Secret) { delete(s.Data, "usage-bootstrap-authentication") }, err: "bootstrap token abcdef: it is not marked usage-bootstrap-authentication=true"},
		{name: "almost for authentication", change: func(s *corev1.Secret) { s.Data["usage-bootstrap-authentication"] = []byte("True") }, err: "bootstrap token abcdef: it is not marked usage-bootstrap-authentication=true"},
		{name: "more groups", change: func(s *corev1.Secret) {
			s.Data["auth-extra-groups"] = []byte("system:bootstrappers:z,system:bootstrappers:edge:a")
		},
			groups: []string{"system:bootstrappers", "system:bootstrappers:edge:a", "system:bootstrappers:z"}},
		{name: "foreign group", change: func(s *corev1.Secret) { s.Data["auth-extra-groups"] = []byte("system:masters") },
			err: "bootstrap token abcdef: auth-extra-groups: bootstrap group \"system:masters\" is invalid"},
		{name: "one foreign group of two", change: func(s *corev1.Secret) { s.Data["auth-extra-groups"] = []byte("system:bootstrappers:a,system:nodes") },
			err: "bootstrap token abcdef: auth-extra-groups: bootstrap group \"system:nodes\" is invalid"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			memory := bootstraptoken.NewMemory(&source{}, testingclock.NewFakePassiveClock(now))
			secret := bootstraptoken.NewSecret(parse(t, text), bootstraptoken.Spec{})
			if test.change != nil {
				test.change(secret)
			}
			memory.Set(secret)
			give := test.give
			if give == "" {
				give = text
			}
			entry, err := memory.Verify(parse(t, give))
			if test.err == "" && (err != nil || entry.User() != "system:bootstrap:abcdef" || !slices.Equal(entry.Groups, test.groups)) {
				t.Errorf("got %v %v, %v", entry.User(), entry.Groups, err)
			}
			if test.err != "" && (err == nil || !strings.HasPrefix(err.Error(), test.err)) {
				t.Errorf("got %v, want %s", err, test.err)
			}
			if err != nil && strings.Contains(err.Error(), "0123456789") {
				t.Error("the error holds the secret")
			}
		})
	}
}

func TestMemoryFollowsItsFeed(t *testing.T) {
	t.Parallel()
	clock := testingclock.NewFakePassiveClock(now)
	feed := &source{}
	memory := bootstraptoken.NewMemory(feed, clock)
	token := parse(t, text)
	memory.Set(bootstraptoken.NewSecret(token, bootstraptoken.Spec{Expires: now.Add(time.Minute)}))
	check := func(when string, want error, holds bool) {
		t.Helper()
		if _, err := memory.Verify(token); (err == nil) != holds || want != nil && !errors.Is(err, want) {
			t.Errorf("%s: %v", when, err)
		}
	}
	check("at once", nil, true)
	feed.err = errors.New("stale")
	check("stale", feed.err, false)
	feed.err = nil
	clock.SetTime(now.Add(time.Minute))
	check("expired", nil, false)
	memory.Set(bootstraptoken.NewSecret(token, bootstraptoken.Spec{Expires: now.Add(time.Hour)}))
	check("prolonged", nil, true)
	memory.Delete(&metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "bootstrap-token-abcdef"}})
	check("another namespace's secret removed", nil, true)
	memory.Delete(&metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "bootstrap-token-abcdef"}})
	check("removed", bootstraptoken.ErrUnknown, false)
}

func TestSecretRoundTrip(t *testing.T) {
	t.Parallel()
	spec := bootstraptoken.Spec{Description: "rack 4", Expires: now, ExtraGroups: []string{"system:bootstrappers:edge"}}
	entry, err := bootstraptoken.FromSecret(bootstraptoken.NewSecret(parse(t, text), spec))
	if err != nil || entry.Description != "rack 4" || !entry.Expires.Equal(now) || len(entry.Groups) != 2 {
		t.Errorf("got %+v, %v", entry, err)
	}
	if _, err := bootstraptoken.FromSecret(&corev1.Secret{}); !errors.Is(err, bootstraptoken.ErrNotBootstrap) {
		t.Errorf("another secret: %v", err)
	}
}

func TestSecretWithoutGroups(t *testing.T) {
	t.Parallel()
	secret := bootstraptoken.NewSecret(parse(t, text), bootstraptoken.Spec{})
	if value, ok := secret.Data["auth-extra-groups"]; ok {
		t.Errorf("it names groups %q", value)
	}
}

func TestCheckGroup(t *testing.T) {
	t.Parallel()
	for group, want := range map[string]bool{"system:bootstrappers:edge": true, "system:masters": false, "": false} {
		if err := bootstraptoken.CheckGroup(group); (err == nil) != want {
			t.Errorf("%q: %v, want allowed=%v", group, err, want)
		}
	}
}

func TestFaults(t *testing.T) {
	t.Parallel()
	set := func(key, value string) func(*corev1.Secret) {
		return func(s *corev1.Secret) { s.Data[key] = []byte(value) }
	}
	for name, test := range map[string]struct {
		change func(*corev1.Secret)
		want   string
	}{
		"none":                {func(*corev1.Secret) {}, ""},
		"another type":        {func(s *corev1.Secret) { s.Type, s.Data = corev1.SecretTypeOpaque, nil }, ""},
		"another namespace":   {func(s *corev1.Secret) { s.Namespace = "default" }, "metadata.namespace: only secrets in kube-system"},
		"another name":        {func(s *corev1.Secret) { s.Name = "mine" }, "metadata.name: must be bootstrap-token-ID"},
		"the name of another": {func(s *corev1.Secret) { s.Name = "bootstrap-token-bbbbbb" }, "metadata.name: must be bootstrap-token-ID"},
		"ID":                  {set("token-id", "ABCDEF"), "data[token-id]: must be six characters"},
		"secret":              {set("token-secret", "hunter2"), "data[token-secret]: must be sixteen characters"},
		"secret of dots":      {set("token-secret", "0123456789abc.ef"), "data[token-secret]: must be sixteen characters"},
		"time":                {set("expiration", "tomorrow"), "data[expiration]: must be a time as in RFC 3339"},
		"past":                {set("expiration", now.Format(time.RFC3339)), "data[expiration]: is past"},
		"future":              {set("expiration", now.Add(time.Second).Format(time.RFC3339)), ""},
		"disabled":            {set("usage-bootstrap-authentication", "True"), `data[usage-bootstrap-authentication]: is not "true"`},
		"signing":             {set("usage-bootstrap-signing", "true"), "data[usage-bootstrap-signing]: has no effect"},
		"no signing":          {set("usage-bootstrap-signing", "false"), ""},
		"group":               {set("auth-extra-groups", "system:bootstrappers:edge,system:masters"), "data[auth-extra-groups]: each group must match"},
		"groups":              {set("auth-extra-groups", "system:bootstrappers:edge"), ""},
		"unknown key":         {set("expiry", "hunter2"), "data[expiry]: has no meaning"},
	} {
		s := bootstraptoken.NewSecret(parse(t, text), bootstraptoken.Spec{Description: "hunter2"})
		test.change(s)
		got := bootstraptoken.Faults(s, now)
		if test.want == "" && len(got) > 0 || test.want != "" && (len(got) != 1 || !strings.HasPrefix(got[0], test.want)) {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
		if all := strings.Join(got, "\n"); strings.Contains(all, "hunter2") || strings.Contains(all, "0123456789") {
			t.Errorf("%s: a value is quoted: %q", name, all)
		}
	}
	empty := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "x"}, Type: corev1.SecretTypeBootstrapToken}
	if got := bootstraptoken.Faults(empty, now); len(got) != 3 {
		t.Errorf("an empty one: %q, want its ID, its secret, and that it is disabled", got)
	}
}
