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
	env := []string{"HOME=/root", "USER=root", "PATH=/private/bin", "TERM=vt100", "AWS_SECRET_ACCESS_KEY=x", "LANG=C", "LD_PRELOAD=x.so", "ODD"}
	unknown := []string{"HOME=/", "SHELL=/bin/sh", "PATH=/usr/local/bin:/usr/bin:/bin", "TERM=vt100"}
	known := []string{"HOME=/home/a", "SHELL=/bin/zsh", "PATH=/usr/local/bin:/usr/bin:/bin", "USER=a", "LOGNAME=a", "TERM=vt100"}
	for name, test := range map[string]struct {
		user     User
		preserve []string
		want     []string
	}{
		"self":      {User{}, nil, env},
		"a number":  {User{Other: true, UID: 5}, nil, unknown},
		"a user":    {User{Other: true, UID: 5, Name: "a", Home: "/home/a", Shell: "/bin/zsh"}, nil, known},
		"preserved": {User{Other: true, UID: 5}, []string{"LANG", "HOME", "ABSENT"}, []string{"SHELL=/bin/sh", "PATH=/usr/local/bin:/usr/bin:/bin", "HOME=/root", "TERM=vt100", "LANG=C"}},
		"root":      {User{Other: true}, nil, []string{"HOME=/", "SHELL=/bin/sh", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=vt100"}},
	} {
		if diff := cmp.Diff(test.want, test.user.environment(env, test.preserve)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestFindShell(t *testing.T) {
	t.Parallel()
	users := "root:x:0:0:root:/root:/bin/bash\na:x:1:1::/home/a:/bin/zsh\nshort:x:1\nnone:x:2:2::/:\n"
	for name, want := range map[string]string{"root": "/bin/bash", "a": "/bin/zsh", "short": "", "none": "", "absent": "", "": ""} {
		if got := findShell(strings.NewReader(users), name); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}

func FuzzFindShell(f *testing.F) {
	f.Add("a:x:1:1::/home/a:/bin/zsh", "a")
	f.Fuzz(func(t *testing.T, users, name string) {
		if shell := findShell(strings.NewReader(users), name); !strings.Contains(users, shell) || strings.ContainsAny(shell, ":\n") {
			t.Errorf("the shell of %q is %q", name, shell)
		}
	})
}

func TestValidateCrossing(t *testing.T) {
	t.Parallel()
	if errs := ValidateCrossing([]string{"LANG", "a.b"}, []int{3, 1 << 20}); errs != nil {
		t.Error(errs)
	}
	if errs := ValidateCrossing([]string{"", "A=b"}, []int{2, -1, 1<<20 + 1}); len(errs) != 5 {
		t.Error(errs)
	}
}
