// Package podannotation names the annotations by which authority and agents understand each other about pods, and says what
// they mean.
//
// A pod with the annotation Process stands for a process that a supervisor runs, `lanyard exec`, and for no containers:
// nobody schedules it, no agent starts or ends it, and it is deleted at once, without a grace period. Its supervisor
// vouches for it with the annotation Lease; the authority removes it once nobody does any more, and its tokens die with
// it.
//
// The package knows no storage, no clock and no HTTP.
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
	// Process is "true" on a pod that stands for a process. It is set when the pod is made, or never.
	Process = "identity.lanyard.dev/process"
	// Lease is the time, in RFC 3339, until which the supervisor of a process vouches for it.
	Lease = "identity.lanyard.dev/lease"
	// OnRenew says what is done to a container when its token was renewed: "signal:HUP", or "exec:COMMAND ARG...".
	OnRenew = "identity.lanyard.dev/on-renew"
)

const (
	// MaxLease is how far ahead a lease counts, from when the authority first saw it.
	MaxLease = 10 * time.Minute
	// FirstLease is how long a process has from the creation of its pod while its supervisor has said nothing.
	FirstLease = time.Minute

	// maxLeaseText bounds what is parsed. A time with nine digits of a second and an offset has 35 bytes.
	maxLeaseText = 40
)

// IsProcess tells whether the pod stands for a process.
func IsProcess(pod metav1.Object) bool { return pod.GetAnnotations()[Process] == "true" }

// FormatLease returns the value of the annotation Lease for a time, in whole seconds.
func FormatLease(until time.Time) string { return until.UTC().Format(time.RFC3339) }

// ParseLease reads a value of the annotation Lease.
func ParseLease(text string) (time.Time, error) {
	if len(text) > maxLeaseText {
		return time.Time{}, fmt.Errorf("a lease has at most %d bytes, not %d", maxLeaseText, len(text))
	}
	until, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}, fmt.Errorf("%q is no time as in 2006-01-02T15:04:05Z", text)
	}
	return until, nil
}

// LeaseEnd returns when the pod of a process is no longer vouched for. seen is when the present value of the annotation
// was first seen: a lease further ahead than MaxLease from then ends there, so that no value keeps a pod for good. A
// value that cannot be read vouches for nothing, as if there were none.
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

// Notice is how a program is told that its token was renewed: by a signal, or by a command. The zero value tells nothing.
type Notice struct {
	Signal  syscall.Signal // 0 for a command
	Command []string
}

// signals are those that tell a program something, by Linux' numbers. Those that end or stop any program are left out.
var signals = map[string]syscall.Signal{
	"HUP": 1, "INT": 2, "QUIT": 3, "USR1": 10, "USR2": 12, "ALRM": 14, "TERM": 15, "CONT": 18, "URG": 23, "WINCH": 28, "IO": 29,
}

// String is for events: a command may have more in it than its readers are to see.
func (n Notice) String() string {
	for name, number := range signals {
		if n.Signal == number {
			return "signal:" + name
		}
	}
	return "exec"
}

// ParseNotice reads signal:NAME, as in signal:HUP, or exec:COMMAND ARG..., which is split at white space and by nothing else.
func ParseNotice(text string) (Notice, error) {
	how, what, _ := strings.Cut(text, ":")
	switch how {
	case "signal":
		if s, ok := signals[strings.TrimPrefix(strings.ToUpper(what), "SIG")]; ok {
			return Notice{Signal: s}, nil
		}
		return Notice{}, fmt.Errorf("%.64q is no signal to tell a program with: use one such as signal:HUP or signal:USR1", what)
	case "exec":
		if command := strings.Fields(what); len(command) > 0 {
			return Notice{Command: command}, nil
		}
		return Notice{}, errors.New("exec: names no command")
	}
	return Notice{}, fmt.Errorf("%.64q is neither signal:NAME nor exec:COMMAND", text)
}
