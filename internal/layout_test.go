// Package internal_test checks what ARCHITECTURE.md states about this tree: which package may import which, what each
// package is called and documented as, how large files and packages are, and what a module that imports lanyardtest has
// to download.
package internal_test

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "lanyard.dev"

// rule forbids packages, or single files, to import packages. Paths of packages and files are relative to the module; imported
// paths are whole. A path includes all paths below it.
type rule struct {
	packages  []string
	forbidden []string
	reason    string
	// exceptions are single imports of single packages. Each must be in use.
	exceptions []exception
}

type exception struct{ pkg, imported, reason string }

// domain are the packages that decide about security without a network or a store, so that each can be read, tested and
// fuzzed alone.
var domain = []string{
	"internal/access", "internal/account", "internal/bootstraptoken", "internal/ledger", "internal/nodeaccess", "internal/podannotation", "internal/podoptions",
	"internal/podsupport", "internal/podvalidation", "internal/rbac", "internal/signingkey", "internal/token",
}

// aboveDomain are the packages that use the domain.
var aboveDomain = []string{
	module + "/internal/apiserver", module + "/internal/cli", module + "/internal/controller", module + "/internal/datadir", module + "/internal/etcd",
	module + "/internal/node", module + "/internal/process", module + "/internal/standalone", module + "/internal/tokenvolume",
}

var rules = []rule{
	{
		packages:  domain,
		forbidden: []string{"net/http", "k8s.io/client-go", "go.etcd.io", "k8s.io/apiserver"},
		// Only direct imports are checked, because the types of apimachinery import net/http.
		reason: "domain packages know no transport and no storage",
	},
	{packages: domain, forbidden: aboveDomain, reason: "domain packages do not import their users"},
	{
		packages: []string{"internal/pki", "internal/etcd", "internal/files"},
		forbidden: []string{
			module + "/internal/apiserver", module + "/internal/cli", module + "/internal/controller", module + "/internal/datadir", module + "/internal/node",
			module + "/internal/process", module + "/internal/standalone",
		},
		reason: "certificates, the store and files do not import their users",
	},
	{
		packages: []string{"apis"}, forbidden: []string{module + "/internal", "net/http", "k8s.io/api", "k8s.io/client-go", "k8s.io/apiserver"},
		reason: "clients import the kinds, which need apimachinery only",
	},
	{packages: []string{""}, forbidden: []string{"k8s.io/kubernetes"}, reason: "that module is not made to be imported"},
	{
		packages: []string{""}, forbidden: []string{module + "/internal/cli"}, reason: "only the program imports its command line",
		exceptions: []exception{
			{"cmd/lanyard", module + "/internal/cli", "it is the program"},
			{"internal/cli", module + "/internal/cli/translations", "the command line's own package"},
		},
	},
	{
		packages: []string{"internal/node"}, forbidden: []string{module + "/internal/apiserver", module + "/internal/controller", module + "/internal/standalone"},
		reason: "agent and authority meet on the wire",
	},
	{
		packages: []string{"internal/apiserver"}, forbidden: []string{module + "/internal/node", module + "/internal/process", module + "/internal/standalone"},
		reason: "agent and authority meet on the wire, and the assembly does not import its users",
	},
	{
		packages: []string{"internal/process"}, forbidden: []string{module + "/internal/node", module + "/internal/apiserver", module + "/internal/standalone"},
		reason: "lanyard exec needs neither an agent nor an authority in its process",
	},
	{
		packages:  []string{"internal/controller"},
		forbidden: []string{module + "/internal/apiserver", module + "/internal/node", module + "/internal/process", module + "/internal/standalone"},
		reason:    "controllers know the API, not the server that runs them",
	},
	{
		packages: []string{"internal/apiserver/registry"}, forbidden: []string{module + "/internal/apiserver/api"},
		reason: "the tables name the behaviour of kinds, and behaviour does not import the tables",
		exceptions: []exception{
			{"internal/apiserver/registry/storagetest", module + "/internal/apiserver/api", "tests get the stores that the tables describe"},
		},
	},
	{
		packages: []string{"internal/apiserver/api/scheme.go"}, forbidden: []string{module + "/internal/apiserver"},
		reason: "the scheme follows from the tables, and not from registries",
	},
	{
		packages: []string{"internal/apiserver/registry"}, forbidden: []string{module + "/internal/apiserver/nodeclient"},
		reason: "only sessions connect to nodes",
		exceptions: []exception{
			{"internal/apiserver/registry/podsession", module + "/internal/apiserver/nodeclient", "log, exec, attach and portforward are sessions on the pod's node"},
		},
	},
	{
		packages: []string{""}, forbidden: append([]string{"testing", "net/http/httptest"}, testPackages...),
		reason: "code that only tests need stays out of the product",
		exceptions: []exception{
			{"internal/apiserver/registry/fieldtest", "testing", "a test package"},
			{"internal/apiserver/registry/storagetest", "testing", "a test package"},
			{"internal/apiserver/controllertest", "testing", "a test package"},
			{"internal/apiserver/controllertest", module + "/internal/apiserver/registry/storagetest", "its stores are on that storage"},
			{"internal/node/nodetest", "testing", "a test package"},
			{"internal/node/nodetest", "net/http/httptest", "it serves images to a container runtime"},
			{"lanyardtest", "testing", "a test package, for other modules too"},
		},
	},
}

