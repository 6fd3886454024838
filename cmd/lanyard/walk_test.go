package main

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// conditional lists the blocks that a script does not run, by document, heading and condition. Each needs a reason here.
var conditional = []string{
	"walk.md, Before you start: foreground",         // builds the program and waits until it is stopped; start-lanyard does the same
	"walk.md, With a container runtime: containerd", // TestWalkWithContainerRuntime runs it
	"walk.md, Using the token: ten-minutes",         // waits until a token expires; internal/token tests that with a simulated clock
	"operations.md, An etcd of your own: own-etcd",  // needs etcd's command lines; the snapshot and its restore are tested in internal/etcd/snapshot
}

// TestDocumentsAreRun requires that each shell block of the documents whose procedures are tested is run by the script of the same
// name, or is in the list above.
func TestDocumentsAreRun(t *testing.T) {
	t.Parallel()
	var skipped []string
	for _, name := range []string{"walk", "operations", "credentials"} {
		text, err := readDocument(name + ".md")
		if err != nil {
			t.Fatal(err)
		}
		script, err := os.ReadFile(filepath.Join("testdata", "script", name+".txtar"))
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range blocks(text) {
			if b.condition != "" {
				t.Logf("not run by a script: docs/%s.md:%d, which is marked %q", name, b.line, b.condition)
				skipped = append(skipped, fmt.Sprintf("%s.md, %s: %s", name, b.heading, b.condition))
				continue
			}
			runs := regexp.MustCompile(`(?m)^(\[\w+\] )?document ` + name + `\.md '?` + regexp.QuoteMeta(b.heading) + `'?$`)
			if !runs.Match(script) {
				t.Errorf("%s.txtar does not run the block at docs/%s.md:%d, under %q", name, name, b.line, b.heading)
			}
		}
	}
	if !slices.Equal(skipped, conditional) {
		t.Errorf("the documents mark %q, the list of this test has %q", skipped, conditional)
	}
}

// TestJudge tests the rules that compare results with the comments of a document.
func TestJudge(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, block, fault string }{
		{"success", "true", ""},
		{"failure without a claim", "false", "the command failed"},
		{"failure in a pipeline", "false | cat", "the command failed"},
		{"failure in an assignment", "x=$(false)", "the command failed"},
		{"claimed refusal", "false   # refused: a reason", ""},
		{"refusal that succeeds", "true   # refused: a reason", `failed: false, but the comment claims "refused"`},
		{"status", "echo 401   # 401: a reason", ""},
		{"another status", "echo 200   # 401: a reason", `the output lacks "401"`},
		{"no", "echo no; false   # no", ""},
		{"yes for no", "echo yes   # no", `failed: false, but the comment claims "no"`},
		{"forbidden", "echo 'Error (Forbidden)' >&2; false   # forbidden", ""},
		{"another error", "echo 'not found' >&2; false   # forbidden", `the output lacks "forbidden"`},
		{"warning", "echo 'Warning: x'   # warning: x", ""},
		{"no warning", "echo x   # warning: x", `the output lacks "warning"`},
		{"here document", "grep z <<END   # refused\na\nEND", ""},
		{"unset variable", "echo $nothing", "unbound variable"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			err := runBlocks(t, "# Heading\n\n```sh\n"+test.block+"\n```\n")
			if (test.fault == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), test.fault) {
				t.Errorf("got %v, want %q", err, test.fault)
			}
		})
	}
	for shown, right := range map[string]bool{"a\nb\n": true, "a\n": false, "": false} {
		if err := runBlocks(t, "```console\n$ printf 'a\\nb\\n'\n"+shown+"$ true\n```\n"); (err == nil) != right {
			t.Errorf("a session that shows %q: %v", shown, err)
		}
	}
}

// runBlocks runs the unconditional blocks of a text in a directory of their own.
func runBlocks(t *testing.T, text string) error {
	t.Helper()
	return runWith(t.Context(), t.TempDir(), nil, withCondition("", blocks(text)))
}

// TestLinks checks the relative links of all Markdown files, anchors included, and the documents that the source code names.
func TestLinks(t *testing.T) {
	t.Parallel()
	root := filepath.Join("..", "..")
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	mention := regexp.MustCompile(`docs/[a-z-]+\.md(?:#[a-z-]+)?`)
	links := 0
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && entry.Name() == ".git":
			return fs.SkipDir
		case entry.IsDir():
			return nil
		}
		switch filepath.Ext(path) {
		case ".md":
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			for _, match := range link.FindAllStringSubmatch(proseOf(string(text)), -1) {
				links++
				if fault := brokenLink(path, match[1]); fault != "" {
					t.Errorf("%s: %s", path, fault)
				}
			}
		case ".go", ".txtar":
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			for _, target := range mention.FindAllString(string(text), -1) {
				if fault := brokenLink(filepath.Join(root, "any"), target); fault != "" {
					t.Errorf("%s: %s", path, fault)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if links < 50 {
		t.Errorf("found only %d links", links)
	}
}

// brokenLink returns what is wrong with a link in a file, or "". It does not follow links to other sites.
func brokenLink(from, target string) string {
	if strings.Contains(target, "://") {
		return ""
	}
	name, anchor, _ := strings.Cut(target, "#")
	path := from
	if name != "" {
		path = filepath.Join(filepath.Dir(from), filepath.FromSlash(name))
	}
	text, err := os.ReadFile(path)
	switch {
	case err != nil:
		return fmt.Sprintf("the target of the link %s does not exist: %v", target, err)
	case anchor != "" && !slices.Contains(anchors(string(text)), anchor):
		return fmt.Sprintf("%s has no heading for #%s", path, anchor)
	}
	return ""
}

// anchors returns the anchors that code hosts give to the headings of a Markdown text.
func anchors(text string) []string {
	dropped := regexp.MustCompile(`[^\p{L}\p{N}_ -]`)
	var all []string
	for line := range strings.Lines(proseOf(text)) {
		if strings.HasPrefix(line, "#") {
			heading := strings.ToLower(strings.TrimSpace(strings.TrimLeft(line, "#")))
			all = append(all, strings.ReplaceAll(dropped.ReplaceAllString(heading, ""), " ", "-"))
		}
	}
	return all
}

// proseOf returns the lines of a Markdown text that are not in fenced blocks.
func proseOf(text string) string {
	var prose strings.Builder
	fenced := false
	for line := range strings.Lines(text) {
		switch {
		case strings.HasPrefix(strings.TrimSpace(line), "```"):
			fenced = !fenced
		case !fenced:
			prose.WriteString(line)
		}
	}
	return prose.String()
}

// written matches the files that the commands of a document write, by redirection or by a flag.
var written = regexp.MustCompile(`(?:[^0-9<&>]> ?|--?out |go build -o )([A-Za-z0-9._/-]+)`)

// TestGitIgnoresWhatTheDocumentsWrite checks that git ignores the keys, tokens and programs that the commands in README.md and
// docs write, so that a reader who runs them in a checkout does not commit them.
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
					t.Errorf("%s writes %s, which git does not ignore", filepath.Base(document), name)
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
