package runas

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

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
		if diff := cmp.Diff(test.want, test.user.Environment(env, test.preserve)); diff != "" {
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

func TestValidateInherited(t *testing.T) {
	t.Parallel()
	if errs := ValidateInherited([]string{"LANG", "a.b"}, []int{3, 1 << 20}); errs != nil {
		t.Error(errs)
	}
	if errs := ValidateInherited([]string{"", "A=b"}, []int{2, -1, 1<<20 + 1}); len(errs) != 5 {
		t.Error(errs)
	}
}
