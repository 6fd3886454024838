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

// TestAccessOutput compares every format of every answer with a golden file.
func TestAccessOutput(t *testing.T) {
	t.Parallel()
	questions := map[string]struct {
		args []string
		code int
	}{
		"explain_yes":    {[]string{"explain", "sa:shop/web", "get", "pods", "-n", "shop"}, 0},
		"explain_no":     {[]string{"explain", "group:devs", "delete", "po", "-n", "shop"}, exitFailure},
		"explain_far":    {[]string{"explain", "user:zoe", "list", "pods"}, exitFailure},
		"explain_master": {[]string{"explain", "user:root", "delete", "nodes", "--group", "system:masters"}, 0},
		"who_can":        {[]string{"who-can", "get", "secrets/db", "-n", "shop"}, 0},
		"who_can_path":   {[]string{"who-can", "get", "/metrics"}, 0},
		"who_can_nobody": {[]string{"who-can", "delete", "widgets.example.com", "-A", "--default-roles=false"}, 0},
		"list":           {[]string{"list", "sa:shop/web"}, 0},
		"list_nothing":   {[]string{"list", "user:zoe", "-n", "shop", "--default-roles=false"}, 0},
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
	if got := run("", args...); got.code != 0 || !strings.Contains(got.out, "ClusterRole/view") || !strings.Contains(got.errOut, "default roles and bindings are included") {
		t.Errorf("with: %+v", got)
	}
	if got := run("", append(args, "--default-roles=false")...); got.code != exitFailure || !strings.Contains(got.out, "bound to ClusterRole/view, which does not exist") {
		t.Errorf("without: %+v", got)
	}
	path := []string{"access", "explain", "user:ann", "get", "/version", "-f", policyFile}
	if got := run("", path...); got.code != 0 {
		t.Errorf("a path that every user may read: %+v", got)
	}
}

// TestAccessCases contains questions about files that were answered wrongly before.
func TestAccessCases(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		args []string
		code int
		out  string // part of standard output
		note string
	}{
		"a subresource that is not granted": {[]string{"explain", "user:u", "get", "nodes/metrics", "-f", "subresources.yaml"}, exitFailure,
			`request: verb="get" group="" resource="nodes" subresource="metrics" name="" namespace=""`, "metrics is read as a subresource of nodes; for an object of that name write --name metrics"},
		"its resource":                           {[]string{"explain", "user:u", "get", "nodes", "-f", "subresources.yaml"}, 0, "ClusterRole/plain", ""},
		"an object of its name":                  {[]string{"explain", "user:u", "get", "nodes", "--name", "metrics", "-f", "subresources.yaml"}, 0, `subresource="" name="metrics"`, ""},
		"stats":                                  {[]string{"explain", "user:u", "get", "nodes/stats", "-f", "subresources.yaml"}, exitFailure, `subresource="stats"`, ""},
		"log":                                    {[]string{"explain", "user:u", "get", "nodes/log", "-f", "subresources.yaml"}, exitFailure, `subresource="log"`, ""},
		"proxy":                                  {[]string{"explain", "user:u", "get", "nodes/proxy", "-f", "subresources.yaml"}, exitFailure, `subresource="proxy"`, ""},
		"resize":                                 {[]string{"explain", "user:u", "patch", "pods/resize", "-f", "subresources.yaml"}, exitFailure, `subresource="resize"`, ""},
		"finalizers":                             {[]string{"explain", "user:u", "update", "deployments/finalizers", "-f", "subresources.yaml"}, exitFailure, `subresource="finalizers"`, ""},
		"finalizers of a custom resource":        {[]string{"explain", "user:u", "update", "servicemonitors/finalizers", "-f", "subresources.yaml"}, exitFailure, `group="monitoring.coreos.com" resource="servicemonitors" subresource="finalizers"`, ""},
		"extra":                                  {[]string{"explain", "user:u", "impersonate", "userextras/scopes", "-f", "subresources.yaml"}, exitFailure, `resource="userextras" subresource="scopes"`, ""},
		"a subresource that is granted":          {[]string{"explain", "user:v", "get", "nodes/metrics", "-f", "subresources.yaml"}, 0, "ClusterRole/onlysub", ""},
		"not its resource":                       {[]string{"explain", "user:v", "get", "nodes", "-f", "subresources.yaml"}, exitFailure, "no: ", ""},
		"not an object of its name":              {[]string{"explain", "user:v", "get", "nodes", "--name", "metrics", "-f", "subresources.yaml"}, exitFailure, "no: ", ""},
		"granted finalizers":                     {[]string{"explain", "user:v", "update", "pods/finalizers", "-f", "subresources.yaml"}, 0, "yes: ", ""},
		"granted extra":                          {[]string{"explain", "user:v", "impersonate", "userextras/scopes", "-f", "subresources.yaml"}, 0, "yes: ", ""},
		"granted status of a custom resource":    {[]string{"explain", "user:v", "get", "servicemonitors/status", "-f", "subresources.yaml"}, 0, "yes: ", ""},
		"by cluster-admin, which no file holds":  {[]string{"who-can", "delete", "secrets", "-f", "dashboard.yaml"}, 0, "ServiceAccount/kubernetes-dashboard/admin-user   ClusterRoleBinding/admin-user", ""},
		"files without namespaces":               {[]string{"list", "sa:cicd/ci", "-n", "cicd", "-f", "homeless.yaml"}, 0, "namespace cicd   pods/exec", "3 objects name no namespace and are assumed to be in cicd"},
		"files without namespaces, in another":   {[]string{"list", "sa:cicd/ci", "-n", "other", "-f", "homeless.yaml"}, 0, "system:basic-user", "no file contains the service account cicd/ci"},
		"a chart":                                {[]string{"explain", "user:ann", "get", "pods", "-f", "directory"}, exitFailure, "no: ", "3 files hold no manifests and are skipped: "},
		"its values":                             {[]string{"explain", "user:ann", "get", "pods", "-f", "directory/chart/values.yaml"}, exitFailure, "", "lanyard: testdata/access/directory/chart/values.yaml: document 1: not an object of the Kubernetes API: no kind"},
		"its template":                           {[]string{"explain", "user:ann", "get", "pods", "-f", "directory"}, exitFailure, "no: ", "it mentions rbac.authorization.k8s.io, so render it first if it is a template"},
		"create by name":                         {[]string{"explain", "user:w", "create", "configmaps/fresh", "-f", "subresources.yaml"}, 0, "is authorized as create without the name: no\nPATCH, as kubectl apply --server-side sends it, is authorized as patch and create with the name: yes\n", ""},
		"a verb misspelt":                        {[]string{"explain", "user:u", "crat", "pods", "-f", "subresources.yaml"}, exitFailure, "no: ", `note: "crat" is not a verb that Kubernetes uses: did you mean "create"?`},
		"a resource misspelt":                    {[]string{"explain", "user:u", "get", "podz", "-f", "subresources.yaml"}, exitFailure, "", "hint: did you mean pods?"},
		"a user name of an account":              {[]string{"explain", "system:serviceaccount:kubernetes-dashboard:admin-user", "get", "pods", "-f", "dashboard.yaml"}, 0, "yes: ", ""},
		"an account that no file holds":          {[]string{"explain", "sa:kubernetes-dashboard/admin-usr", "get", "pods", "-f", "dashboard.yaml"}, exitFailure, "no: ", "no file contains the service account kubernetes-dashboard/admin-usr: did you mean kubernetes-dashboard/admin-user?"},
		"a name for a resource in no namespace":  {[]string{"explain", "user:u", "get", "nodes", "-n", "shop", "-f", "subresources.yaml"}, 0, `namespace=""`, "nodes are not namespaced, so -n has no effect"},
		"a node":                                 {[]string{"explain", "node:worker-1", "get", "nodes/worker-1", "-f", "subresources.yaml"}, exitFailure, "no: ", "this answer considers RBAC only: an API server may allow nodes more"},
		"who-can shows the attributes":           {[]string{"who-can", "get", "nodes/metrics", "-f", "subresources.yaml"}, 0, "User/v", `note: request: verb="get" group="" resource="nodes" subresource="metrics" name="" namespace=""`},
		"a subject that a server refuses":        {[]string{"who-can", "get", "pods", "-f", "invalid.yaml"}, 0, "User/valid", "subjects[0].namespace: Required value"},
		"a subject of an API group that is none": {[]string{"explain", "user:ann", "get", "pods", "-f", "invalid.yaml"}, exitFailure, "no: ", `subjects[0].apiGroup: Unsupported value: "v1"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			args := append([]string{"access"}, test.args...)
			for i := range args {
				if i > 0 && args[i-1] == "-f" {
					args[i] = "testdata/access/" + args[i]
				}
			}
			got := run("", args...)
			if got.code != test.code || !strings.Contains(got.out, test.out) || !strings.Contains(got.errOut, test.note) {
				t.Errorf("%q: got %+v, want code %d, %q and the note %q", args, got, test.code, test.out, test.note)
			}
		})
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
		"both sources":    {"", []string{"list", "user:ann", "-f", "x", "--context", "y"}, exitUsage, "-f selects files"},
		"cluster default": {"", []string{"list", "user:ann", "--default-roles=false"}, exitUsage, "--default-roles requires -f"},
		"no file":         {"", []string{"list", "user:ann", "-f", "nowhere.yaml"}, exitFailure, "nowhere.yaml: no such file"},
		"empty directory": {"", []string{"list", "user:ann", "-f", empty}, exitFailure, "contains no .yaml, .yml or .json files"},
		"no policy":       {"kind: Pod\n", []string{"list", "user:ann", "-f", "-"}, exitFailure, "the files contain no roles and no bindings: 1 object is not policy and is ignored: Pod"},
		"no manifests":    {"", []string{"list", "user:ann", "-f", "testdata/access/directory/chart"}, exitFailure, "the files contain no roles and no bindings: 3 files hold no manifests"},
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
