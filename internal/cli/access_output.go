package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	rbacv1 "k8s.io/api/rbac/v1"

	"lanyard.dev/internal/access"
)

const (
	formatTable = "table"
	formatWide  = "wide"
)

// tableOptions choose the form of a result that is a table.
type tableOptions struct{ format string }

func (o *tableOptions) addFlags(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&o.format, "output", "o", formatTable, "form of the result: table, wide, json or yaml")
}

func (o *tableOptions) validate() error {
	if !slices.Contains([]string{formatTable, formatWide, formatJSON, formatYAML}, o.format) {
		return fmt.Errorf("--output must be table, wide, json or yaml, not %q", o.format)
	}
	return nil
}

// print writes value as JSON or YAML, or calls table and writes the notes,
// which value holds too, to standard error.
func (o *tableOptions) print(s streams, value any, notes []string, table func(w io.Writer, wide bool) error) error {
	if o.format == formatJSON || o.format == formatYAML {
		return (&outputOptions{format: o.format}).print(s.out, value, nil)
	}
	if err := table(s.out, o.format == formatWide); err != nil {
		return err
	}
	for _, note := range notes {
		fmt.Fprintf(s.err, "note: %s\n", cell(note))
	}
	return nil
}

// printTable writes columns and rows, after a text of its own.
func printTable(w io.Writer, before string, columns []string, rows int, row func(int) []string) error {
	var text strings.Builder
	text.WriteString(before)
	tabs := tabwriter.NewWriter(&text, 0, 8, 3, ' ', 0)
	fmt.Fprintln(tabs, strings.Join(columns, "\t"))
	for i := range rows {
		cells := row(i)
		for j := range cells {
			cells[j] = cell(cells[j])
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

// cell keeps text on its line.
func cell(text string) string {
	return strings.ReplaceAll(printable([]byte(text)), "\n", `\n`)
}

func viaColumns(wide bool) []string {
	columns := []string{"SUBJECT", "BINDING", "ROLE", "SCOPE"}
	if wide {
		columns = append(columns, "RULES")
	}
	return columns
}

func viaCells(v *access.Via, wide bool) []string {
	cells := []string{subjectText(v.Subject), v.Binding.String(), v.Role.String(), scopeText(v.Namespace)}
	if wide {
		cells = append(cells, rulesText(v.Rules))
	}
	return cells
}

func subjectText(s rbacv1.Subject) string {
	if s.Namespace != "" {
		return s.Kind + "/" + s.Namespace + "/" + s.Name
	}
	return s.Kind + "/" + s.Name
}

func scopeText(namespace string) string {
	if namespace == "" {
		return "cluster"
	}
	return "namespace " + namespace
}

// rulesText writes each rule as "get,list pods,deployments.apps".
func rulesText(rules []rbacv1.PolicyRule) string {
	var texts []string
	for _, r := range rules {
		text := strings.Join(r.Verbs, ",") + " " + strings.Join(append(resourceTexts(r.APIGroups, r.Resources), r.NonResourceURLs...), ",")
		if len(r.ResourceNames) > 0 {
			text += " named " + strings.Join(r.ResourceNames, ",")
		}
		texts = append(texts, text)
	}
	return strings.Join(texts, "; ")
}

// resourceTexts writes every resource in every group, as RESOURCE.GROUP, or the
// two lists where that would be long.
func resourceTexts(groups, resources []string) []string {
	const most = 100
	if len(groups)*len(resources) > most {
		return []string{fmt.Sprintf("%d resources of %d groups", len(resources), len(groups))}
	}
	var texts []string
	for _, group := range groups {
		for _, resource := range resources {
			if group == "" {
				texts = append(texts, resource)
				continue
			}
			name, sub, isSub := strings.Cut(resource, "/")
			text := name + "." + group
			if isSub {
				text += "/" + sub
			}
			texts = append(texts, text)
		}
	}
	return texts
}
