// Release builds what a release of Lanyard holds, from the commit that is checked out:
//
//	go run ./hack/release                            # for all platforms, into ./dist
//	go run ./hack/release -platforms linux/amd64 -out /tmp/dist
//
// For each platform it writes an archive and a software bill of materials (CycloneDX), for Linux also a Debian package and
// a container image, and for all of them the file SHA256SUMS. The version is the tag of the commit, as Go records it in the
// program. The same commit and the same Go give the same bytes.
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

	// maxProgram is the most bytes that a program for Linux may have.
	maxProgram = 96_000_000
)

func main() {
	platforms := flag.String("platforms", allPlatforms, "what to build for, as OS/ARCHITECTURE with commas between them")
	out := flag.String("out", "dist", "directory that the files are written to")
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
		return fmt.Errorf("run this in the root of the checkout: %w", err)
	}
	all := map[string][]byte{}
	for _, name := range platforms {
		platform, err := parsePlatform(name)
		if err != nil {
			return err
		}
		fmt.Fprintf(os.Stderr, "release: building for %s; what the cache of Go lacks is compiled first\n", platform)
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

// checksums returns what sha256sum prints of the files.
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
