package internal_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// unwanted are modules that a module which imports lanyardtest must not have to download: they are for the command line, its tests,
// and the work on this repository.
var unwanted = []string{
	"k8s.io/kubectl", "k8s.io/cli-runtime", "sigs.k8s.io/kustomize", "go.etcd.io/etcd/etcdctl", "go.etcd.io/etcd/etcdutl", "k8s.io/cri-client",
	"filippo.io/age",
	"honnef.co/go/tools", "k8s.io/gengo", "golang.org/x/tools",
}

// TestModulesOfAConsumer checks the modules that importing lanyardtest requires. It includes the tests of the packages that
// lanyardtest imports, because `go mod tidy` in the importing module loads those too.
func TestModulesOfAConsumer(t *testing.T) {
	t.Parallel()
	packages := list(t, "-deps", "-f", `{{with .Module}}{{if .Main}}{{$.ImportPath}}{{end}}{{end}}`, "lanyard.dev/lanyardtest")
	if !slices.Contains(packages, "lanyard.dev/internal/apiserver") {
		t.Fatalf("lanyardtest imports %q, want lanyard.dev/internal/apiserver among them", packages)
	}
	modules := list(t, append([]string{"-deps", "-test", "-f", `{{with .Module}}{{.Path}}{{end}}`}, packages...)...)
	slices.Sort(modules)
	modules = slices.Compact(modules)
	if !slices.Contains(modules, "k8s.io/apiserver") {
		t.Fatalf("lanyardtest requires the modules %q, want k8s.io/apiserver among them", modules)
	}
	for _, module := range modules {
		if within(module, unwanted) {
			t.Errorf("a module that imports lanyardtest requires %s", module)
		}
	}
}

// TestToolsHaveAModuleOfTheirOwn keeps tools out of this module's requirements, which every module that requires this one inherits.
func TestToolsHaveAModuleOfTheirOwn(t *testing.T) {
	t.Parallel()
	for _, module := range list(t, "-m", "-f", "{{.Path}}", "all") {
		if within(module, []string{"honnef.co/go/tools"}) {
			t.Errorf("lanyard.dev requires %s: tools belong in hack/tools/go.mod", module)
		}
	}
	if tools := list(t, "tool"); len(tools) > 0 {
		t.Errorf("go.mod lists the tools %q, which belong in hack/tools/go.mod", tools)
	}
}

// TestOpenAPIGeneratorMatchesTheLibrary checks that the generator and the library that reads its output have the same version.
func TestOpenAPIGeneratorMatchesTheLibrary(t *testing.T) {
	t.Parallel()
	version := func(args ...string) string {
		return strings.Join(list(t, append(args, "-m", "-f", "{{.Version}}", "k8s.io/kube-openapi")...), " ")
	}
	if library, tool := version(), version("-modfile=../hack/tools/go.mod"); library != tool || library == "" {
		t.Errorf("lanyard.dev requires k8s.io/kube-openapi %q, hack/tools %q", library, tool)
	}
}

// list returns the words that `go list` prints.
func list(t *testing.T, args ...string) []string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", append([]string{"list"}, args...)...).Output()
	if err != nil {
		t.Fatalf("go list %q: %v", args, err)
	}
	return strings.Fields(string(out))
}
