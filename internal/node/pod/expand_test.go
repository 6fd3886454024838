package pod

import (
	"strings"
	"testing"
)

func TestExpand(t *testing.T) {
	t.Parallel()
	known := func(name string) (string, bool) {
		value, ok := map[string]string{"A": "1", "B": "$(A)", "": "nameless"}[name]
		return value, ok
	}
	tests := map[string]string{
		"":              "",
		"plain":         "plain",
		"$(A)":          "1",
		"x$(A)y$(A)":    "x1y1",
		"$(B)":          "$(A)", // what a value says is not read again
		"$(NONE)":       "$(NONE)",
		"$$(A)":         "$(A)",
		"$$$(A)":        "$1",
		"$$$$(A)":       "$$(A)",
		"$":             "$",
		"cost: 5$":      "cost: 5$",
		"$A":            "$A",
		"$(A":           "$(A",
		"$(A$(A)":       "$(A$(A)", // names the variable "A$(A"
		"$(":            "$(",
		"$()":           "nameless",
		"$é$(A)":        "$é1",
		"a)$(A)":        "a)1",
		"$(A) $$ $(A)$": "1 $ 1$",
	}
	for in, want := range tests {
		if got := expand(in, known); got != want {
			t.Errorf("expand(%q) = %q, want %q", in, got, want)
		}
	}
	if expandAll(nil, known) != nil {
		t.Error("nothing became something")
	}
}

func FuzzExpand(f *testing.F) {
	for _, in := range []string{"$(A)", "$$(A)", "$($$)", "$(A", "é$(é)"} {
		f.Add(in)
	}
	f.Fuzz(func(t *testing.T, in string) {
		unknown := expand(in, func(string) (string, bool) { return "", false })
		if unknown != strings.ReplaceAll(in, "$$", "$") && !strings.Contains(in, "(") {
			t.Errorf("%q became %q", in, unknown)
		}
		if got := expand(escape(in), func(string) (string, bool) { return "no", true }); got != in {
			t.Errorf("%q escaped became %q", in, got)
		}
	})
}

// escape writes text so that expand gives it back.
func escape(text string) string { return strings.ReplaceAll(text, "$", "$$") }
