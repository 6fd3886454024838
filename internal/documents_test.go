package internal_test

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestArchitectureNamesThePackages compares the first table in ARCHITECTURE.md with the packages there are. The first cell of a
// row has packages in backquotes, separated by commas, each relative to the module or, after the first, to the parent of the one
// before; "name/..." means all packages below name. The second cell may name packages below the row's first package.
func TestArchitectureNamesThePackages(t *testing.T) {
	t.Parallel()
	packages := tree(t)
	named, err := namedPackages(filepath.Join("..", "ARCHITECTURE.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, pkg := range slices.Sorted(maps.Keys(packages)) {
		if !named.covers(pkg) {
			t.Errorf("the table of packages in ARCHITECTURE.md lacks %s: add a row, or name it in the row of a package above it", pkg)
		}
	}
	for _, name := range named.packages {
		if parent, all := strings.CutSuffix(name, "/..."); all && hasPackageBelow(packages, parent) || len(packages[name]) > 0 {
			continue
		}
		t.Errorf("the table of packages in ARCHITECTURE.md names %s, which is not a package", name)
	}
}

// packageTable is what a table of packages names.
type packageTable struct {
	packages []string // of the first cells
	also     []string // what the second cells have in backquotes, as packages; most are none
}

func (p packageTable) covers(pkg string) bool {
	if slices.Contains(p.packages, pkg) || slices.Contains(p.also, pkg) {
		return true
	}
	return slices.ContainsFunc(p.packages, func(name string) bool {
		parent, all := strings.CutSuffix(name, "/...")
		return all && within(pkg, []string{parent})
	})
}

var quoted = regexp.MustCompile("`([^`]+)`")

func namedPackages(file string) (packageTable, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return packageTable{}, err
	}
	var found packageTable
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(line, "|")
		if len(cells) < 4 || !strings.Contains(cells[1], "`") {
			if len(found.packages) > 0 {
				return found, nil // the end of the table
			}
			continue
		}
		first, last := "", ""
		for _, match := range quoted.FindAllStringSubmatch(cells[1], -1) {
			name := match[1]
			if last != "" && !strings.Contains(name, "/") {
				name = path.Join(path.Dir(last), name)
			}
			found.packages = append(found.packages, name)
			if last = name; first == "" {
				first = name
			}
		}
		for _, match := range quoted.FindAllStringSubmatch(strings.Join(cells[2:], "|"), -1) {
			found.also = append(found.also, match[1], path.Join(strings.TrimSuffix(first, "/..."), match[1]))
		}
	}
	return packageTable{}, fmt.Errorf("%s has no table of packages", file)
}

var (
	namedPath = regexp.MustCompile(`(?:^|[\s("` + "`" + `])(?:\./)?((?:internal|cmd|hack|examples|docs|lanyardtest|\.ci)(?:/[\w.-]+)+)`)
	namedFile = regexp.MustCompile("`([\\w/.-]+\\.go)`")
	namedTest = regexp.MustCompile(`\b(?:Test|Benchmark|Fuzz|Example)[A-Z]\w+\b`)
	testDecl  = regexp.MustCompile(`(?m)^func ((?:Test|Benchmark|Fuzz|Example)\w+)\(`)
)

// TestDocumentsNameWhatExists checks the paths, Go files and tests that documents and .ci/run name. CHANGELOG.md is about the past.
func TestDocumentsNameWhatExists(t *testing.T) {
	t.Parallel()
	documents, err := filepath.Glob(filepath.Join("..", "docs", "*.md"))
	if err != nil || len(documents) < 10 {
		t.Fatalf("found the documents %q, %v", documents, err)
	}
	for _, name := range []string{"README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", filepath.Join(".ci", "run")} {
		documents = append(documents, filepath.Join("..", name))
	}
	goFiles, tests := goFilesAndTests(t)
	for _, document := range documents {
		text, err := os.ReadFile(document)
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range namedPath.FindAllStringSubmatch(expandBraces(string(text)), -1) {
			name := strings.TrimRight(match[1], ".")
			if _, err := os.Stat(filepath.Join("..", filepath.FromSlash(name))); err != nil {
				t.Errorf("%s names %s, which does not exist", document, name)
			}
		}
		for _, match := range namedFile.FindAllStringSubmatch(string(text), -1) {
			if !slices.ContainsFunc(goFiles, func(file string) bool { return strings.HasSuffix("/"+file, "/"+match[1]) }) {
				t.Errorf("%s names the file %s, which does not exist", document, match[1])
			}
		}
		for _, name := range namedTest.FindAllString(string(text), -1) {
			if !tests[name] {
				t.Errorf("%s names %s, which no test file declares", document, name)
			}
		}
	}
}

var braces = regexp.MustCompile(`([\w./-]+/)\{([\w,]+)\}`)

// expandBraces replaces a/{b,c} by a/b a/c, as a shell does.
func expandBraces(text string) string {
	return braces.ReplaceAllStringFunc(text, func(word string) string {
		parts := braces.FindStringSubmatch(word)
		return parts[1] + strings.ReplaceAll(parts[2], ",", " "+parts[1])
	})
}

// goFilesAndTests returns the paths of all Go files, and the names of tests, benchmarks, fuzz targets and examples.
func goFilesAndTests(t *testing.T) (files []string, tests map[string]bool) {
	t.Helper()
	tests = map[string]bool{}
	err := filepath.WalkDir("..", func(file string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Ext(file) != ".go" {
			return err
		}
		files = append(files, filepath.ToSlash(file))
		if !strings.HasSuffix(file, "_test.go") {
			return nil
		}
		text, err := os.ReadFile(file)
		for _, match := range testDecl.FindAllSubmatch(text, -1) {
			tests[string(match[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files, tests
}
