package tokenvolume

import "time"

const (
	// maxAge is when a token is renewed at the latest, however long it lives.
	maxAge = 24 * time.Hour
	// spread is the part of the time until then by which the renewal may come earlier. Tokens that were issued in the same
	// second are renewed over a quarter of it, and further apart each time.
	spread = 0.25
)

// RenewAt returns when a token is to be renewed: at 80 % of its life or 24 h after it was issued, whichever is first, or up
// to a quarter of that earlier. jitter, from 0 to 1, says how much earlier.
func RenewAt(issued, expires time.Time, jitter float64) time.Time {
	age := max(0, min(expires.Sub(issued)/5*4, maxAge))
	early := time.Duration(float64(age) * spread * min(max(jitter, 0), 1))
	return issued.Add(age - early)
}
