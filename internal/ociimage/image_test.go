package ociimage_test

import (
	"archive/tar"
	"bytes"
	"debug/buildinfo"
	"encoding/json"
	"io"
	"slices"
	"testing"

	"lanyard.dev/internal/ociimage"
)

// program is a small main package.
const program = "lanyard.dev/internal/node/nodetest/images/pause"

func TestArchive(t *testing.T) {
	t.Parallel()
	image := ociimage.Image{Name: "lanyard.test/x:1", Main: program, User: "7", Files: map[string]string{"/etc/passwd": "x"}}
	archive, err := image.Archive()
	if err != nil {
		t.Fatal(err)
	}
	files := read(t, archive)
	var index struct{ Manifests []ociimage.Descriptor }
	if err := json.Unmarshal(files["index.json"], &index); err != nil || len(index.Manifests) != 1 {
		t.Fatalf("index %s: %v", files["index.json"], err)
	}
	if got := index.Manifests[0].Annotations["io.containerd.image.name"]; got != "lanyard.test/x:1" {
		t.Errorf("named %q", got)
	}
	content, err := image.Content()
	if err != nil {
		t.Fatal(err)
	}
	if content.Manifest.Digest != index.Manifests[0].Digest {
		t.Error("two builds of the same image differ")
	}
	found := false
	for _, blob := range content.Blobs {
		if layer := readable(blob); layer != nil {
			found = found || len(layer["bin/pause"]) > 0 && string(layer["etc/passwd"]) == "x"
		}
	}
	if !found {
		t.Error("no layer contains the program and the file")
	}
}

func TestBuildFails(t *testing.T) {
	t.Parallel()
	if _, err := (ociimage.Image{Name: "x", Main: "lanyard.dev/internal/nowhere"}).Archive(); err == nil {
		t.Error("an image without a program was built")
	}
}

func read(t *testing.T, archive []byte) map[string][]byte {
	t.Helper()
	files := readable(archive)
	if files == nil {
		t.Fatal("not a tar file")
	}
	return files
}

// readable returns the files of an archive, or nil if it is not a tar file.
func readable(archive []byte) map[string][]byte {
	files := map[string][]byte{}
	for r := tar.NewReader(bytes.NewReader(archive)); ; {
		header, err := r.Next()
		if err == io.EOF {
			return files
		}
		if err != nil {
			return nil
		}
		if files[header.Name], err = io.ReadAll(r); err != nil {
			return nil
		}
	}
}

// TestProgramsAreBuiltFromTheCommonCache checks that a build has no flags for which Go would compile every package again.
func TestProgramsAreBuiltFromTheCommonCache(t *testing.T) {
	t.Parallel()
	content, err := ociimage.Image{Name: "lanyard.test/x:1", Main: program}.Content()
	if err != nil {
		t.Fatal(err)
	}
	var binary []byte
	for _, blob := range content.Blobs {
		if layer := readable(blob); layer != nil {
			binary = layer["bin/pause"]
		}
	}
	info, err := buildinfo.Read(bytes.NewReader(binary))
	if err != nil {
		t.Fatal(err)
	}
	static := false
	for _, setting := range info.Settings {
		static = static || setting.Key == "CGO_ENABLED" && setting.Value == "0"
		if slices.Contains([]string{"-trimpath", "-gcflags", "-tags", "-race"}, setting.Key) {
			t.Errorf("built with %s=%s", setting.Key, setting.Value)
		}
	}
	if !static {
		t.Errorf("not static: %v", info.Settings)
	}
}
