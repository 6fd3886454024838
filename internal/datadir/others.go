package datadir

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strings"

	"lanyard.dev/internal/hint"
)

// Process is a lanyard up that FindRunning does not find: another user's, or
// one that is noted elsewhere or not yet.
type Process struct {
	PID  int
	User string // whose it is
	Mine bool   // it is this user's
}

// maxNamed bounds how many processes a hint names.
const maxNamed = 3

// maxCommandLine is far above the beginning of a command line that isUp reads.
const maxCommandLine = 4 << 10

// isUp reads a command line whose arguments each end with a zero byte.
func isUp(commandLine []byte) bool {
	args := bytes.Split(commandLine, []byte{0})
	return len(args) > 2 && filepath.Base(string(args[0])) == "lanyard" && string(args[1]) == "up"
}

// noneRunning returns ErrNoneRunning with a hint about the other processes and
// how to use them. root reports whether this user may read every kubeconfig.
func noneRunning(others []Process, root bool) error {
	const start = "start one with lanyard up"
	if len(others) == 0 {
		return hint.New(ErrNoneRunning, start+", or name a kubeconfig with --kubeconfig or KUBECONFIG")
	}
	first, described := others[0], describe(others)
	switch {
	case first.Mine:
		return hint.New(ErrNoneRunning, fmt.Sprintf("%s, noted elsewhere or not yet (LANYARD_RUNTIME_DIR and XDG_RUNTIME_DIR say where): "+
			"name its kubeconfig, which it printed at its start, with --kubeconfig or KUBECONFIG, or %s", described, start))
	case root:
		return hint.New(ErrNoneRunning, fmt.Sprintf("%s: name its kubeconfig, which it printed at its start, with --kubeconfig or KUBECONFIG, or %s", described, start))
	}
	as := "sudo -u " + first.User
	if first.User == "root" {
		as = "sudo"
	}
	return hint.New(ErrNoneRunning, fmt.Sprintf("%s, whose kubeconfig you may not read: name one of your own with --kubeconfig or KUBECONFIG "+
		"(an administrator makes it with lanyard user kubeconfig), use %s, or %s", described, as, start))
}

// describe names the processes of the first user.
func describe(others []Process) string {
	first := others[0]
	var pids []string
	for _, other := range others {
		if other.User == first.User && len(pids) < maxNamed {
			pids = append(pids, fmt.Sprint(other.PID))
		}
	}
	whose, word := "user "+first.User, "process"
	if first.Mine {
		whose = "this user"
	}
	if len(pids) > 1 {
		word = "processes"
	}
	return fmt.Sprintf("%s runs lanyard up (%s %s)", whose, word, strings.Join(pids, ", "))
}
