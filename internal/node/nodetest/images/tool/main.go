//go:build unix

// Tool does in a container what a test wants to see from inside one. Steps are separated by an argument ";":
//
//	tool log hello ";" exit 3
//
// See steps for what there is.
package main

import (
	"fmt"
	"os"
	"slices"
)

// A step does one thing with its arguments. Its error ends the program with code 1.
type step func(args []string) error

func steps() map[string]step {
	return map[string]step{
		"sleep":      sleep,      // [DURATION]: until SIGTERM (which ends the program with 0) or that long
		"stubborn":   stubborn,   // as sleep, but SIGTERM and SIGINT do nothing
		"await":      await,      // FILE: until it exists
		"exit":       exit,       // N
		"log":        logLines,   // LINE...: each to stdout
		"log-stderr": logErrors,  // LINE...: each to stderr
		"log-many":   logMany,    // N: that many lines, numbered from 1
		"tick":       tick,       // DURATION: a numbered line each, until SIGTERM
		"echo-stdin": echoStdin,  // to stdout, until its end
		"print-env":  printEnv,   // [NAME...]: NAME=VALUE a line; all where none is named
		"args":       printArgs,  // ARG...: one a line
		"id":         printID,    // uid=, gid=, groups= of the process
		"pid":        printPID,   // its process ID
		"hostname":   hostname,   // its host name
		"pwd":        workingDir, // its working directory
		"tty":        printTTY,   // whether stdin is a terminal
		"cat":        cat,        // FILE...: to stdout
		"ls":         list,       // DIR: NAME MODE UID GID a line, links with their target
		"stat":       statFiles,  // FILE...: as ls does, links followed
		"write":      write,      // FILE TEXT
		"mkdir":      mkdir,      // DIR
		"on-hup":     onHup,      // FILE: a line is added at each SIGHUP; until SIGTERM
		"watch-file": watchFile,  // FILE: its contents to stdout whenever they change; until SIGTERM
		"allocate":   allocate,   // BYTES: touched, and kept
		"burn":       burn,       // uses one CPU until SIGTERM
		"serve":      serve,      // PORT: answers each line of a TCP connection with itself; until SIGTERM
		"dial":       dial,       // ADDRESS: connects and closes
		"interfaces": interfaces, // NAME ADDRESS a line
		"processes":  processes,  // PID COMMAND a line
	}
}

func main() {
	known := steps()
	for args := range split(os.Args[1:]) {
		run, ok := known[args[0]]
		if !ok {
			fmt.Fprintf(os.Stderr, "tool: no step %q\n", args[0])
			os.Exit(127)
		}
		if err := run(args[1:]); err != nil {
			fmt.Fprintf(os.Stderr, "tool: %s: %v\n", args[0], err)
			os.Exit(1)
		}
	}
}

// split yields what stands between arguments ";".
func split(args []string) func(func([]string) bool) {
	return func(yield func([]string) bool) {
		for len(args) > 0 {
			end := slices.Index(args, ";")
			if end < 0 {
				end = len(args)
			}
			if end > 0 && !yield(args[:end]) {
				return
			}
			args = args[min(end+1, len(args)):]
		}
	}
}
