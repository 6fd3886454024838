package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// written finds the files that the commands of a document write: by redirection, or as a flag says.
var written = regexp.MustCompile(`(?:[^0-9<&>]> ?|--?out |go build -o )([A-Za-z0-9._/-]+)`)

// TestGitIgnoresWhatTheDocumentsWrite keeps keys, tokens and what is built out of the commits of readers who type the
// commands of README.md and docs in their checkout.
func TestGitIgnoresWhatTheDocumentsWrite(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("needs git")
	}
	root := filepath.Join("..", "..")
	ignored, err := os.ReadFile(filepath.Join(root, ".gitignore"))
	if err != nil {
		t.Fatal(err)
	}
	repository := t.TempDir()
	if err := os.WriteFile(filepath.Join(repository, ".gitignore"), ignored, 0o600); err != nil {
		t.Fatal(err)
	}
	if output, err := exec.CommandContext(t.Context(), "git", "-C", repository, "init", "-q").CombinedOutput(); err != nil {
		t.Fatalf("git init: %v\n%s", err, output)
	}
	documents, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, document := range append(documents, filepath.Join(root, "README.md")) {
		text, err := os.ReadFile(document)
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range written.FindAllStringSubmatch(codeOf(string(text)), -1) {
			if name := match[1]; !filepath.IsAbs(name) && !found[name] {
				found[name] = true
				if exec.CommandContext(t.Context(), "git", "-C", repository, "check-ignore", "-q", name).Run() != nil {
					t.Errorf("%s tells to write %s, which git add would take", filepath.Base(document), name)
				}
			}
		}
	}
	for _, name := range []string{"jane.kubeconfig", "bootstrap.kubeconfig", "n1.key", "n1.crt", "ca.crt", "jwks.json", "lanyard", "dashboard"} {
		if !found[name] {
			t.Errorf("%s was not found in the documents: %v", name, found)
		}
	}
}

// codeOf returns the lines of a Markdown text that are code.
func codeOf(text string) string {
	var code strings.Builder
	fenced := false
	for line := range strings.Lines(text) {
		switch {
		case strings.HasPrefix(strings.TrimSpace(line), "```"):
			fenced = !fenced
		case fenced || strings.HasPrefix(line, "    "):
			code.WriteString(line)
		}
	}
	return code.String()
}
