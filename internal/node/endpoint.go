package node

import (
	"os"
	"strings"
)

// runtimeSockets are where container runtimes listen by default.
var runtimeSockets = []string{"/run/containerd/containerd.sock", "/run/crio/crio.sock"}

// NoRuntime as a runtime endpoint means that no agent is wanted.
const NoRuntime = "none"

// FindRuntime returns the endpoint of a container runtime of this machine; ok is false where none listens at its usual
// place.
func FindRuntime() (endpoint string, ok bool) {
	for _, path := range runtimeSockets {
		if info, err := os.Stat(path); err == nil && info.Mode()&os.ModeSocket != 0 {
			return "unix://" + path, true
		}
	}
	return "", false
}

// RuntimeSockets is a list of the usual places, for messages.
func RuntimeSockets() string { return strings.Join(runtimeSockets, ", ") }
