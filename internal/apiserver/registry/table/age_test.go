package table_test

import (
	"testing"
	"time"

	"lanyard.dev/internal/apiserver/registry/table"
)

func TestAge(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	for _, test := range []struct {
		name string
		then time.Time
		want string
	}{
		{"never", time.Time{}, "<unknown>"},
		{"now", now, "0s"},
		{"minutes", now.Add(-312 * time.Second), "5m12s"},
		{"days", now.Add(-72 * time.Hour), "3d"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if got := table.Age(test.then, now); got != test.want {
				t.Errorf("Age(%v) = %q, want %q", test.then, got, test.want)
			}
		})
	}
}
