package podannotation

import (
	"fmt"
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
