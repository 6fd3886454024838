package process

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/rest"
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

func TestBaseName(t *testing.T) {
	t.Parallel()
	for command, want := range map[string]string{
		"/usr/bin/Python3.11": "python3-11", "./dashboard": "dashboard", "/": "process", "--": "process", "a_b": "a-b", "日本": "process",
		"/bin/[": "process", strings.Repeat("x", 100): strings.Repeat("x", maxBase),
		strings.Repeat("x", maxBase-1) + "-y": strings.Repeat("x", maxBase-1),
	} {
		got := baseName(command)
		if got != want || len(validation.IsDNS1123Label(got+"-abcde")) > 0 {
			t.Errorf("%q: %q, want %q", command, got, want)
		}
	}
}

func TestServer(t *testing.T) {
	t.Parallel()
	for host, want := range map[string][]string{
		"https://[::1]:6443": {"::1", "6443"}, "https://api.example": {"api.example", "443"}, "https://127.0.0.1:7443/": {"127.0.0.1", "7443"},
		"https://api.example/cluster/a": nil,
	} {
		server, err := ServerOf(&rest.Config{Host: host})
		if err != nil {
			t.Fatal(err)
		}
		got, err := server.environment()
		if (err != nil) != (want == nil) {
			t.Errorf("%s: %v, %v", host, got, err)
		}
		if want != nil && !slices.Equal(got, []string{serviceHost + "=" + want[0], servicePort + "=" + want[1], servicePortHTTPS + "=" + want[1]}) {
			t.Errorf("%s: %v", host, got)
		}
	}
	if _, err := ServerOf(&rest.Config{Host: "http://api.example"}); err == nil {
		t.Error("tokens are sent in the clear")
	}
}

func TestUserEnvironment(t *testing.T) {
	t.Parallel()
	env := []string{"HOME=/root", "USER=root", "XDG_RUNTIME_DIR=/run/user/0", "HOMEPAGE=x", "ODD"}
	for _, test := range []struct {
		user User
		want []string
	}{
		{User{}, env},
		{User{Other: true}, []string{"HOMEPAGE=x", "ODD"}},
		{User{Other: true, Name: "a", Home: "/home/a"}, []string{"HOMEPAGE=x", "ODD", "USER=a", "LOGNAME=a", "HOME=/home/a"}},
	} {
		if diff := cmp.Diff(test.want, test.user.environment(env)); diff != "" {
			t.Errorf("%+v: %s", test.user, diff)
		}
	}
}
