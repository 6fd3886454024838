//go:build unix

// Tool performs steps in a container, for tests that look at a container from inside. Steps are separated by an argument ";":
//
//	tool log hello ";" exit 3
//
// The function steps lists the steps.
package main

import (
	"fmt"
	"os"
	"slices"
)

// A step performs one action with its arguments. If it returns an error, the program ends with code 1.
type step func(args []string) error

func steps() map[string]step {
	return map[string]step{
		"sleep":      sleep,      // [DURATION]: sleeps for that time, or until SIGTERM, which ends the program with code 0
		"stubborn":   stubborn,   // sleeps and ignores SIGTERM and SIGINT
		"await":      await,      // FILE: waits until it exists
		"exit":       exit,       // N
		"log":        logLines,   // LINE...: each to stdout
		"log-stderr": logErrors,  // LINE...: each to stderr
		"log-many":   logMany,    // N: logs N lines, numbered from 1
		"tick":       tick,       // DURATION: logs a numbered line in each period until SIGTERM
		"echo-stdin": echoStdin,  // copies stdin to stdout
		"print-env":  printEnv,   // [NAME...]: one NAME=VALUE per line; without NAME all variables
		"args":       printArgs,  // ARG...: one per line
		"id":         printID,    // uid=, gid=, groups= of the process
		"pid":        printPID,   // its process ID
		"hostname":   hostname,   // its host name
		"pwd":        workingDir, // its working directory
		"tty":        printTTY,   // whether stdin is a terminal
		"cat":        cat,        // FILE...: to stdout
		"ls":         list,       // DIR: one NAME MODE UID GID per line, links with their target
		"stat":       statFiles,  // FILE...: like ls, but follows links
		"write":      write,      // FILE TEXT
		"mkdir":      mkdir,      // DIR
		"on-hup":     onHup,      // FILE: appends a line at each SIGHUP until SIGTERM
		"watch-file": watchFile,  // FILE: prints its content whenever it changes until SIGTERM
		"allocate":   allocate,   // BYTES: allocates and writes memory
		"burn":       burn,       // uses one CPU until SIGTERM
		"serve":      serve,      // PORT: echoes TCP connections until SIGTERM
		"dial":       dial,       // ADDRESS: connects and closes the connection
		"interfaces": interfaces, // one NAME ADDRESS per line
		"processes":  processes,  // one PID COMMAND per line
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

// split yields the arguments of each step.
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
