// Image writes a container image of one Go program to standard output, as an archive that runtimes import:
//
//	go run ./hack/image my-dashboard ./examples/dashboard | ctr --namespace k8s.io images import -
//
// It is for machines that reach no registry. It completes the name as the agent completes image names of pods, and
// reports its progress on standard error.
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

func run(args []string, out, words io.Writer, outIsTerminal, wordsAreRead bool) error {
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
	fmt.Fprintf(words, "image: building %s; what the cache of Go lacks of its packages is compiled first\n", args[1])
	compiled := &counter{words: words, read: wordsAreRead}
	archive, err := ociimage.Image{Name: named.String(), Main: args[1], Progress: compiled}.Archive()
	compiled.end()
	if err != nil {
		return err
	}
	if _, err := out.Write(archive); err != nil {
		return err
	}
	fmt.Fprintf(words, "image: wrote %s, %d MB, %d packages compiled, in %v\n", named, len(archive)/1_000_000, compiled.packages, time.Since(began).Round(time.Second/10))
	return nil
}

// counter shows on one line of a terminal how many packages have been compiled.
type counter struct {
	words    io.Writer
	read     bool
	packages int
}

// Write implements io.Writer. A package is a line of one word; other lines are about what fails.
func (c *counter) Write(p []byte) (int, error) {
	before := c.packages
	for line := range bytes.Lines(p) {
		if !bytes.ContainsRune(line, ' ') {
			c.packages++
		}
	}
	if c.read && c.packages > before {
		fmt.Fprintf(c.words, "\rimage: %d packages compiled", c.packages)
	}
	return len(p), nil
}

// end leaves the counter's line.
func (c *counter) end() {
	if c.read && c.packages > 0 {
		fmt.Fprintln(c.words)
	}
}
