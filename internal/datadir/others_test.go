package datadir

import (
	"errors"
	"strings"
	"testing"

	"lanyard.dev/internal/hint"
)

func TestIsUp(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]bool{
		"lanyard up":              true,
		"/usr/bin/lanyard up -v1": true,
		"lanyard":                 false,
		"lanyard exec -- x up":    false,
		"lanyards up":             false,
		"up lanyard":              false,
		"":                        false,
	} {
		if got := isUp([]byte(strings.ReplaceAll(args, " ", "\x00") + "\x00")); got != want {
			t.Errorf("%q: %v", args, got)
		}
	}
}

func FuzzIsUp(f *testing.F) {
	f.Add([]byte("lanyard\x00up\x00"))
	f.Fuzz(func(t *testing.T, commandLine []byte) {
		if isUp(commandLine) && !strings.Contains(string(commandLine), "lanyard\x00up\x00") {
			t.Errorf("%q is taken for lanyard up", commandLine)
		}
	})
}

func TestNoneRunningNamesOtherProcesses(t *testing.T) {
	t.Parallel()
	mine := Process{PID: 1, User: "ann", Mine: true}
	root, ben := Process{PID: 2, User: "root"}, Process{PID: 3, User: "ben"}
	tests := map[string]struct {
		others []Process
		root   bool
		want   []string
	}{
		"nothing":   {nil, false, []string{"start one with lanyard up, or name a kubeconfig with --kubeconfig or KUBECONFIG"}},
		"root's":    {[]Process{root}, false, []string{"user root runs lanyard up (process 2), whose kubeconfig you may not read", "lanyard user kubeconfig", "use sudo, or start one with lanyard up"}},
		"another's": {[]Process{ben, root}, false, []string{"user ben runs lanyard up (process 3), whose kubeconfig", "use sudo -u ben, or"}},
		"as root":   {[]Process{ben}, true, []string{"user ben runs lanyard up (process 3): name its kubeconfig"}},
		"mine":      {[]Process{mine}, false, []string{"this user runs lanyard up (process 1), noted elsewhere or not yet", "LANYARD_RUNTIME_DIR"}},
		"many":      {[]Process{ben, ben, root, ben, ben}, false, []string{"user ben runs lanyard up (processes 3, 3, 3), whose kubeconfig"}},
	}
	for name, test := range tests {
		err := noneRunning(test.others, test.root)
		if !errors.Is(err, ErrNoneRunning) || err.Error() != ErrNoneRunning.Error() {
			t.Errorf("%s: %v", name, err)
		}
		for _, want := range test.want {
			if !strings.Contains(hint.Of(err), want) {
				t.Errorf("%s: hint %q lacks %q", name, hint.Of(err), want)
			}
		}
	}
}
