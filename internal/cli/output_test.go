package cli

import (
	"encoding/json"
	"testing"
	"time"
)

func TestPrintable(t *testing.T) {
	t.Parallel()
	tests := map[string]string{
		"plain ü 日本\n":      "plain ü 日本\n",
		"\x1b[31m":          `\u001b[31m`,
		"a\u202eb\u0085":    `a\u202eb\u0085`,
		"\U000e0001":        `\udb40\udc01`,
		"\r\t\x7f":          `\u000d\u0009\u007f`,
		"\u200bzero-width ": `\u200bzero-width `,
	}
	for in, want := range tests {
		if got := printable([]byte(in)); got != want {
			t.Errorf("%q: got %s, want %s", in, got, want)
		}
	}
}

func FuzzPrintableKeepsJSON(f *testing.F) {
	f.Add("\U000e0001\u202e\x1b")
	f.Fuzz(func(t *testing.T, text string) {
		raw, err := json.Marshal(text)
		if err != nil {
			t.Skip()
		}
		var before, after string
		if err := json.Unmarshal(raw, &before); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal([]byte(printable(raw)), &after); err != nil || before != after {
			t.Errorf("%q became %q, %v", before, after, err)
		}
	})
}

func TestDurationText(t *testing.T) {
	t.Parallel()
	tests := map[time.Duration]string{
		0:                             "less than a second",
		time.Second:                   "1 second",
		59 * time.Minute:              "59 minutes",
		-61 * time.Second:             "1 minute 1 second",
		time.Hour + 3*time.Second:     "1 hour",
		49*time.Hour + 5*time.Minute:  "2 days 1 hour",
		time.Hour - time.Millisecond:  "59 minutes 59 seconds",
		24*time.Hour + 59*time.Second: "1 day",
	}
	for in, want := range tests {
		if got := durationText(in); got != want {
			t.Errorf("%s: got %q, want %q", in, got, want)
		}
	}
}