// testPackages help tests. No program except the images of nodetest contains them.
var testPackages = []string{
	module + "/internal/apiserver/registry/fieldtest", module + "/internal/apiserver/registry/storagetest",
	module + "/internal/apiserver/controllertest", module + "/internal/node/nodetest",
	module + "/internal/rbac/rbactest", module + "/lanyardtest",
}

// exactly lists the rules about a single package, which do not include the packages below it.
var exactly = []rule{{
	packages: []string{"internal/apiserver/registry"}, forbidden: []string{module + "/internal/apiserver"},
	reason: "the assembly imports registries, and no registry imports the assembly",
}}

// smallPackages are the packages of fewer than minPackage lines, with the reason why each is a package of its own.
var smallPackages = map[string]string{
	"internal/hint":                       "packages of every layer attach hints to errors, and the command line prints them",
	"cmd/lanyard":                         "a program's main function cannot be imported, so the command line is a package of its own",
	"internal/cli/translations":           "Go has to initialize it before the packages of kubectl that load translations",
	"internal/deadline":                   "apiserver, standalone and cli each bound the steps of their end with it, and it needs none of them",
	"internal/node/nodetest/images/pause": "a program for tests: the process of a sandbox",
	"internal/systemtest":                 "everything else in it are tests",
}

// longFiles are the files of more than maxFile lines, with the reason.
var longFiles = map[string]string{
	"internal/apiserver/openapi/zz_generated.openapi.go": "generated",
}

const (
	minPackage = 60
	maxFile    = 600
)

// sourceFile is a Go file that is not a test.
type sourceFile struct {
	name    string // relative to the module
	lines   int
	imports []string
	pkg     string // as in its package clause
	doc     string
}

// tree returns the files of each package of this module. Directories are relative to the module.
func tree(t *testing.T) map[string][]sourceFile {
	t.Helper()
	found := map[string][]sourceFile{}
	err := filepath.WalkDir("..", func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if name := entry.Name(); name == "testdata" || name != ".." && strings.HasPrefix(name, ".") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
			return nil
		}
		parsed, err := parse(file)
		if err != nil {
			return err
		}
		dir := path.Dir(parsed.name)
		found[dir] = append(found[dir], parsed)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(found) < 50 {
		t.Fatalf("found only %d packages", len(found))
	}
	return found
}

func parse(file string) (sourceFile, error) {
	name, err := filepath.Rel("..", file)
	if err != nil {
		return sourceFile{}, err
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return sourceFile{}, err
	}
	parsed, err := parser.ParseFile(token.NewFileSet(), file, text, parser.ImportsOnly|parser.ParseComments)
	if err != nil {
		return sourceFile{}, err
	}
	f := sourceFile{name: filepath.ToSlash(name), lines: bytes.Count(text, []byte("\n")), pkg: parsed.Name.Name, doc: docOf(parsed)}
	for _, spec := range parsed.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return sourceFile{}, err
		}
		f.imports = append(f.imports, imported)
	}
	return f, nil
}

