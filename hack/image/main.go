// Image writes a container image of one Go program to standard output, as an archive that runtimes import:
//
//	go run ./hack/image my-dashboard ./examples/dashboard | ctr --namespace k8s.io images import -
//
// It is for machines that reach no registry. The name is completed as pods' image names are.
package main

import (
	"fmt"
	"os"

	"github.com/distribution/reference"

	"lanyard.dev/internal/ociimage"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("usage: go run ./hack/image NAME PACKAGE > image.tar")
	}
	named, err := reference.ParseDockerRef(args[0])
	if err != nil {
		return fmt.Errorf("name %q: %w", args[0], err)
	}
	archive, err := ociimage.Image{Name: named.String(), Main: args[1]}.Archive()
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(archive)
	return err
}
