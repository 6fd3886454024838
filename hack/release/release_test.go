package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"
)

const standIn = "lanyard.dev/internal/node/nodetest/images/pause"

// standInFor builds a small program and returns it as the program for p. The tests do not execute it.
func standInFor(t *testing.T, p platform) program {
	t.Helper()
	built, err := build(t.Context(), ".", platform{runtime.GOOS, runtime.GOARCH}, standIn)
	if err != nil {
		t.Fatal(err)
	}
	built.platform = p
	return built
}

func testRelease(t *testing.T) release {
	t.Helper()
	license, err := os.ReadFile("../../LICENSE")
	if err != nil {
		t.Fatal(err)
	}
	return release{"v1.2.3-rc.1", "0123456789abcdef", time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC), license}
}

func TestFilesOfARelease(t *testing.T) {
	t.Parallel()
	r := testRelease(t)
	built := standInFor(t, platform{"linux", "arm64"})
	files := map[string][]byte{}
	for _, p := range []platform{{"linux", "arm64"}, {"darwin", "arm64"}, {"windows", "amd64"}} {
		built.platform = p
		first, err := r.files(built)
		if err != nil {
			t.Fatal(err)
		}
		second, err := r.files(built)
		if err != nil {
			t.Fatal(err)
		}
		for name := range first {
			if !bytes.Equal(first[name], second[name]) {
				t.Errorf("%s has different bytes the second time", name)
			}
		}
		maps.Copy(files, first)
	}
	names := slices.Sorted(maps.Keys(files))
	want := []string{
		"lanyard_1.2.3-rc.1_darwin_arm64.cdx.json", "lanyard_1.2.3-rc.1_darwin_arm64.tar.gz",
		"lanyard_1.2.3-rc.1_linux_arm64.cdx.json", "lanyard_1.2.3-rc.1_linux_arm64.deb", "lanyard_1.2.3-rc.1_linux_arm64.oci.tar", "lanyard_1.2.3-rc.1_linux_arm64.tar.gz",
		"lanyard_1.2.3-rc.1_windows_amd64.cdx.json", "lanyard_1.2.3-rc.1_windows_amd64.zip",
	}
	if !slices.Equal(names, want) {
		t.Fatalf("files %q, want %q", names, want)
	}
	linux := untar(t, files[want[5]])
	if got := linux["lanyard_1.2.3-rc.1_linux_arm64/lanyard"]; !bytes.Equal(got.content, built.binary) || got.mode != 0o755 {
		t.Errorf("the archive for Linux has a program of %d bytes, mode %v", len(got.content), got.mode)
	}
	if unit := linux["lanyard_1.2.3-rc.1_linux_arm64/systemd/lanyard.service"]; !bytes.Contains(unit.content, []byte("\nExecStart=/usr/bin/lanyard up\n")) {
		t.Errorf("the archive for Linux has the unit %q", unit.content)
	}
	checkBill(t, files[want[2]], built)
	checkZip(t, files[want[7]], built.binary)
	checkImage(t, files[want[4]], built.binary)
	checkPackage(t, files[want[3]], built.binary)
	sums := strings.Split(strings.TrimSpace(string(checksums(files))), "\n")
	for i, name := range names {
		if line := fmt.Sprintf("%x  %s", sha256.Sum256(files[name]), name); sums[i] != line {
			t.Errorf("checksum %q, want %q", sums[i], line)
		}
	}
}

func untar(t *testing.T, archive []byte) map[string]file {
	t.Helper()
	compressed, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		t.Fatal(err)
	}
	return entries(t, compressed)
}

