// Package podannotation defines the annotations of pods by which the authority, its agents and lanyard exec cooperate.
//
// A pod with the annotation Process represents a process that lanyard exec supervises, and has no containers. It is not
// scheduled, no agent starts or ends it, and it is deleted without a grace period. The supervisor renews the annotation
// Lease. When the lease ends, the authority deletes the pod, and so its tokens become invalid.
//
// The package does not know storage, clocks or HTTP.
package podannotation

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Annotations of pods.
const (
	// Process is "true" on a pod that represents a process. It is set when the pod is created, or never.
	Process = "identity.lanyard.dev/process"
	// Lease is the time, in RFC 3339, when the pod of a process may be deleted unless its supervisor has set a later one.
	Lease = "identity.lanyard.dev/lease"
	// OnRenew is what a container gets when its token was renewed: "signal:HUP", or "exec:COMMAND ARG...".
	OnRenew = "identity.lanyard.dev/on-renew"
)

const (
	// MaxLease is the longest time for which a lease is valid after the authority first saw it.
	MaxLease = 10 * time.Minute
	// FirstLease is the lease of a new pod whose supervisor has not set one yet.
	FirstLease = time.Minute

	// maxLeaseText is the limit for a value of Lease, in bytes. A time with nanoseconds and an offset has 35.
	maxLeaseText = 40
)

// IsProcess reports whether the pod represents a process.
func IsProcess(pod metav1.Object) bool { return pod.GetAnnotations()[Process] == "true" }

// FormatLease returns the value of the annotation Lease for a time, in whole seconds.
func FormatLease(until time.Time) string { return until.UTC().Format(time.RFC3339) }

// ParseLease parses a value of the annotation Lease.
func ParseLease(text string) (time.Time, error) {
	if len(text) > maxLeaseText {
		return time.Time{}, fmt.Errorf("a lease has at most %d bytes, not %d", maxLeaseText, len(text))
	}
	until, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}, fmt.Errorf("%q is not a time such as 2006-01-02T15:04:05Z", text)
	}
	return until, nil
}

// LeaseEnd returns when the lease of a process's pod ends. seen is when the current value of the annotation was first seen: a
// lease ends at most MaxLease after that, so that no value keeps a pod for ever. A value that cannot be parsed is treated as
// missing.
func LeaseEnd(pod metav1.Object, seen time.Time) time.Time {
	text, ok := pod.GetAnnotations()[Lease]
	if !ok {
		return pod.GetCreationTimestamp().Add(FirstLease)
	}
	until, err := ParseLease(text)
	if err != nil {
		return pod.GetCreationTimestamp().Add(FirstLease)
	}
	if latest := seen.Add(MaxLease); until.After(latest) {
		return latest
	}
	return until
}

// Notice is how a program is notified that its token was renewed: by a signal or by a command. The zero value does nothing.
type Notice struct {
	Signal  syscall.Signal // 0 for a command
	Command []string
}

// signals are the signals that can notify a program, with their numbers on Linux. Signals that a program cannot handle are
// left out.
var signals = map[string]syscall.Signal{
	"HUP": 1, "INT": 2, "QUIT": 3, "USR1": 10, "USR2": 12, "ALRM": 14, "TERM": 15, "CONT": 18, "URG": 23, "WINCH": 28, "IO": 29,
}

// String returns the notice for an event. It leaves out the command, which the readers of events may not be allowed to see.
func (n Notice) String() string {
	for name, number := range signals {
		if n.Signal == number {
			return "signal:" + name
		}
	}
	return "exec"
}

// ParseNotice parses signal:NAME, such as signal:HUP, or exec:COMMAND ARG.... The command is split at white space; there is
// no quoting.
func ParseNotice(text string) (Notice, error) {
	how, what, _ := strings.Cut(text, ":")
	switch how {
	case "signal":
		if s, ok := signals[strings.TrimPrefix(strings.ToUpper(what), "SIG")]; ok {
			return Notice{Signal: s}, nil
		}
		return Notice{}, fmt.Errorf("%.64q is not a signal that can notify a program: use, for example, signal:HUP or signal:USR1", what)
	case "exec":
		if command := strings.Fields(what); len(command) > 0 {
			return Notice{Command: command}, nil
		}
		return Notice{}, errors.New("exec: names no command")
	}
	return Notice{}, fmt.Errorf("%.64q is neither signal:NAME nor exec:COMMAND", text)
}
