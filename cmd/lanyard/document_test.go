package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"go.etcd.io/etcd/etcdctl/v3/ctlv3"
)

// runDocument implements `document FILE HEADING`. It runs the shell blocks under a heading of a file in docs with bash, in
// $WORK, and compares the results with the claims of the document (see judge). Later `document` commands of the same script can
// use the variables and functions that a block defines. https://127.0.0.1:6443, the default address of `lanyard up`, is
// replaced by $URL.
func runDocument(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 || neg {
		ts.Fatalf("usage: document FILE HEADING")
	}
	text, err := readDocument(args[0])
	ts.Check(err)
	if address := ts.Getenv("URL"); address != "" {
		text = strings.ReplaceAll(text, "https://127.0.0.1:6443", address)
	}
	all := under(args[1], blocks(text))
	for _, b := range all {
		if b.condition != "" {
			ts.Logf("not run here: %s:%d, which is marked %q", args[0], b.line, b.condition)
		}
	}
	run := withCondition("", all)
	if len(run) == 0 {
		ts.Fatalf("docs/%s has no shell block to run under the heading %q", args[0], args[1])
	}
	ts.Check(os.WriteFile(ts.MkAbs(".document.sh"), []byte(shellScript(run)), 0o600))
	err = ts.Exec("bash", ts.MkAbs(".document.sh"))
	transcript, wrong := judge(run, ts.ReadFile("stdout"))
	fmt.Fprint(ts.Stdout(), transcript)
	if err := errors.Join(err, wrong); err != nil {
		ts.Fatalf("docs/%s, %q: %v", args[0], args[1], err)
	}
}

// makeCheckout implements `checkout`. It links the parts of the source tree that documents use into $WORK, and sets the
// variables in which go finds its caches.
func makeCheckout(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: checkout")
	}
	environment, err := checkout(ts.MkAbs("."))
	ts.Check(err)
	for _, setting := range environment {
		name, value, _ := strings.Cut(setting, "=")
		ts.Setenv(name, value)
	}
}

// checkout links the source tree into a directory, and returns the environment in which go finds its caches without HOME.
func checkout(dir string) ([]string, error) {
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		return nil, err
	}
	for _, name := range []string{"go.mod", "go.sum", "examples", "hack", "internal"} {
		if err := os.Symlink(filepath.Join(root, name), filepath.Join(dir, name)); err != nil {
			return nil, err
		}
	}
	names := []string{"GOCACHE", "GOMODCACHE", "GOPATH", "GOFLAGS", "GOPROXY"}
	output, err := exec.Command("go", append([]string{"env"}, names...)...).Output()
	if err != nil {
		return nil, fmt.Errorf("go env: %w", err)
	}
	var environment []string
	for n, value := range strings.SplitN(strings.TrimSuffix(string(output), "\n"), "\n", len(names)) {
		environment = append(environment, names[n]+"="+value)
	}
	return environment, nil
}

// A block is a fenced block of a Markdown file that holds shell commands. Its info string is `sh`, or `sh CONDITION` for a block
// that can run only under that condition. `console` blocks show a session: commands after "$ ", and the exact output of each.
type block struct {
	heading, language, condition string
	line                         int // of the first line of code, from 1
	code                         []string
}

func readDocument(name string) (string, error) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", name))
	return string(text), err
}

// blocks returns the shell and console blocks of a Markdown text. A block under a deeper heading belongs to that heading.
func blocks(text string) []block {
	var all []block
	var heading string
	var open *block
	for n, line := range strings.Split(text, "\n") {
		fence, isFence := strings.CutPrefix(strings.TrimSpace(line), "```")
		switch {
		case isFence && open == nil:
			language, condition, _ := strings.Cut(fence, " ")
			open = &block{heading: heading, language: language, condition: condition, line: n + 2}
		case isFence:
			if open.language == "sh" || open.language == "console" {
				all = append(all, *open)
			}
			open = nil
		case open != nil:
			open.code = append(open.code, line)
		case strings.HasPrefix(line, "#"):
			heading = strings.TrimSpace(strings.TrimLeft(line, "#"))
		}
	}
	return all
}

func under(heading string, all []block) []block {
	return slices.DeleteFunc(slices.Clone(all), func(b block) bool { return b.heading != heading })
}

// withCondition returns the blocks with a condition; "" selects those without one.
func withCondition(condition string, all []block) []block {
	return slices.DeleteFunc(slices.Clone(all), func(b block) bool { return b.condition != condition })
}

// shellBlocks returns the commands of the blocks under one heading of a Markdown text.
func shellBlocks(text, heading string) string {
	var script strings.Builder
	for _, b := range under(heading, blocks(text)) {
		script.WriteString(strings.Join(b.code, "\n") + "\n")
	}
	return script.String()
}

