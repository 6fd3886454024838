// Image writes a container image of a Go program to standard output, as an archive that container runtimes can import:
//
//	go run ./hack/image my-dashboard ./examples/dashboard | ctr --namespace k8s.io images import -
//
// It is for machines that cannot reach a registry. It completes the name in the same way as the agent completes image names of
// pods, and reports progress on standard error.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/distribution/reference"
	"golang.org/x/term"

	"lanyard.dev/internal/ociimage"
)

func main() {
	if err := run(os.Args[1:], os.Stdout, os.Stderr, term.IsTerminal(int(os.Stdout.Fd())), term.IsTerminal(int(os.Stderr.Fd()))); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func run(args []string, out, messages io.Writer, outIsTerminal, messagesAreTerminal bool) error {
	if len(args) != 2 {
		return errors.New("usage: go run ./hack/image NAME PACKAGE > image.tar")
	}
	if outIsTerminal {
		return errors.New("standard output is a terminal: write the archive to a file, or pipe it, as in | ctr --namespace k8s.io images import -")
	}
	named, err := reference.ParseDockerRef(args[0])
	if err != nil {
		return fmt.Errorf("name %q: %w", args[0], err)
	}
	began := time.Now()
	fmt.Fprintf(messages, "image: building %s; packages that are not in the build cache of Go are compiled first\n", args[1])
	compiled := &counter{out: messages, isTerminal: messagesAreTerminal}
	archive, err := ociimage.Image{Name: named.String(), Main: args[1], Progress: compiled}.Archive()
	compiled.end()
	if err != nil {
		return err
	}
	if _, err := out.Write(archive); err != nil {
		return err
	}
	fmt.Fprintf(messages, "image: wrote %s, %d MB, %d packages compiled, in %v\n", named, len(archive)/1_000_000, compiled.packages, time.Since(began).Round(time.Second/10))
	return nil
}

// counter counts compiled packages. On a terminal it shows the number in one line.
type counter struct {
	out        io.Writer
	isTerminal bool
	packages   int
}

// Write implements io.Writer. A line of one word is a package; other lines are errors.
func (c *counter) Write(p []byte) (int, error) {
	before := c.packages
	for line := range bytes.Lines(p) {
		if !bytes.ContainsRune(line, ' ') {
			c.packages++
		}
	}
	if c.isTerminal && c.packages > before {
		fmt.Fprintf(c.out, "\rimage: %d packages compiled", c.packages)
	}
	return len(p), nil
}

// end ends the line of the counter.
func (c *counter) end() {
	if c.isTerminal && c.packages > 0 {
		fmt.Fprintln(c.out)
	}
}
