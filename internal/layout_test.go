// Package internal_test holds the project to its layout: arrows between packages run down only.
package internal_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const module = "lanyard.dev"

// rule forbids packages and files to import packages. A path stands for itself and all below it; one in never that ends in
// "!" stands for itself alone.
type rule struct {
	in     []string
	except []string
	never  []string
	why    string
}

var rules = []rule{
	{
		in:    []string{"internal/token", "internal/signingkey", "internal/rbac", "internal/account", "internal/access", "internal/podvalidation"},
		never: []string{"net/http", "k8s.io/client-go", "go.etcd.io", "k8s.io/apiserver/pkg/server"},
		// Only what a file imports itself is looked at: apimachinery's types bring net/http along, and that cannot be helped.
		why: "the domain knows no transport and no storage",
	},
	{
		in:    []string{"internal/token", "internal/signingkey", "internal/rbac", "internal/pki", "internal/etcd", "internal/files", "internal/podannotation", "internal/podsupport", "internal/podvalidation"},
		never: []string{module + "/internal/apiserver", module + "/internal/controller", module + "/internal/node", module + "/internal/standalone", module + "/internal/datadir"},
		why:   "what everything stands on stands on nothing above it",
	},
	{in: []string{""}, never: []string{"k8s.io/kubernetes"}, why: "it is not made to be imported"},
	{in: []string{"internal/node"}, never: []string{module + "/internal/apiserver"}, why: "agent and authority meet on the wire"},
	{in: []string{"internal/apiserver"}, never: []string{module + "/internal/node", module + "/internal/standalone"}, why: "agent and authority meet on the wire"},
	{in: []string{"internal/controller"}, never: []string{module + "/internal/apiserver"}, why: "controllers know stores, not the server that has them"},
	{in: []string{""}, except: []string{"cmd", "internal/cli"}, never: []string{module + "/internal/cli"}, why: "only main starts the command line"},
	{in: []string{"internal/apiserver/registry"}, never: []string{module + "/internal/apiserver!"}, why: "the assembly knows resources, not the other way"},
	{
		in: []string{"internal/apiserver/registry"}, except: []string{"internal/apiserver/registry/storagetest"},
		never: []string{module + "/internal/apiserver/api"}, why: "the tables name behaviour, not the other way",
	},
	{in: []string{"internal/apiserver/api/scheme.go"}, never: []string{module + "/internal/apiserver"}, why: "the tables say what is decoded"},
	{
		in: []string{"internal/apiserver/registry"}, except: []string{"internal/apiserver/registry/podsession"},
		never: []string{module + "/internal/apiserver/nodeclient"}, why: "only sessions need the way to a node",
	},
	{
		in: []string{""}, never: []string{
			"testing", module + "/internal/apiserver/registry/fieldtest", module + "/internal/apiserver/registry/storagetest", module + "/internal/rbac/rbactest",
			module + "/internal/node/nodetest",
		},
		except: []string{
			"internal/apiserver/registry/fieldtest", "internal/apiserver/registry/storagetest", "internal/rbac/rbactest", "internal/systemtest", "lanyardtest",
			"internal/node/nodetest",
		},
		why: "what helps tests stays out of the product",
	},
}

func within(path string, roots []string) bool {
	for _, root := range roots {
		if alone, ok := strings.CutSuffix(root, "!"); ok {
			if path == alone {
				return true
			}
			continue
		}
		if root == "" || path == root || strings.HasPrefix(path, root+"/") {
			return true
		}
	}
	return false
}

// breaks reports whether a file, or a package, named below the module, may not import that.
func (r rule) breaks(file, imported string) bool {
	return within(file, r.in) && !within(file, r.except) && within(imported, r.never)
}

func TestLayout(t *testing.T) {
	t.Parallel()
	files := 0
	err := filepath.WalkDir("..", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if name := entry.Name(); name == "testdata" || name != ".." && strings.HasPrefix(name, ".") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		files++
		return check(t, path)
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 100 {
		t.Errorf("only %d files were looked at", files)
	}
}

func check(t *testing.T, path string) error {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
	if err != nil {
		return err
	}
	name, err := filepath.Rel("..", path)
	if err != nil {
		return err
	}
	for _, spec := range parsed.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return err
		}
		for _, r := range rules {
			if r.breaks(filepath.ToSlash(name), imported) {
				t.Errorf("%s imports %s: %s", filepath.ToSlash(name), imported, r.why)
			}
		}
	}
	return nil
}

// TestRules holds the rules themselves to examples, so that a slip of the pen does not switch one off.
func TestRules(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		pkg, imported string
		broken        bool
	}{
		{"internal/token", "net/http", true}, {"internal/token", "net/url", false}, {"internal/rbac/bootstrap", "k8s.io/client-go/rest", true},
		{"internal/signingkey", "go.etcd.io/etcd/client/v3", true}, {"internal/rbac", "k8s.io/apiserver/pkg/server/options", true},
		{"internal/rbac", "k8s.io/apiserver/pkg/authentication/user", false}, {"internal/tokenvolume", "net/http", false},
		{"cmd/lanyard", "k8s.io/kubernetes/pkg/apis/core", true}, {"internal/node/cri", module + "/internal/apiserver/api", true},
		{"internal/apiserver/authn", module + "/internal/node", true}, {"internal/apiserver/authn", module + "/internal/token", false},
		{"cmd/lanyard", module + "/internal/cli", false}, {"internal/standalone", module + "/internal/cli", true},
		{"internal/apiserver/registry/pod", module + "/internal/apiserver", true},
		{"internal/apiserver/registry/pod", module + "/internal/apiserver/registry", false},
		{"internal/apiserver/registry/pod", module + "/internal/apiserver/api", true},
		{"internal/apiserver/registry/pod", module + "/internal/apiserver/nodeclient", true},
		{"internal/apiserver/api/scheme.go", module + "/internal/apiserver/registry/pod", true},
		{"internal/controller/namespacedefaults", module + "/internal/apiserver/mirror", true},
		{"internal/apiserver/registry/pod", module + "/internal/apiserver/registry/storagetest", true}, {"internal/cli", "testing", true},
	} {
		broken := false
		for _, r := range rules {
			broken = broken || r.breaks(test.pkg, test.imported)
		}
		if broken != test.broken {
			t.Errorf("%s imports %s: broken=%v", test.pkg, test.imported, broken)
		}
	}
}
