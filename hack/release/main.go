// Release builds the files of a release of Lanyard from the commit that is checked out:
//
//	go run ./hack/release                            # for all platforms, into ./dist
//	go run ./hack/release -platforms linux/amd64 -out /tmp/dist
//
// For each platform it writes an archive and a software bill of materials (CycloneDX), and for Linux also a Debian package and
// a container image. The file SHA256SUMS contains the checksums of all files. The version is the tag of the commit, as Go
// records it in the program. The same commit and the same Go release produce the same bytes.
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"lanyard.dev/internal/files"
)

const (
	allPlatforms = "linux/amd64,linux/arm64,darwin/amd64,darwin/arm64,windows/amd64"
	mainPackage  = "./cmd/lanyard"

	// maxProgram is the maximum size of a program for Linux, in bytes.
	maxProgram = 96_000_000
)

func main() {
	platforms := flag.String("platforms", allPlatforms, "platforms to build for, as OS/ARCHITECTURE, separated by commas")
	out := flag.String("out", "dist", "directory for the files")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, strings.Split(*platforms, ","), *out); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, platforms []string, out string) error {
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	license, err := os.ReadFile("LICENSE")
	if err != nil {
		return fmt.Errorf("run this in the root directory of the checkout: %w", err)
	}
	all := map[string][]byte{}
	for _, name := range platforms {
		platform, err := parsePlatform(name)
		if err != nil {
			return err
		}
		fmt.Fprintf(os.Stderr, "release: building for %s; packages that are not in the build cache of Go are compiled first\n", platform)
		program, err := build(ctx, ".", platform, mainPackage)
		if err != nil {
			return err
		}
		if err := program.checkSize(); err != nil {
			return err
		}
		release, err := describe(program.info, os.Getenv("SOURCE_DATE_EPOCH"))
		if err != nil {
			return err
		}
		release.license = license
		files, err := release.files(program)
		if err != nil {
			return fmt.Errorf("release for %s: %w", platform, err)
		}
		maps.Copy(all, files)
	}
	all["SHA256SUMS"] = checksums(all)
	return write(out, all)
}

// checksums returns the checksums of the files in the format of sha256sum.
func checksums(files map[string][]byte) []byte {
	var sums bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(files)) {
		fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256(files[name]), name)
	}
	return sums.Bytes()
}

func write(dir string, contents map[string][]byte) error {
	for _, name := range slices.Sorted(maps.Keys(contents)) {
		path := filepath.Join(dir, name)
		if err := files.Write(path, contents[name], 0o644); err != nil {
			return err
		}
		fmt.Fprintf(os.Stderr, "release: wrote %s, %d bytes\n", path, len(contents[name]))
	}
	return nil
}
