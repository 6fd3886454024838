package metrics

import "time"

// SigningKey is what the metrics say about a key that the authority keeps in etcd.
type SigningKey struct {
	ID, State string
	// Signing is when the key began to sign; zero for a key that does not sign now.
	Signing time.Time
	// Live is the number of live tokens of the key; negative if it is not known now.
	Live int
}

// signingKeyStates are the states whose numbers are shown, also if there is no key.
var signingKeyStates = []string{"Published", "Signing", "Verifying"}

// WatchSigningKeys adds the number of keys in each state, the age of those that sign, and the number of live tokens of each. read
// returns the keys that are accepted.
func (m *Metrics) WatchSigningKeys(read func() []SigningKey) {
	m.addGauges("lanyard_signing_keys",
		"Keys of service account tokens that the authority keeps in etcd, by state: Published (signs next), Signing, Verifying (signs no more).",
		"state", func(set func(float64, string)) {
			count := map[string]int{}
			for _, key := range read() {
				count[key.State]++
			}
			for _, state := range signingKeyStates {
				set(float64(count[state]), state)
			}
		})
	m.addGauges("lanyard_signing_key_age_seconds", "Seconds since a key that signs service account tokens began to sign.",
		"kid", func(set func(float64, string)) {
			for _, key := range read() {
				if !key.Signing.IsZero() {
					set(time.Since(key.Signing).Seconds(), key.ID)
				}
			}
		})
	m.addGauges("lanyard_signing_key_live_tokens", "Tokens of a key that have neither expired nor been revoked.",
		"kid", func(set func(float64, string)) {
			for _, key := range read() {
				if key.Live >= 0 {
					set(float64(key.Live), key.ID)
				}
			}
		})
}
