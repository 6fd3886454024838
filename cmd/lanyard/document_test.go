package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"
	"go.etcd.io/etcd/etcdctl/v3/ctlv3"
	"go.etcd.io/etcd/etcdutl/v3/etcdutl"
)

// runDocument is `document FILE HEADING`: it runs the shell blocks under a heading of a file in docs with bash, in $WORK,
// so that a procedure is tested in the words that readers see. A block under a deeper heading belongs to that heading.
func runDocument(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: document FILE HEADING")
	}
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", args[0]))
	ts.Check(err)
	script := shellBlocks(string(text), args[1])
	if script == "" {
		ts.Fatalf("docs/%s has no shell block under the heading %q", args[0], args[1])
	}
	err = ts.Exec("bash", "-euo", "pipefail", "-c", script)
	switch {
	case err == nil && neg:
		ts.Fatalf("the blocks under %q succeeded", args[1])
	case err != nil && !neg:
		ts.Fatalf("the blocks under %q: %v", args[1], err)
	}
}

// shellBlocks returns the lines of the blocks that are marked sh under one heading of a Markdown text.
func shellBlocks(text, heading string) string {
	var script strings.Builder
	here, block := false, ""
	for line := range strings.Lines(text) {
		fence, isFence := strings.CutPrefix(strings.TrimSpace(line), "```")
		switch {
		case isFence && block == "":
			block = "text " + fence
		case isFence:
			block = ""
		case block == "" && strings.HasPrefix(line, "#"):
			here = strings.TrimSpace(strings.TrimLeft(line, "#")) == heading
		case here && block == "text sh":
			script.WriteString(line)
		}
	}
	return script.String()
}

// etcdctl and etcdutlMain are etcd's own programs, of the version that the authority embeds.
func etcdctl() { ctlv3.MustStart() }

func etcdutlMain() {
	root := &cobra.Command{Use: "etcdutl", SilenceUsage: true}
	root.PersistentFlags().StringVarP(&etcdutl.OutputFormat, "write-out", "w", "simple", "")
	root.AddCommand(etcdutl.NewSnapshotCommand(), etcdutl.NewDefragCommand())
	if err := root.Execute(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
