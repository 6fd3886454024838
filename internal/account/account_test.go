package account_test

import (
	"strings"
	"testing"

	"lanyard.dev/internal/account"
)

func TestParse(t *testing.T) {
	t.Parallel()
	web := account.Name{Namespace: "prod", Name: "web"}
	for text, want := range map[string]account.Name{
		"prod/web": web, "sa:prod/web": web, "serviceaccount:prod/web": web, "prod:web": web,
		"system:serviceaccount:prod:web": web, "web": {Name: "web"}, "sa/web": {Namespace: "sa", Name: "web"},
		"prod/web.v1": {Namespace: "prod", Name: "web.v1"},
	} {
		if got, err := account.Parse(text); err != nil || got != want {
			t.Errorf("%q: %+v, %v; want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", "/", ":", "prod/", "/web", "prod:", ":web", "sa:", "sa:web", "serviceaccount:web", "sa:prod:web", "sa:serviceaccount:prod/web", "a/b/c", "a:b:c",
		"prod/web:x", "user:prod/web", "system:serviceaccount:", "system:serviceaccount:prod", "system:serviceaccount:prod:", "system:serviceaccount::web",
		"system:serviceaccount:prod/web", "system:serviceaccount:prod:web:x", "system:node:a", "Prod/web", "prod/Web", "a.b/web", " prod/web", "--",
		strings.Repeat("a", 254), strings.Repeat("a", 64) + "/web", strings.Repeat("a", 1<<20),
	} {
		got, err := account.Parse(text)
		if err == nil {
			t.Errorf("%.40q is read as %+v", text, got)
		} else if len(err.Error()) > 1000 {
			t.Errorf("%.40q: the error has %d characters", text, len(err.Error()))
		}
	}
}

func TestLongSpellings(t *testing.T) {
	t.Parallel()
	for length, tooLong := range map[int]bool{512: false, 513: true} {
		if _, err := account.Parse(strings.Repeat("a", length)); err == nil || strings.Contains(err.Error(), "at most 512") != tooLong {
			t.Errorf("%d characters: %v", length, err)
		}
	}
}

func TestSpellings(t *testing.T) {
	t.Parallel()
	n := account.Name{Namespace: "prod", Name: "web"}
	if got := n.String(); got != "prod/web" {
		t.Error(got)
	}
	if got := (account.Name{Name: "web"}).String(); got != "web" {
		t.Error(got)
	}
	if got := n.User(); got != "system:serviceaccount:prod:web" {
		t.Error(got)
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{"web", "prod/web", "sa:prod/web", "system:serviceaccount:prod:web", "prod:web", "sa:web", "a/b/c"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		n, err := account.Parse(text)
		if err != nil {
			return
		}
		for _, spelling := range []string{n.String(), n.User()} {
			if n.Namespace == "" && spelling == n.User() {
				continue
			}
			// An account in the namespace "sa" is written sa/NAME, which has no prefix.
			if again, err := account.Parse(spelling); err != nil || again != n {
				t.Errorf("%q is %+v, and its spelling %q is %+v, %v", text, n, spelling, again, err)
			}
		}
	})
}
