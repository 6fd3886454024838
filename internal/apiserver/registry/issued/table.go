package issued

import (
	"cmp"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"

	identity "lanyard.dev/apis/identity/v1alpha1"
	"lanyard.dev/internal/apiserver/registry"
)

// none and never are the texts of cells without a value.
const none, never = "<none>", "<never>"

func orNone(text string) string { return cmp.Or(text, none) }

func age(then metav1.Time, now time.Time) string { return registry.Age(then.Time, now) }

// until returns the time from now to then, as Age writes it.
func until(then metav1.Time, now time.Time) string { return duration.HumanDuration(then.Sub(now)) }

// useCells returns the age of the last use, and its address.
func useCells(use *identity.Use, now time.Time) (used, from string) {
	if use == nil {
		return never, none
	}
	return age(use.Time, now), orNone(use.Address)
}
