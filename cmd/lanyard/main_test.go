package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

var update = flag.Bool("update", false, "rewrite the files that scripts compare with")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"lanyard": main, "dashboard": dashboard, "etcdctl": etcdctl})
}

// TestScript runs the scripts. Each uses the real lanyard, including its kubectl, with an authority of its own.
// testdata/script/README describes the commands that these scripts have besides the commands of testscript.
func TestScript(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("scripts end the authority with signals")
	}
	testscript.Run(t, testscript.Params{
		Dir:                "testdata/script",
		Setup:              setup,
		Condition:          condition,
		UpdateScripts:      *update,
		RequireUniqueNames: true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"start-lanyard": startLanyard,
			"stop-lanyard":  stopLanyard,
			"http":          runHTTP,
			"serve":         serveWithFault,
			"forge":         forge,
			"relying-party": relyingParty,
			"kubeconfig":    kubeconfig,
			"setenv":        setenv,
			"await":         await,
			"until":         until,
			"code":          code,
			"document":      runDocument,
			"checkout":      makeCheckout,
		},
	})
}

// setup separates a script from everything outside its directory: the user's kubeconfig, caches and running authorities.
func setup(env *testscript.Env) error {
	for name, dir := range map[string]string{
		"HOME": "home", "LANYARD_RUNTIME_DIR": "run", "XDG_DATA_HOME": "share", "XDG_RUNTIME_DIR": "xdg",
	} {
		env.Setenv(name, filepath.Join(env.WorkDir, dir))
	}
	if err := os.Mkdir(filepath.Join(env.WorkDir, "home"), 0o700); err != nil {
		return err
	}
	env.Setenv("KUBECONFIG", "")
	env.Setenv("CA", filepath.Join(env.WorkDir, "data", "ca.crt"))
	a := &authority{}
	env.Values[authorityKey{}] = a
	env.Defer(a.kill)
	return nil
}

func condition(name string) (bool, error) {
	switch name {
	case "root":
		return os.Geteuid() == 0, nil
	case "namespaces":
		return namespaces(), nil
	}
	return false, fmt.Errorf("unknown condition %q", name)
}
