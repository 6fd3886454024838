package internal_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// forbidden are modules that a user of lanyardtest must not have to download. They are for the command line, for tests of
// the command line, and for the work on this repository.
var forbidden = []string{
	"k8s.io/kubectl", "k8s.io/cli-runtime", "sigs.k8s.io/kustomize", "go.etcd.io/etcd/etcdctl", "go.etcd.io/etcd/etcdutl", "k8s.io/cri-client",
	"honnef.co/go/tools", "k8s.io/gengo", "golang.org/x/tools",
}

// TestModulesOfAConsumer covers the tests of the packages below lanyardtest as well: `go mod tidy` in the consumer's module
// loads those too.
func TestModulesOfAConsumer(t *testing.T) {
	t.Parallel()
	packages := list(t, "-deps", "-f", `{{with .Module}}{{if .Main}}{{$.ImportPath}}{{end}}{{end}}`, "lanyard.dev/lanyardtest")
	if !slices.Contains(packages, "lanyard.dev/internal/apiserver") {
		t.Fatalf("lanyardtest is built of %q", packages)
	}
	modules := list(t, append([]string{"-deps", "-test", "-f", `{{with .Module}}{{.Path}}{{end}}`}, packages...)...)
	slices.Sort(modules)
	modules = slices.Compact(modules)
	if !slices.Contains(modules, "k8s.io/apiserver") {
		t.Fatalf("lanyardtest needs the modules %q", modules)
	}
	for _, module := range modules {
		if within(module, forbidden) {
			t.Errorf("a module that imports lanyardtest needs %s", module)
		}
	}
}

// TestToolsAreApart keeps tools out of this module's requirements, which those who require it inherit.
func TestToolsAreApart(t *testing.T) {
	t.Parallel()
	for _, module := range list(t, "-m", "-f", "{{.Path}}", "all") {
		if within(module, []string{"honnef.co/go/tools"}) {
			t.Errorf("lanyard.dev requires %s: tools belong in hack/tools/go.mod", module)
		}
	}
	if tools := list(t, "tool"); len(tools) > 0 {
		t.Errorf("go.mod has the tools %q, which belong in hack/tools/go.mod", tools)
	}
}

// TestOpenAPIGeneratorIsOfTheLibrary keeps the generator at the version of the library that reads what it generates.
func TestOpenAPIGeneratorIsOfTheLibrary(t *testing.T) {
	t.Parallel()
	version := func(args ...string) string {
		return strings.Join(list(t, append(args, "-m", "-f", "{{.Version}}", "k8s.io/kube-openapi")...), " ")
	}
	if library, tool := version(), version("-modfile=../hack/tools/go.mod"); library != tool || library == "" {
		t.Errorf("lanyard.dev requires k8s.io/kube-openapi %q, hack/tools %q", library, tool)
	}
}

func list(t *testing.T, args ...string) []string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", append([]string{"list"}, args...)...).Output()
	if err != nil {
		t.Fatalf("go list %q: %v", args, err)
	}
	return strings.Fields(string(out))
}
