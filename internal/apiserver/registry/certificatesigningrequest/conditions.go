package certificatesigningrequest

import (
	"slices"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// entry is one condition.
type entry = certificatesv1.CertificateSigningRequestCondition

// ofType returns the conditions of one type, in order.
func ofType(all []entry, kind certificatesv1.RequestConditionType) []entry {
	var found []entry
	for _, c := range all {
		if c.Type == kind {
			found = append(found, c)
		}
	}
	return found
}

// keepStored returns now with its conditions of the given types replaced by those that are stored. The order stays where
// it can, so that an update which changes nothing is none.
func keepStored(now, stored []entry, kinds ...certificatesv1.RequestConditionType) []entry {
	kept := make([]entry, 0, len(now))
	left := slices.Clone(stored)
	for _, c := range now {
		if !slices.Contains(kinds, c.Type) {
			kept = append(kept, c)
			continue
		}
		if at := slices.IndexFunc(left, func(s entry) bool { return s.Type == c.Type }); at >= 0 {
			kept = append(kept, left[at])
			left = slices.Delete(left, at, at+1)
		}
	}
	for _, s := range left {
		if slices.Contains(kinds, s.Type) {
			kept = append(kept, s)
		}
	}
	return kept
}

// stamp fills in the times that a client left out: of the last change of anything, and of the last change of the status.
func stamp(now, stored []entry, at metav1.Time) {
	for i := range now {
		c := &now[i]
		if c.LastUpdateTime.IsZero() {
			c.LastUpdateTime = at
		}
		if !c.LastTransitionTime.IsZero() {
			continue
		}
		c.LastTransitionTime = at
		for _, s := range ofType(stored, c.Type) {
			if s.Status == c.Status && !s.LastTransitionTime.IsZero() {
				c.LastTransitionTime = s.LastTransitionTime
			}
		}
	}
}
