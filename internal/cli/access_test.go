package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const policyFile = "testdata/access/policy.yaml"

// TestAccessOutput shows every form of every answer.
func TestAccessOutput(t *testing.T) {
	t.Parallel()
	questions := map[string]struct {
		args []string
		code int
	}{
		"explain_yes":    {[]string{"explain", "sa:shop/web", "get", "pods", "-n", "shop"}, 0},
		"explain_no":     {[]string{"explain", "group:devs", "list", "po", "-n", "shop"}, exitFailure},
		"explain_far":    {[]string{"explain", "user:zoe", "list", "pods"}, exitFailure},
		"explain_master": {[]string{"explain", "user:root", "delete", "nodes", "--group", "system:masters"}, 0},
		"who_can":        {[]string{"who-can", "get", "secrets/db", "-n", "shop"}, 0},
		"who_can_path":   {[]string{"who-can", "get", "/metrics"}, 0},
		"who_can_nobody": {[]string{"who-can", "delete", "widgets", "-A"}, 0},
		"list":           {[]string{"list", "sa:shop/web"}, 0},
		"list_nothing":   {[]string{"list", "user:zoe"}, 0},
	}
	for name, question := range questions {
		for _, format := range []string{"table", "wide", "json", "yaml"} {
			t.Run(name+"/"+format, func(t *testing.T) {
				t.Parallel()
				args := append([]string{"access"}, question.args...)
				got := run("", append(args, "-f", policyFile, "-o", format)...)
				if got.code != question.code {
					t.Errorf("exit code %d, want %d", got.code, question.code)
				}
				text := got.out
				if got.errOut != "" {
					text += "-- standard error --\n" + got.errOut
				}
				checkGolden(t, filepath.Join("access", name+"."+format+".txt"), text)
			})
		}
	}
}

func TestAccessReadsFilesDirectoriesAndInput(t *testing.T) {
	t.Parallel()
	policy, err := os.ReadFile(policyFile)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	documents := strings.Split(string(policy), "\n---\n")
	for i, document := range documents {
		name := filepath.Join(dir, fmt.Sprint("deep", i%2), fmt.Sprintf("%d.yaml", i))
		putFile(t, name, document)
	}
	putFile(t, filepath.Join(dir, "README.md"), "a: [")
	putFile(t, filepath.Join(dir, ".git", "x.yaml"), "a: [")
	question := []string{"access", "who-can", "get", "pods", "-n", "shop", "-f"}
	want := run("", append(question, policyFile)...)
	if want.code != 0 || !strings.Contains(want.out, "readers") {
		t.Fatalf("from a file: %+v", want)
	}
	if diff := cmp.Diff(want, run("", append(question, dir)...), cmp.AllowUnexported(result{})); diff != "" {
		t.Errorf("from a directory (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want, run(string(policy), append(question, "-")...), cmp.AllowUnexported(result{})); diff != "" {
		t.Errorf("from standard input (-want +got):\n%s", diff)
	}
	both := run(documents[1], append(question, "-", "-f", filepath.Join(dir, "deep0", "0.yaml"))...)
	if both.code != 0 || !strings.Contains(both.out, "readers") {
		t.Errorf("from two sources: %+v", both)
	}
}

func putFile(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestAccessDefaultRoles(t *testing.T) {
	t.Parallel()
	args := []string{"access", "explain", "group:devs", "list", "pods", "-n", "shop", "-f", policyFile}
	if got := run("", args...); got.code != exitFailure || !strings.Contains(got.errOut, "which --default-roles adds: view\n") {
		t.Errorf("without: %+v", got)
	}
	if got := run("", append(args, "--default-roles")...); got.code != 0 || !strings.Contains(got.out, "ClusterRole/view") {
		t.Errorf("with: %+v", got)
	}
}

func TestAccessRefuses(t *testing.T) {
	t.Parallel()
	empty := t.TempDir()
	tests := map[string]struct {
		stdin string
		args  []string
		code  int
		want  string
	}{
		"too few":         {"", []string{"explain", "user:ann", "get"}, exitUsage, "expected SUBJECT VERB RESOURCE"},
		"too many":        {"", []string{"who-can", "get", "pods", "x"}, exitUsage, `unexpected argument "x"`},
		"subject":         {"", []string{"list", "ann", "-f", "-"}, exitUsage, "write sa:NAMESPACE/NAME, user:NAME, group:NAME or node:NAME"},
		"resource":        {"{}", []string{"who-can", "get", "a/b/c/d", "-f", policyFile}, exitFailure, `resource "a/b/c/d": write RESOURCE`},
		"form":            {"", []string{"list", "user:ann", "-o", "text"}, exitUsage, "--output must be table, wide, json or yaml"},
		"both namespaces": {"", []string{"who-can", "get", "pods", "-A", "-n", "x"}, exitUsage, "exclude each other"},
		"both sources":    {"", []string{"list", "user:ann", "-f", "x", "--context", "y"}, exitUsage, "-f reads files"},
		"cluster default": {"", []string{"list", "user:ann", "--default-roles"}, exitUsage, "--default-roles is for files"},
		"no file":         {"", []string{"list", "user:ann", "-f", "nowhere.yaml"}, exitFailure, "nowhere.yaml: no such file"},
		"empty directory": {"", []string{"list", "user:ann", "-f", empty}, exitFailure, "holds no .yaml, .yml or .json files"},
		"no policy":       {"kind: Pod\n", []string{"list", "user:ann", "-f", "-"}, exitFailure, "the files hold no roles and no bindings"},
		"broken":          {"kind: Pod\n---\na: [", []string{"list", "user:ann", "-f", "-"}, exitFailure, "lanyard: standard input: document 2: "},
		"no kubeconfig":   {"", []string{"list", "user:ann", "--kubeconfig", filepath.Join(empty, "none")}, exitFailure, "none: no such file"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := run(test.stdin, append([]string{"access"}, test.args...)...)
			if got.code != test.code || got.out != "" || !strings.Contains(got.errOut, test.want) {
				t.Errorf("got %+v, want code %d and %q", got, test.code, test.want)
			}
		})
	}
}
