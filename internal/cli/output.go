package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf16"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"
)

const (
	formatText = "text"
	formatJSON = "json"
	formatYAML = "yaml"
)

// outputOptions choose the form of a result.
type outputOptions struct{ format string }

func (o *outputOptions) addFlags(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&o.format, "output", "o", formatText, "form of the result: text, json or yaml")
}

func (o *outputOptions) validate() error {
	if !slices.Contains([]string{formatText, formatJSON, formatYAML}, o.format) {
		return fmt.Errorf("--output must be text, json or yaml, not %q", o.format)
	}
	return nil
}

// print writes value as JSON or YAML, or calls text.
func (o *outputOptions) print(w io.Writer, value any, text func(io.Writer) error) error {
	switch o.format {
	case formatJSON:
		data, err := json.MarshalIndent(value, "", "  ")
		if err != nil {
			return fmt.Errorf("encode the result: %w", err)
		}
		return write(w, printable(data)+"\n")
	case formatYAML:
		data, err := yaml.Marshal(value)
		if err != nil {
			return fmt.Errorf("encode the result: %w", err)
		}
		return write(w, printable(data))
	}
	return text(w)
}

func write(w io.Writer, text string) error {
	if _, err := io.WriteString(w, text); err != nil {
		return fmt.Errorf("write the result: %w", err)
	}
	return nil
}

// indented returns a JSON value over several lines, fit for a terminal.
func indented(raw json.RawMessage) (string, error) {
	var out bytes.Buffer
	if err := json.Indent(&out, raw, "", "  "); err != nil {
		return "", fmt.Errorf("print a JSON value: %w", err)
	}
	return printable(out.Bytes()), nil
}

// printable escapes, as JSON does, what could steer a terminal or hide text
// from the reader: the tokens shown are anyone's.
func printable(text []byte) string {
	var out strings.Builder
	for _, r := range string(text) {
		switch {
		case r == '\n' || unicode.IsPrint(r):
			out.WriteRune(r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&out, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&out, `\u%04x`, r)
		}
	}
	return out.String()
}

// inWords says a duration in its two largest units, as in "1 hour 5 minutes".
func inWords(d time.Duration) string {
	units := []struct {
		name string
		size time.Duration
	}{{"day", 24 * time.Hour}, {"hour", time.Hour}, {"minute", time.Minute}, {"second", time.Second}}
	d = d.Abs().Truncate(time.Second)
	var parts []string
	for _, unit := range units {
		count := d / unit.size
		if count == 0 {
			if len(parts) > 0 {
				break
			}
			continue
		}
		parts = append(parts, counted(int64(count), unit.name))
		if d -= count * unit.size; len(parts) == 2 {
			break
		}
	}
	if len(parts) == 0 {
		return "less than a second"
	}
	return strings.Join(parts, " ")
}

func counted(count int64, unit string) string {
	if count == 1 {
		return "1 " + unit
	}
	return fmt.Sprintf("%d %ss", count, unit)
}