func docOf(file *ast.File) string {
	if file.Doc == nil {
		return ""
	}
	return file.Doc.Text()
}

// within reports whether a path is one of the roots or below one. The root "" is above all paths.
func within(name string, roots []string) bool {
	return slices.ContainsFunc(roots, func(root string) bool {
		return root == "" || name == root || strings.HasPrefix(name, root+"/")
	})
}

// violated returns why a file may not import a package, or "". It calls use with each exception that permits the
// import.
func violated(file, imported string, use func(exception)) string {
	for _, r := range rules {
		if !within(file, r.packages) || !within(imported, r.forbidden) {
			continue
		}
		i := slices.IndexFunc(r.exceptions, func(e exception) bool { return e.pkg == path.Dir(file) && e.imported == imported })
		if i < 0 {
			return r.reason
		}
		use(r.exceptions[i])
	}
	for _, r := range exactly {
		if within(file, r.packages) && slices.Contains(r.forbidden, imported) {
			return r.reason
		}
	}
	return ""
}

// TestImports checks the direct imports of every package against the rules, and that each exception is needed.
func TestImports(t *testing.T) {
	t.Parallel()
	packages := tree(t)
	used := map[exception]bool{}
	for _, files := range packages {
		for _, file := range files {
			for _, imported := range file.imports {
				if reason := violated(file.name, imported, func(e exception) { used[e] = true }); reason != "" {
					t.Errorf("%s imports %s: %s", file.name, imported, reason)
				}
			}
		}
	}
	for _, r := range append(rules, exactly...) {
		for _, e := range r.exceptions {
			if !used[e] {
				t.Errorf("%s does not import %s any more: remove the exception", e.pkg, e.imported)
			}
		}
		for _, name := range r.packages {
			if _, err := os.Stat(filepath.Join("..", filepath.FromSlash(name))); err != nil {
				t.Errorf("a rule is about %s, which does not exist", name)
			}
		}
		for _, name := range r.forbidden {
			if own, ok := strings.CutPrefix(name, module+"/"); ok && len(packages[own]) == 0 && !hasPackageBelow(packages, own) {
				t.Errorf("a rule forbids %s, which is not a package", name)
			}
		}
	}
}

func hasPackageBelow(packages map[string][]sourceFile, name string) bool {
	for pkg := range packages {
		if within(pkg, []string{name}) {
			return true
		}
	}
	return false
}

