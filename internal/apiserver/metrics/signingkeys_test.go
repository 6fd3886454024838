package metrics_test

import (
	"testing"
	"time"

	"lanyard.dev/internal/apiserver/metrics"
)

// TestSigningKeys checks the metrics of keys in each state, one of which has tokens that cannot be counted.
func TestSigningKeys(t *testing.T) {
	t.Parallel()
	m := metrics.New()
	m.WatchSigningKeys(func() []metrics.SigningKey {
		return []metrics.SigningKey{
			{ID: "old", State: "Verifying", Live: 7}, {ID: "older", State: "Verifying", Live: -1},
			{ID: "now", State: "Signing", Signing: time.Now().Add(-time.Hour), Live: 3},
		}
	})
	wantValue(t, m, `lanyard_signing_keys{state="Published"}`, 0)
	wantValue(t, m, `lanyard_signing_keys{state="Signing"}`, 1)
	wantValue(t, m, `lanyard_signing_keys{state="Verifying"}`, 2)
	between(t, m, `lanyard_signing_key_age_seconds{kid="now"}`, time.Hour, 2*time.Hour)
	wantValue(t, m, `lanyard_signing_key_live_tokens{kid="now"}`, 3)
	wantValue(t, m, `lanyard_signing_key_live_tokens{kid="old"}`, 7)
	for _, absent := range []string{`lanyard_signing_key_age_seconds{kid="old"}`, `lanyard_signing_key_live_tokens{kid="older"}`} {
		if value, ok := scrape(t, m, absent); ok {
			t.Errorf("%s is %v", absent, value)
		}
	}
}
