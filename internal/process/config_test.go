package process

import (
	"slices"
	"strings"
	"testing"
)

func TestParseAudience(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Audience{
		"vault=vault/token":           {"vault", "vault/token"},
		"https://x.example/?a=b=file": {"https://x.example/?a=b", "file"},
		"a=./b//c":                    {"a", "b/c"},
		"vault":                       {}, "=path": {}, "a=": {}, "a=/abs": {}, "a=../b": {}, "a=..data": {}, "a=.": {}, " a=b": {},
	} {
		got, err := ParseAudience(text)
		if got != want || (err != nil) != (want == Audience{}) {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
}

func FuzzParseAudience(f *testing.F) {
	for _, seed := range []string{"a=b", "a=../b", "=", "a==", "a=b/../c"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		a, err := ParseAudience(text)
		if err != nil {
			return
		}
		if a.Name == "" || strings.HasPrefix(a.Path, "/") || slices.Contains(strings.Split(a.Path, "/"), "..") {
			t.Errorf("%q: %+v", text, a)
		}
		if again, err := ParseAudience(a.Name + "=" + a.Path); err != nil || again != a {
			t.Errorf("%q: %+v, again %+v, %v", text, a, again, err)
		}
	})
}

func TestValidateAudiences(t *testing.T) {
	t.Parallel()
	for paths, faults := range map[string]int{
		"vault": 0, "vault db": 0, "a/token b/token": 0, "token": 1, "token/x": 1, "ca.crt namespace": 2, "a a": 1, "a/b a": 1, "a a/b": 1, "tokens": 0,
	} {
		var audiences []Audience
		for _, path := range strings.Fields(paths) {
			audiences = append(audiences, Audience{"x", path})
		}
		if errs := ValidateAudiences(audiences); len(errs) != faults {
			t.Errorf("%s: %v", paths, errs)
		}
	}
}
