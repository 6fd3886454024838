package main

import (
	"bytes"
	"cmp"
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"time"
)

// linkerFlags omit the symbol table and debugging information, and align functions to 16 bytes instead of 32, which saves one
// megabyte.
const linkerFlags = "-s -w -funcalign=16"

// smallPackages are compiled without inlining, which makes the program 2.5 MB smaller. They run in commands, at the start, or wait for
// the network; no request that the authority answers spends its time in them.
var smallPackages = []string{
	"k8s.io/kubectl/...", "sigs.k8s.io/kustomize/...", "k8s.io/client-go/kubernetes/...", "k8s.io/client-go/applyconfigurations/...",
	"github.com/google/gnostic-models/...", "lanyard.dev/internal/apiserver/openapi",
}

// compilerFlags returns the arguments of go build for smallPackages.
func compilerFlags() (flags []string) {
	for _, packages := range smallPackages {
		flags = append(flags, "-gcflags="+packages+"=-l")
	}
	return flags
}

// platform is an operating system and an architecture, as GOOS and GOARCH.
type platform struct{ os, arch string }

func parsePlatform(text string) (platform, error) {
	system, arch, found := strings.Cut(text, "/")
	if !found || system == "" || arch == "" {
		return platform{}, fmt.Errorf("platform %q is not OS/ARCHITECTURE", text)
	}
	return platform{system, arch}, nil
}

func (p platform) String() string { return p.os + "/" + p.arch }

// program is a program that was built for a platform.
type program struct {
	platform
	binary []byte
	info   *debug.BuildInfo
}

// build builds a main package, whose path is relative to dir. The program is static and reproducible: it is built without cgo
// and without paths of this machine, records the commit, and does not depend on flags in the environment. Without cgo it cannot
// load plugins. With cgo, the linker would keep every exported function, because kustomize contains a plugin loader.
func build(ctx context.Context, dir string, p platform, mainPackage string) (program, error) {
	temporary, err := os.MkdirTemp("", "release-")
	if err != nil {
		return program{}, err
	}
	defer func() { _ = os.RemoveAll(temporary) }()
	file := filepath.Join(temporary, "program")
	arguments := append([]string{"build", "-trimpath", "-buildvcs=true", "-ldflags=" + linkerFlags, "-o", file}, compilerFlags()...)
	command := exec.CommandContext(ctx, "go", append(arguments, mainPackage)...)
	command.Dir = dir
	command.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+p.os, "GOARCH="+p.arch, "GOFLAGS=", "GOEXPERIMENT=", "GOAMD64=v1", "GOARM64=v8.0")
	var output bytes.Buffer
	command.Stderr = &output
	if err := command.Run(); err != nil {
		return program{}, fmt.Errorf("build %s for %s: %w\n%s", mainPackage, p, err, output.Bytes())
	}
	binary, err := os.ReadFile(file)
	if err != nil {
		return program{}, err
	}
	info, err := buildinfo.Read(bytes.NewReader(binary))
	return program{p, binary, info}, err
}

// checkSize returns an error if a program for Linux has more than maxProgram bytes. The executable formats of other systems are
// a little larger.
func (p program) checkSize() error {
	if size := len(p.binary); size > maxProgram && p.os == "linux" {
		return fmt.Errorf("the program for %s has %d bytes, more than %d: find what made it grow, as with go tool nm -size -sort size", p.platform, size, maxProgram)
	}
	return nil
}

// release contains what the files of a release have in common.
type release struct {
	version string // of the module, as v1.2.3
	commit  string
	time    time.Time // of the commit, and of every entry in an archive
	license []byte
}

// describe returns the release that Go recorded in the program. If epoch is not empty, it replaces the time of the commit. It
// is the value of the variable SOURCE_DATE_EPOCH, in seconds since 1970.
func describe(info *debug.BuildInfo, epoch string) (release, error) {
	settings := map[string]string{}
	for _, setting := range info.Settings {
		settings[setting.Key] = setting.Value
	}
	if settings["vcs.revision"] == "" {
		return release{}, errors.New("no commit is recorded in the program: build a release in a git checkout")
	}
	if settings["vcs.modified"] != "false" {
		return release{}, errors.New("the checkout has uncommitted changes: commit them, or build a release in a clone")
	}
	made, err := time.Parse(time.RFC3339, settings["vcs.time"])
	if epoch != "" {
		var seconds int64
		seconds, err = strconv.ParseInt(epoch, 10, 64)
		made = time.Unix(seconds, 0)
	}
	if err != nil {
		return release{}, fmt.Errorf("time of the release: %w", err)
	}
	return release{version: cmp.Or(info.Main.Version, "(devel)"), commit: settings["vcs.revision"], time: made.UTC()}, nil
}

// number returns the version without the letter v.
func (r release) number() string { return strings.TrimPrefix(r.version, "v") }

// name returns the prefix of the names of the files for a platform.
func (r release) name(p platform) string {
	return strings.Join([]string{"lanyard", r.number(), p.os, p.arch}, "_")
}

// files returns the files of a release for one platform by their names.
func (r release) files(p program) (map[string][]byte, error) {
	bill, err := r.billOfMaterials(p)
	if err != nil {
		return nil, err
	}
	name := r.name(p.platform)
	files := map[string][]byte{name + ".cdx.json": bill}
	extension, pack := ".tar.gz", tarball
	if p.os == "windows" {
		extension, pack = ".zip", zipped
	}
	if files[name+extension], err = pack(r.archiveFiles(p, bill), r.time); err != nil || p.os != "linux" {
		return files, err
	}
	if files[name+".deb"], err = r.debianPackage(p); err != nil {
		return nil, err
	}
	files[name+".oci.tar"], err = r.image(p)
	return files, err
}
