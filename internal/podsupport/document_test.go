package podsupport

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite docs/pod-fields.md from the table")

// TestDocument compares docs/pod-fields.md with the table.
func TestDocument(t *testing.T) {
	t.Parallel()
	file := filepath.Join("..", "..", "docs", "pod-fields.md")
	want := document()
	if *update {
		if err := os.WriteFile(file, []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("docs/pod-fields.md does not match the table; run `go test ./internal/podsupport -update` (-want +got):\n%s", diff)
	}
}

const introduction = `# Fields of a pod

<!-- Generated from internal/podsupport/fields.go by: go test ./internal/podsupport -update -->

The agent implements the fields of a pod that are listed here. It refuses a pod with any other field, or with another value where values
are listed, with an event that names the field. The authority accepts such a pod, because a kubelet that has joined may run it, and answers with a
warning. {a,b} means both fields. A field includes everything below it.
`

// sections divide the table by the beginning of the path, which the rows of a section leave out.
var sections = []struct{ title, prefix string }{
	{"The pod", "spec."},
	{"Init containers and containers", "spec.{initContainers,containers}."},
	{"Init containers", "spec.initContainers."},
	{"Volumes", "spec.volumes."},
}

func document() string {
	rows := make([]strings.Builder, len(sections))
	for _, field := range table {
		i := sectionOf(field.path)
		fmt.Fprintf(&rows[i], "| `%s` | %s | %s |\n", strings.TrimPrefix(field.path, sections[i].prefix), field.supports(), field.implementedBy())
	}
	var text strings.Builder
	text.WriteString(introduction)
	for i, section := range sections {
		fmt.Fprintf(&text, "\n## %s\n\nBelow `%s`:\n\n| Field | Supported | Implemented by |\n| --- | --- | --- |\n%s", section.title, strings.TrimSuffix(section.prefix, "."), rows[i].String())
	}
	return text.String()
}

// sectionOf returns the index of the section with the longest prefix of the path.
func sectionOf(path string) int {
	longest := 0
	for i, section := range sections {
		if strings.HasPrefix(path, section.prefix) && len(section.prefix) > len(sections[longest].prefix) {
			longest = i
		}
	}
	return longest
}

// supports returns what of the field is supported, for a cell of the document.
func (row *supported) supports() string {
	text := "any value"
	switch {
	case row.values != nil:
		text = "`" + strings.Join(row.values, "`, `") + "`"
	case row.keys != nil:
		text = "`" + strings.Join(row.keys, "`, `") + "`"
	}
	if row.note != "" {
		text += "; " + row.note
	}
	return text
}

// implementedBy returns the consumer of the field, as users know it.
func (row *supported) implementedBy() string {
	switch row.by {
	case runtimeMapping:
		return "container runtime"
	case worker, volumes, apiVolumes:
		return "agent"
	case scheduler, nodeAffinity:
		return "scheduler"
	case admission:
		return "authority"
	}
	return string(row.by)
}