// TestRules checks the rules themselves with examples, so that a slip in their text does not switch one off.
func TestRules(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, imported string // name is a package, or a file
		refused        bool
	}{
		{"internal/token", "net/http", true}, {"internal/token", "net/http/httptrace", true}, {"internal/token", "net/url", false},
		{"internal/rbac/bootstrap", "k8s.io/client-go/rest", true}, {"internal/signingkey", "go.etcd.io/etcd/client/v3", true},
		{"internal/rbac", "k8s.io/apiserver/pkg/server/options", true}, {"internal/rbac", "k8s.io/apiserver/pkg/authentication/user", true},
		{"internal/rbac/objects", "k8s.io/apimachinery/pkg/runtime", false}, {"internal/nodeaccess", "k8s.io/apiserver/pkg/authorization/authorizer", true},
		{"internal/bootstraptoken", "k8s.io/client-go/kubernetes", true}, {"internal/podoptions", "net/http", true},
		{"internal/podsupport", module + "/internal/apiserver/registry/pod", true}, {"internal/access", module + "/internal/cli", true},
		{"internal/podannotation", module + "/internal/node/pod", true}, {"internal/account", module + "/internal/controller/policy", true},
		{"internal/access", module + "/internal/rbac", false}, {"internal/tokenvolume", "net/http", false},
		{"internal/pki", module + "/internal/datadir", true}, {"internal/etcd", module + "/internal/standalone", true},
		{"cmd/lanyard", "k8s.io/kubernetes/pkg/apis/core", true}, {"internal/node/cri", module + "/internal/apiserver/api", true},
		{"internal/apiserver/authn", module + "/internal/node", true}, {"internal/apiserver/authn", module + "/internal/token", false},
		{"internal/process", module + "/internal/node", true}, {"internal/process", module + "/internal/node/volume", true},
		{"internal/process", module + "/internal/nodeaccess", false}, {"internal/process", module + "/internal/tokenvolume", false},
		{"cmd/lanyard", module + "/internal/cli", false}, {"internal/standalone", module + "/internal/cli", true},
		{"internal/apiserver/registry/pod", module + "/internal/apiserver", true}, {"internal/apiserver/registry/pod", module + "/internal/apiserver/registry", false},
		{"internal/apiserver/registry/pod", module + "/internal/apiserver/api", true}, {"internal/apiserver/registry/storagetest", module + "/internal/apiserver/api", false},
		{"internal/apiserver/registry/pod", module + "/internal/apiserver/nodeclient", true}, {"internal/apiserver/registry/podsession", module + "/internal/apiserver/nodeclient", false},
		{"internal/apiserver/api/scheme.go", module + "/internal/apiserver/registry/pod", true},
		{"internal/apiserver/api/core.go", module + "/internal/apiserver/registry/pod", false},
		{"internal/controller/namespacedefaults", module + "/internal/apiserver/mirror", true},
		{"internal/apiserver/registry/pod", module + "/internal/apiserver/registry/storagetest", true}, {"internal/cli", "testing", true}, {"internal/cli", "net/http/httptest", true},
	} {
		file := test.name
		if path.Ext(file) == "" {
			file += "/any.go"
		}
		if reason := violated(file, test.imported, func(exception) {}); (reason != "") != test.refused {
			t.Errorf("%s imports %s: %q, want refused %v", test.name, test.imported, reason, test.refused)
		}
	}
}

// TestPackagesAreDocumented expects "Package name ..." of every package, and "Command name ..." or "Name ..." of a
// program.
func TestPackagesAreDocumented(t *testing.T) {
	t.Parallel()
	for pkg, files := range tree(t) {
		var docs []string
		for _, file := range files {
			if file.doc != "" {
				docs = append(docs, file.doc)
			}
		}
		name := files[0].pkg
		begins := []string{"Package " + name + " "}
		if name == "main" {
			program := path.Base(pkg)
			begins = []string{"Command " + program + " ", strings.ToUpper(program[:1]) + program[1:] + " "}
		}
		if len(docs) != 1 || !slices.ContainsFunc(begins, func(want string) bool { return strings.HasPrefix(docs[0], want) }) {
			t.Errorf("%s has the package comments %.80q, want one that begins with %q", pkg, docs, begins)
		}
	}
}

// TestSizes limits files and packages to sizes that a reader can remember.
func TestSizes(t *testing.T) {
	t.Parallel()
	packages := tree(t)
	small, long := map[string]bool{}, map[string]bool{}
	for pkg, files := range packages {
		total := 0
		for _, file := range files {
			total += file.lines
			if file.lines <= maxFile {
				continue
			}
			long[file.name] = true
			if longFiles[file.name] == "" {
				t.Errorf("%s has %d lines, more than %d: divide it, or give the reason in longFiles", file.name, file.lines, maxFile)
			}
		}
		if total >= minPackage {
			continue
		}
		small[pkg] = true
		if smallPackages[pkg] == "" {
			t.Errorf("package %s has %d lines, fewer than %d: merge it, or give the reason in smallPackages", pkg, total, minPackage)
		}
	}
	for pkg := range smallPackages {
		if !small[pkg] {
			t.Errorf("package %s is gone or not small any more: remove it from smallPackages", pkg)
		}
	}
	for name := range longFiles {
		if !long[name] {
			t.Errorf("%s is gone or not long any more: remove it from longFiles", name)
		}
	}
}