// prologue is the first line of each script. The traps mark where the output of a line begins, and which lines fail. The
// variables and functions of earlier scripts in the same directory are restored, and saved again at the end.
const prologue = `exec 2>&1 3>&1; set -uo pipefail; trap save_document EXIT; ` +
	`save_document() { trap - DEBUG ERR; { declare -f; for v in $(compgen -v); do [[ $known_variables == *" $v "* ]] || declare -p "$v"; done; } > .document.state; }; ` +
	`known_variables=; known_variables=" v $(compgen -v | tr '\n' ' ') "; [ ! -e .document.state ] || . ./.document.state; ` +
	`trap 'printf "\036D%d\n" "$LINENO" >&3' DEBUG; trap 'printf "\036E%d\n" "$LINENO" >&3' ERR`

// shellScript returns a script in which each command has the line number that it has in the document.
func shellScript(run []block) string {
	lines := []string{prologue}
	for _, b := range run {
		for len(lines) < b.line-1 {
			lines = append(lines, "")
		}
		for _, line := range b.code {
			if b.language == "console" {
				command, isCommand := strings.CutPrefix(line, "$ ")
				if line = command; !isCommand {
					line = ""
				}
			}
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "\n") + "\n:\n" // With a last command, the status of the one before is checked like the others.
}

// runWith runs blocks with bash in a directory, outside a testscript. The variables in environment are added to the environment
// of the test.
func runWith(ctx context.Context, dir string, environment []string, run []block) error {
	file := filepath.Join(dir, ".document.sh")
	if err := os.WriteFile(file, []byte(shellScript(run)), 0o600); err != nil {
		return err
	}
	shell := exec.CommandContext(ctx, "bash", file)
	shell.Dir, shell.Env, shell.WaitDelay = dir, append(os.Environ(), environment...), time.Second
	output, err := shell.CombinedOutput()
	transcript, wrong := judge(run, string(output))
	if err = errors.Join(err, wrong); err != nil {
		return fmt.Errorf("%w\n%s", err, transcript)
	}
	return nil
}

var (
	mark  = regexp.MustCompile(`\x1e([DE])(\d+)\n`)
	claim = regexp.MustCompile(`\s#\s(\d+|yes|no|forbidden|refused|warning)\b`)
)

// judge compares the output of a script with what the document claims, and returns the output without marks. A command may
// fail only if its comment begins with "no", "forbidden" or "refused", and must fail then. A comment that begins with a number,
// "yes", "no", "forbidden" or "warning" also names a word of the output. A command in a console block must print what
// the block shows.
func judge(run []block, output string) (transcript string, err error) {
	printed, failed := map[int]string{}, map[int]bool{}
	at := 0
	for rest := output; ; {
		next := mark.FindStringSubmatchIndex(rest)
		if next == nil {
			printed[at] += rest
			break
		}
		printed[at] += rest[:next[0]]
		at, _ = strconv.Atoi(rest[next[4]:next[5]])
		printed[at] += ""
		failed[at] = failed[at] || rest[next[2]:next[3]] == "E"
		rest = rest[next[1]:]
	}
	var wrong []error
	for _, b := range run {
		for n := range b.code {
			if fault := b.fault(n, printed, failed); fault != "" {
				wrong = append(wrong, fmt.Errorf("line %d: %s\n\t%s\n%s", b.line+n, fault, b.code[n], printed[b.line+n]))
			}
		}
	}
	return mark.ReplaceAllString(output, ""), errors.Join(wrong...)
}

// fault returns what is wrong with the result of one line of a block, or "".
func (b block) fault(n int, printed map[int]string, failed map[int]bool) string {
	line := b.line + n
	output, ran := printed[line]
	if b.language == "console" {
		if want := b.expected(n); strings.HasPrefix(b.code[n], "$ ") && output != want {
			return fmt.Sprintf("the document shows\n%sbut the command printed", want)
		}
		return ""
	}
	found := claim.FindStringSubmatch(b.code[n])
	if found == nil {
		if failed[line] {
			return "the command failed"
		}
		return ""
	}
	word := found[1]
	fails := word == "no" || word == "forbidden" || word == "refused"
	switch {
	case !ran:
		return "the comment is not on the first line of its command"
	case failed[line] != fails:
		return fmt.Sprintf("failed: %t, but the comment claims %q", failed[line], word)
	case word != "refused" && !regexp.MustCompile(`(?i)\b`+word+`\b`).MatchString(output):
		return fmt.Sprintf("the output lacks %q", word)
	}
	return ""
}

// expected returns the output that a console block shows for the command in a line.
func (b block) expected(n int) string {
	var want strings.Builder
	for _, line := range b.code[n+1:] {
		if strings.HasPrefix(line, "$ ") {
			break
		}
		want.WriteString(line + "\n")
	}
	return want.String()
}

// etcdctl is etcd's own program, in the version that the authority embeds.
func etcdctl() { ctlv3.MustStart() }
