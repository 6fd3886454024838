package hint_test

import (
	"testing"

	"lanyard.dev/internal/hint"
)

func TestDistance(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		a, b string
		want int
	}{
		{"", "", 0}, {"get", "get", 0}, {"", "get", 3}, {"gett", "get", 1}, {"crat", "create", 2}, {"gte", "get", 1},
		{"pod", "pods", 1}, {"kitten", "sitting", 3}, {"abcd", "badc", 2},
	} {
		for _, pair := range [][2]string{{test.a, test.b}, {test.b, test.a}} {
			if got := hint.Distance(pair[0], pair[1]); got != test.want {
				t.Errorf("%q to %q: %d, want %d", pair[0], pair[1], got, test.want)
			}
		}
	}
}