func entries(t *testing.T, from io.Reader) map[string]file {
	t.Helper()
	files := map[string]file{}
	for r := tar.NewReader(from); ; {
		header, err := r.Next()
		if err == io.EOF {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		files[header.Name] = file{header.Name, fs.FileMode(header.Mode), content}
	}
}

func checkBill(t *testing.T, text []byte, built program) {
	t.Helper()
	var read bill
	if err := json.Unmarshal(text, &read); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(built.binary)
	self := read.Metadata.Component
	if read.Format != "CycloneDX" || read.Spec != "1.6" || read.Metadata.Timestamp != "2026-11-27T12:00:00Z" || !strings.HasPrefix(read.Serial, "urn:uuid:") {
		t.Errorf("bill of materials %+v", read)
	}
	if self.PURL != "pkg:golang/lanyard.dev@v1.2.3-rc.1" || self.Hashes[0].Content != hex.EncodeToString(sum[:]) {
		t.Errorf("the bill describes %+v", self)
	}
	if len(read.Components) != 1+len(built.info.Deps) || read.Components[0].PURL != "pkg:golang/stdlib@"+strings.TrimPrefix(runtime.Version(), "go") {
		t.Errorf("components %+v of %d modules", read.Components, len(built.info.Deps))
	}
	if needed := read.Dependencies[0]; needed.Ref != self.Ref || len(needed.DependsOn) != len(read.Components) {
		t.Errorf("dependencies %+v", read.Dependencies)
	}
}

func checkZip(t *testing.T, archive, binary []byte) {
	t.Helper()
	r, err := zip.NewReader(bytes.NewReader(archive), int64(len(archive)))
	if err != nil {
		t.Fatal(err)
	}
	content, err := fs.ReadFile(r, "lanyard_1.2.3-rc.1_windows_amd64/lanyard.exe")
	if err != nil || !bytes.Equal(content, binary) {
		t.Errorf("the archive for Windows has a program of %d bytes: %v", len(content), err)
	}
}

func checkImage(t *testing.T, archive, binary []byte) {
	t.Helper()
	found := false
	for name, blob := range entries(t, bytes.NewReader(archive)) {
		var config struct {
			Architecture string
			Config       struct {
				User       string
				Entrypoint []string
				Labels     map[string]string
			}
		}
		if !strings.HasPrefix(name, "blobs/") || json.Unmarshal(blob.content, &config) != nil || config.Architecture == "" {
			continue
		}
		found = true
		if c := config.Config; config.Architecture != "arm64" || c.User != "65532:65532" || !slices.Equal(c.Entrypoint, []string{"/bin/lanyard"}) || c.Labels["org.opencontainers.image.version"] != "v1.2.3-rc.1" {
			t.Errorf("the image has the configuration %+v", config)
		}
	}
	if !found || !bytes.Contains(archive, binary) {
		t.Errorf("configuration found: %v; program found: %v", found, bytes.Contains(archive, binary))
	}
}

// checkPackage parses the package, and also checks it with dpkg if that is installed.
func checkPackage(t *testing.T, deb, binary []byte) {
	t.Helper()
	members := map[string][]byte{}
	rest, found := bytes.CutPrefix(deb, []byte("!<arch>\n"))
	for found && len(rest) >= 60 {
		var size int
		if _, err := fmt.Sscan(string(rest[48:58]), &size); err != nil || string(rest[58:60]) != "`\n" {
			t.Fatalf("header %q: %v", rest[:60], err)
		}
		members[strings.TrimSpace(string(rest[:16]))] = rest[60 : 60+size]
		rest = rest[60+size+size%2:]
	}
	if string(members["debian-binary"]) != "2.0\n" || len(members) != 3 || len(rest) > 0 {
		t.Fatalf("members %q, and %d more bytes", slices.Sorted(maps.Keys(members)), len(rest))
	}
	text := string(untar(t, members["control.tar.gz"])["./control"].content)
	if !strings.Contains(text, "\nVersion: 1.2.3~rc.1\nArchitecture: arm64\n") {
		t.Errorf("control file %q", text)
	}
	data := untar(t, members["data.tar.gz"])
	if got := data["./usr/bin/lanyard"]; !bytes.Equal(got.content, binary) || got.mode != 0o755 {
		t.Errorf("the package has a program of %d bytes, mode %v", len(got.content), got.mode)
	}
	if _, ok := data["./usr/lib/systemd/system/lanyard-agent.service"]; !ok {
		t.Errorf("the package contains %q", slices.Sorted(maps.Keys(data)))
	}
	dpkg, err := exec.LookPath("dpkg-deb")
	if err != nil {
		return
	}
	path := filepath.Join(t.TempDir(), "lanyard.deb")
	if err := os.WriteFile(path, deb, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, flag := range []string{"--info", "--contents"} {
		if out, err := exec.CommandContext(t.Context(), dpkg, flag, path).CombinedOutput(); err != nil {
			t.Errorf("dpkg-deb %s: %v\n%s", flag, err, out)
		}
	}
}

func TestBuildIsStaticAndStripped(t *testing.T) {
	t.Parallel()
	built := standInFor(t, platform{runtime.GOOS, runtime.GOARCH})
	settings := map[string]string{}
	for _, setting := range built.info.Settings {
		settings[setting.Key] = setting.Value
	}
	if settings["CGO_ENABLED"] != "0" || settings["-trimpath"] != "true" || settings["vcs.revision"] == "" {
		t.Errorf("built with %v", settings)
	}
	if root, err := filepath.Abs("../.."); err != nil || bytes.Contains(built.binary, []byte(root)) {
		t.Errorf("the program contains the path %s: %v", root, err)
	}
	if bytes.Contains(built.binary, []byte(".symtab")) || bytes.Contains(built.binary, []byte(".debug_info")) {
		t.Error("the program contains a symbol table or debugging information")
	}
}

func TestDescribe(t *testing.T) {
	t.Parallel()
	info := func(revision, modified string) *debug.BuildInfo {
		return &debug.BuildInfo{Main: debug.Module{Version: "v1.2.3"}, Settings: []debug.BuildSetting{
			{Key: "vcs.revision", Value: revision}, {Key: "vcs.modified", Value: modified}, {Key: "vcs.time", Value: "2026-11-27T18:58:35Z"},
		}}
	}
	for _, test := range []struct {
		info        *debug.BuildInfo
		epoch, want string
	}{
		{info("abc", "false"), "", "1.2.3 abc 2026-11-27T18:58:35Z"},
		{info("abc", "false"), "86400", "1.2.3 abc 1970-01-02T00:00:00Z"},
		{info("abc", "false"), "now", `time of the release: strconv.ParseInt: parsing "now": invalid syntax`},
		{info("abc", "true"), "", "the checkout has uncommitted changes: commit them, or build a release in a clone"},
		{info("", ""), "", "no commit is recorded in the program: build a release in a git checkout"},
	} {
		r, err := describe(test.info, test.epoch)
		got := strings.Join([]string{r.number(), r.commit, r.time.Format(time.RFC3339)}, " ")
		if err != nil {
			got = err.Error()
		}
		if got != test.want {
			t.Errorf("%q, want %q", got, test.want)
		}
	}
}

func TestDebianVersion(t *testing.T) {
	t.Parallel()
	for number, want := range map[string]string{
		"1.2.3": "1.2.3", "1.2.3-rc.1": "1.2.3~rc.1", "0.0.0-20261127203600-67c1ad9cdb29": "0.0.0~20261127203600.67c1ad9cdb29",
	} {
		if got := debianVersion(number); got != want {
			t.Errorf("%s: %s, want %s", number, got, want)
		}
	}
}

func TestPlatforms(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "linux", "/amd64", "linux/"} {
		if _, err := parsePlatform(text); err == nil {
			t.Errorf("%q is accepted as a platform", text)
		}
	}
}

func TestSizeIsBounded(t *testing.T) {
	t.Parallel()
	p := program{platform: platform{"linux", "arm64"}, binary: make([]byte, maxProgram)}
	if err := p.checkSize(); err != nil {
		t.Error(err)
	}
	p.binary = append(p.binary, 0)
	if err := p.checkSize(); err == nil {
		t.Error("a program that is one byte too large is accepted")
	}
}

// TestVersionIsTheTag builds the program of a small repository at a tag, after the tag, and with a change.
func TestVersionIsTheTag(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	put := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	git := func(args ...string) {
		command := exec.CommandContext(t.Context(), "git", append([]string{"-c", "user.name=t", "-c", "user.email=t@example.com"}, args...)...)
		command.Dir = dir
		if out, err := command.CombinedOutput(); err != nil {
			t.Fatalf("git %q: %v\n%s", args, err, out)
		}
	}
	described := func() (release, error) {
		built, err := build(t.Context(), dir, platform{runtime.GOOS, runtime.GOARCH}, ".")
		if err != nil {
			t.Fatal(err)
		}
		return describe(built.info, "")
	}
	put("go.mod", "module example.com/program\n")
	put("main.go", "package main\n\nfunc main() {}\n")
	git("init", "-q")
	git("add", ".")
	git("commit", "-q", "-m", "first")
	git("tag", "v1.2.3")
	if r, err := described(); err != nil || r.version != "v1.2.3" || len(r.commit) != 40 || time.Since(r.time) > time.Hour {
		t.Errorf("at the tag: %q of %q, %v, %v", r.version, r.commit, r.time, err)
	}
	git("commit", "-q", "--allow-empty", "-m", "second")
	if r, err := described(); err != nil || !strings.HasPrefix(r.version, "v1.2.4-0.") {
		t.Errorf("after the tag: %q, %v", r.version, err)
	}
	put("main.go", "package main\n\nfunc main() { println() }\n")
	if r, err := described(); err == nil {
		t.Errorf("with a change: %q", r.version)
	}
}

func TestPackageURL(t *testing.T) {
	t.Parallel()
	const want = "pkg:golang/github.com/azure/go-ansiterm@v2.5.0%2Bincompatible"
	if got := packageURL("github.com/Azure/go-ansiterm", "v2.5.0+incompatible"); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
