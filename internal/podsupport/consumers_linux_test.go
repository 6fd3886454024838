package podsupport

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// mappedButRefused are fields that the mapping to CRI implements, although the agent refuses a pod that has them.
var mappedButRefused = []string{"PodSecurityContext.Sysctls", "Sysctl.Name", "Sysctl.Value", "SeccompProfile.LocalhostProfile"}

// TestConsumers compares the table with the source of the packages that implement the fields. A field of the table must be read
// by the package that the table names, and the packages of the agent must read no field of a pod's spec that the table does not
// have.
func TestConsumers(t *testing.T) {
	t.Parallel()
	agent := []consumer{runtimeMapping, worker, volumes, apiVolumes}
	reads := readsOf(t, append(agent, scheduler, nodeAffinity, admission)...)
	known, supported := map[string]bool{}, map[string]bool{}
	var reach func(typ reflect.Type, path string, whole bool)
	reach = func(typ reflect.Type, path string, whole bool) {
		for typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice {
			typ = typ.Elem()
		}
		if typ.Kind() != reflect.Struct || typ.PkgPath() != reflect.TypeFor[corev1.Pod]().PkgPath() {
			return
		}
		for i := range typ.NumField() {
			f := typ.Field(i)
			source, name := typ.Name()+"."+f.Name, path
			if !f.Anonymous {
				name += "." + jsonName(f)
			}
			row, declaredHere := declared().fields[name]
			if declaredHere && !f.Anonymous && row.by != noEffect && row.by != notScheduled && !reads[row.by][source] {
				t.Errorf("according to the table, %s implements %s, but the package does not name %s", row.by, name, source)
			}
			known[source] = true
			if whole || declaredHere || declared().above[name] {
				supported[source] = true
			}
			reach(f.Type, name, whole || declaredHere)
		}
	}
	reach(reflect.TypeFor[corev1.PodSpec](), "spec", false)
	for _, pkg := range agent {
		for source := range reads[pkg] {
			if known[source] && !supported[source] && !slices.Contains(mappedButRefused, source) {
				t.Errorf("%s reads %s, which the table does not have", pkg, source)
			}
		}
	}
	for _, source := range mappedButRefused {
		if !reads[runtimeMapping][source] || supported[source] {
			t.Errorf("%s is not a field that is mapped and refused", source)
		}
	}
}

// listedPackage is what `go list` prints of a package.
type listedPackage struct {
	ImportPath, Dir, Export string
	GoFiles                 []string
	DepOnly                 bool
}

// readsOf returns for each package the fields of the core API's types that its files name, as TYPE.FIELD. Tests are ignored.
func readsOf(t *testing.T, packages ...consumer) map[consumer]map[string]bool {
	t.Helper()
	listed := listPackages(t, packages)
	exports := map[string]string{}
	for _, pkg := range listed {
		exports[pkg.ImportPath] = pkg.Export
	}
	files := token.NewFileSet()
	config := types.Config{Importer: importer.ForCompiler(files, "gc", func(path string) (io.ReadCloser, error) { return os.Open(exports[path]) })}
	reads := map[consumer]map[string]bool{}
	for _, pkg := range listed {
		if pkg.DepOnly {
			continue
		}
		var parsed []*ast.File
		for _, name := range pkg.GoFiles {
			file, err := parser.ParseFile(files, filepath.Join(pkg.Dir, name), nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			parsed = append(parsed, file)
		}
		info := &types.Info{Selections: map[*ast.SelectorExpr]*types.Selection{}}
		if _, err := config.Check(pkg.ImportPath, files, parsed, info); err != nil {
			t.Fatal(err)
		}
		reads[consumer(pkg.ImportPath)] = fieldsNamed(info)
	}
	return reads
}

func listPackages(t *testing.T, packages []consumer) []listedPackage {
	t.Helper()
	args := []string{"list", "-export", "-deps", "-json=ImportPath,Dir,Export,GoFiles,DepOnly"}
	for _, pkg := range packages {
		args = append(args, string(pkg))
	}
	command := exec.CommandContext(t.Context(), "go", args...)
	command.Stderr = os.Stderr
	output, err := command.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []listedPackage
	for decoder := json.NewDecoder(bytes.NewReader(output)); ; {
		var one listedPackage
		if err := decoder.Decode(&one); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, one)
	}
}

// fieldsNamed returns the fields that the selectors of a package name, including fields of embedded structs.
func fieldsNamed(info *types.Info) map[string]bool {
	core := reflect.TypeFor[corev1.Pod]().PkgPath()
	all := map[string]bool{}
	for _, selection := range info.Selections {
		at, steps := selection.Recv(), selection.Index()
		if selection.Kind() != types.FieldVal {
			steps = steps[:len(steps)-1] // the last one is a method
		}
		for _, index := range steps {
			if p, ok := at.Underlying().(*types.Pointer); ok {
				at = p.Elem()
			}
			s, ok := at.Underlying().(*types.Struct)
			if !ok {
				break
			}
			if n, ok := types.Unalias(at).(*types.Named); ok && n.Obj().Pkg() != nil && n.Obj().Pkg().Path() == core {
				all[n.Obj().Name()+"."+s.Field(index).Name()] = true
			}
			at = s.Field(index).Type()
		}
	}
	return all
}
