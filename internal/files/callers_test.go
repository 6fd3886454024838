package files_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// unlimited are functions that read a whole file of any size, and pem.Decode, each with the function to use instead.
var unlimited = map[string]string{
	"os.ReadFile": "files.Read", "ioutil.ReadFile": "files.Read", "clientcmd.LoadFromFile": "files.Read",
	"policy.LoadPolicyFromFile": "files.Read", "tls.LoadX509KeyPair": "pki.ReadKeyPair", "pem.Decode": "pki.Blocks",
}

// ownOutput are packages that read what they have built themselves, examples, and helpers of tests.
var ownOutput = []string{"hack/release", "internal/ociimage", "internal/node/nodetest", "internal/node/nodetest/images/tool", "examples/dashboard"}

// TestFilesAreReadWithALimit keeps the product from reading a file of any size, such as a device that an operator names.
func TestFilesAreReadWithALimit(t *testing.T) {
	t.Parallel()
	root, seen := filepath.Join("..", ".."), 0
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		name = filepath.ToSlash(name)
		switch {
		case entry.IsDir() && (entry.Name() == "testdata" || strings.HasPrefix(name, ".") && name != "."):
			return filepath.SkipDir
		case entry.IsDir() || filepath.Ext(name) != ".go" || strings.HasSuffix(name, "_test.go"):
			return nil
		case slices.Contains(ownOutput, filepath.ToSlash(filepath.Dir(name))), name == "internal/pki/pem.go":
			return nil
		}
		seen++
		parsed, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			if called, ok := n.(*ast.SelectorExpr); ok {
				if pkg, ok := called.X.(*ast.Ident); ok && unlimited[pkg.Name+"."+called.Sel.Name] != "" {
					t.Errorf("%s uses %s.%s: use %s", name, pkg.Name, called.Sel.Name, unlimited[pkg.Name+"."+called.Sel.Name])
				}
			}
			return true
		})
		return nil
	})
	if err != nil || seen < 100 {
		t.Errorf("looked at %d files, %v", seen, err)
	}
}
