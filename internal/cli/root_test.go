package cli

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// result is the result of a command line.
type result struct {
	code        int
	out, errOut string
}

func run(stdin string, args ...string) result {
	var out, errOut bytes.Buffer
	code := Run(args, strings.NewReader(stdin), &out, &errOut)
	return result{code, out.String(), errOut.String()}
}

func checkGolden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s differs (-want +got); -update rewrites it:\n%s", path, diff)
	}
}

// TestHelp compares the help of every command with a golden file, except the help of kubectl, which kubectl itself writes.
func TestHelp(t *testing.T) {
	t.Parallel()
	var visit func(cmd *cobra.Command)
	visit = func(cmd *cobra.Command) {
		if cmd.Name() == "kubectl" {
			return
		}
		path := strings.Fields(cmd.CommandPath())
		t.Run(strings.Join(path, "_"), func(t *testing.T) {
			got := run("", append(path[1:], "--help")...)
			if got.code != 0 || got.errOut != "" {
				t.Errorf("exit code %d, standard error %q", got.code, got.errOut)
			}
			checkGolden(t, filepath.Join("help", strings.Join(path, "_")+".txt"), got.out)
		})
		for _, child := range cmd.Commands() {
			visit(child)
		}
	}
	visit(newRoot(streams{}))
}

func TestEveryCommandExplainsItself(t *testing.T) {
	t.Parallel()
	for _, cmd := range commands(streams{}) {
		if cmd.Short == "" || strings.HasSuffix(cmd.Short, ".") {
			t.Errorf("%s: short help %q", cmd.Name(), cmd.Short)
		}
	}
}

func TestUsageErrors(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		args []string
		want string
	}{
		"unknown flag":       {[]string{"--foo"}, "lanyard: unknown flag: --foo\nhint: see lanyard --help\n"},
		"unknown command":    {[]string{"frobnicate"}, "lanyard: unknown command \"frobnicate\" for lanyard\nhint: see lanyard --help\n"},
		"misspelt command":   {[]string{"verson"}, "lanyard: unknown command \"verson\" for lanyard\nhint: did you mean lanyard version?\n"},
		"misspelt below":     {[]string{"token", "inspct"}, "lanyard: unknown command \"inspct\" for lanyard token\nhint: did you mean lanyard token inspect?\n"},
		"flag below":         {[]string{"version", "--foo"}, "lanyard: unknown flag: --foo\nhint: see lanyard version --help\n"},
		"misspelt flag":      {[]string{"up", "--data-dri", "x"}, "lanyard: unknown flag: --data-dri\nhint: did you mean --data-dir?\n"},
		"too long a flag":    {[]string{"up", "--data-directory=x"}, "lanyard: unknown flag: --data-directory\nhint: did you mean --data-dir?\n"},
		"one dash":           {[]string{"up", "-data-dir=x"}, "lanyard: unknown shorthand flag: 'd' in -data-dir=x\nhint: did you mean --data-dir?\n"},
		"unknown letter":     {[]string{"up", "-x"}, "lanyard: unknown shorthand flag: 'x' in -x\nhint: see lanyard up --help\n"},
		"no value":           {[]string{"up", "--data-dir"}, "lanyard: flag needs an argument: --data-dir\nhint: see lanyard up --help\n"},
		"before a command":   {[]string{"exec", "--serviceacount", "x", "--", "true"}, "lanyard: unknown flag: --serviceacount\nhint: did you mean --serviceaccount?\n"},
		"help":               {[]string{"help", "tokn"}, "lanyard: unknown command \"tokn\" for lanyard\nhint: did you mean lanyard token?\n"},
		"help below":         {[]string{"help", "token", "chew"}, "lanyard: unknown command \"chew\" for lanyard token\nhint: see lanyard token --help\n"},
		"nearest of several": {[]string{"exc"}, "lanyard: unknown command \"exc\" for lanyard\nhint: did you mean lanyard exec?\n"},
		"argument":           {[]string{"version", "x"}, "lanyard: unexpected argument \"x\"\nhint: see lanyard version --help\n"},
		"output":             {[]string{"version", "-o", "xml"}, "lanyard: --output must be text, json or yaml, not \"xml\"\nhint: see lanyard version --help\n"},
		"two tokens":         {[]string{"token", "inspect", "a", "b"}, "lanyard: more than one token given\nhint: see lanyard token inspect --help\n"},
		"no keys":            {[]string{"token", "verify"}, "lanyard: give the issuer with --issuer or its keys with --jwks\nhint: see lanyard token verify --help\n"},
		"plain http":         {[]string{"token", "verify", "--issuer", "http://x"}, "lanyard: --issuer must be an https:// URL, not \"http://x\"\nhint: see lanyard token verify --help\n"},
		"every fault":        {[]string{"token", "verify", "--audience=", "-ox"}, "lanyard: give the issuer with --issuer or its keys with --jwks\nlanyard: --audience must not be empty\nlanyard: --output must be text, json or yaml, not \"x\"\nhint: see lanyard token verify --help\n"},
		"age of a key":       {[]string{"up", "--data-dir", "x", "--container-runtime-endpoint", "none", "--encryption-key-max-age", "1m"}, "lanyard: --encryption-key-max-age 1m0s: must be 0 or at least 1h\nhint: see lanyard up --help\n"},
		"CA without a fetch": {[]string{"token", "verify", "--jwks", "f", "--certificate-authority", "g"}, "lanyard: --certificate-authority has no effect with --jwks, which names a file\nhint: see lanyard token verify --help\n"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(result{exitUsage, "", test.want}, run("", test.args...), cmp.AllowUnexported(result{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestEveryMisspeltFlagIsRecognized omits one letter of each flag of each command.
func TestEveryMisspeltFlagIsRecognized(t *testing.T) {
	t.Parallel()
	var visit func(cmd *cobra.Command)
	visit = func(cmd *cobra.Command) {
		path := strings.Fields(cmd.CommandPath())[1:]
		cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if len(f.Name) < 3 {
				return
			}
			typed := f.Name[:len(f.Name)-2] + f.Name[len(f.Name)-1:]
			got := run("", append(path, "--"+typed)...)
			if want := "lanyard: unknown flag: --" + typed + "\nhint: did you mean --" + f.Name + "?\n"; got.code != exitUsage || got.errOut != want {
				t.Errorf("%s: %+v, want %q", cmd.CommandPath(), got, want)
			}
		})
		for _, child := range cmd.Commands() {
			if !child.DisableFlagParsing {
				visit(child)
			}
		}
	}
	visit(newRoot(streams{}))
}

func TestHelpCommand(t *testing.T) {
	t.Parallel()
	for _, path := range [][]string{{}, {"token"}, {"token", "inspect"}} {
		got, want := run("", append([]string{"help"}, path...)...), run("", append(path, "--help")...)
		if got != want || got.code != 0 {
			t.Errorf("help of %q: %+v", path, got)
		}
	}
}

// panicReader simulates a defect in a command.
type panicReader struct{}

func (panicReader) Read([]byte) (int, error) { panic("broken\nsecond line") }

func TestPanicIsOneLine(t *testing.T) {
	t.Parallel()
	var out, errOut bytes.Buffer
	code := Run([]string{"token", "inspect"}, panicReader{}, &out, &errOut)
	if code != exitFailure || !strings.HasPrefix(errOut.String(), "lanyard: internal error: broken\nhint: ") || strings.Contains(errOut.String(), "goroutine") {
		t.Errorf("code %d, standard error %q", code, errOut.String())
	}
}
