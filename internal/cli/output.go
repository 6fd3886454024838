package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf16"

	"github.com/spf13/cobra"
	"golang.org/x/term"
	"sigs.k8s.io/yaml"
)

// The formats of results.
const (
	formatText  = "text"
	formatTable = "table"
	formatWide  = "wide"
	formatJSON  = "json"
	formatYAML  = "yaml"
)

// outputOptions select the format of a result.
type outputOptions struct {
	format  string
	formats []string // that the command supports
}

// addFlags adds --output. The first format is the default.
func (o *outputOptions) addFlags(cmd *cobra.Command, formats ...string) {
	o.formats = formats
	cmd.Flags().StringVarP(&o.format, "output", "o", formats[0], "format of the result: "+o.list())
}

// list returns the formats as in "text, json or yaml".
func (o *outputOptions) list() string {
	last := len(o.formats) - 1
	return strings.Join(o.formats[:last], ", ") + " or " + o.formats[last]
}

func (o *outputOptions) validate() error {
	if !slices.Contains(o.formats, o.format) {
		return fmt.Errorf("--output must be %s, not %q", o.list(), o.format)
	}
	return nil
}

// print writes value as JSON or YAML, or calls text for another format.
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

// printTable writes the text before, the columns and the rows.
func printTable(w io.Writer, before string, columns []string, rows int, row func(int) []string) error {
	var text strings.Builder
	text.WriteString(before)
	tabs := tabwriter.NewWriter(&text, 0, 8, 3, ' ', 0)
	fmt.Fprintln(tabs, strings.Join(columns, "\t"))
	for i := range rows {
		cells := row(i)
		for j := range cells {
			cells[j] = singleLine(cells[j])
		}
		fmt.Fprintln(tabs, strings.Join(cells, "\t"))
	}
	if err := tabs.Flush(); err != nil {
		return fmt.Errorf("write the result: %w", err)
	}
	return write(w, trimLines(text.String()))
}

func trimLines(text string) string {
	var out strings.Builder
	for line := range strings.Lines(text) {
		out.WriteString(strings.TrimRight(line, " \n") + "\n")
	}
	return out.String()
}

// singleLine escapes line breaks, and what printable escapes.
func singleLine(text string) string {
	return strings.ReplaceAll(printable([]byte(text)), "\n", `\n`)
}

// indented returns a JSON value over several lines, escaped by printable.
func indented(raw json.RawMessage) (string, error) {
	var out bytes.Buffer
	if err := json.Indent(&out, raw, "", "  "); err != nil {
		return "", fmt.Errorf("print a JSON value: %w", err)
	}
	return printable(out.Bytes()), nil
}

// printable escapes characters that could control a terminal or hide text, in the way of JSON. Tokens and names may come from
// anyone.
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

// durationText returns a duration in its two largest units, as in "1 hour 5 minutes".
func durationText(d time.Duration) string {
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
		parts = append(parts, plural(int64(count), unit.name))
		if d -= count * unit.size; len(parts) == 2 {
			break
		}
	}
	if len(parts) == 0 {
		return "less than a second"
	}
	return strings.Join(parts, " ")
}

func plural(count int64, unit string) string {
	if count == 1 {
		return "1 " + unit
	}
	return fmt.Sprintf("%d %ss", count, unit)
}

// isTerminal reports whether a stream of the process is a terminal.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
