// Package age says how long ago something happened, as kubectl prints it.
//
// It reads no clock: its callers bring both times.
package age

import (
	"time"

	"k8s.io/apimachinery/pkg/util/duration"
)

// Unknown stands for a time that was never set.
const Unknown = "<unknown>"

// Since returns the time from then to now in at most two units ("5m12s", "3d"), or Unknown for a zero then.
func Since(then, now time.Time) string {
	if then.IsZero() {
		return Unknown
	}
	return duration.HumanDuration(now.Sub(then))
}
