package ociimage

import (
	"archive/tar"
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
)

// Image is a container image of one static Go program, at /bin/<last element of Main>.
type Image struct {
	// Name is a reference with a tag, such as lanyard.test/tool:1.
	Name string
	// Main is the import path of the program, or a path relative to the test's directory.
	Main string
	// Binary is the program for Linux on Architecture, in Go's word; if it is nil, Main is built for this machine's.
	Binary       []byte
	Architecture string
	// User is the image's USER: a UID, UID:GID, or a name that Files' /etc/passwd has.
	User       string
	Env        []string
	WorkingDir string
	// Entrypoint is the program where it is nil. Cmd are the arguments that a container without its own gets.
	Entrypoint, Cmd []string
	Labels          map[string]string
	// Files are contents by absolute path; their directories are made, mode 0755.
	Files map[string]string
	// Progress, if it is not nil, is given the name of each package that is compiled, a line each, unless this process
	// has built the program before.
	Progress io.Writer
}

// builds has the programs this process has built. Programs are built once, and are kept in memory so that no file is
// left when the binary ends.
var builds sync.Map // Main -> func() ([]byte, error)

func program(main string, progress io.Writer) ([]byte, error) {
	build, _ := builds.LoadOrStore(main, sync.OnceValues(func() ([]byte, error) { return build(main, progress) }))
	once, ok := build.(func() ([]byte, error))
	if !ok {
		return nil, fmt.Errorf("no build of %s", main)
	}
	return once()
}

// build takes no flag by which Go would have to compile packages that an ordinary build of a static program has compiled,
// as -trimpath does.
func build(main string, progress io.Writer) ([]byte, error) {
	dir, err := os.MkdirTemp("", "image-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	file := filepath.Join(dir, "program")
	var output bytes.Buffer
	command := exec.Command("go", "build", "-ldflags=-s", "-o", file, main)
	command.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOFLAGS=")
	command.Stderr = &output
	if progress != nil {
		command.Args = slices.Insert(command.Args, 2, "-v")
		command.Stderr = io.MultiWriter(&output, progress)
	}
	if err := command.Run(); err != nil {
		return nil, fmt.Errorf("build %s: %w\n%s", main, err, output.Bytes())
	}
	return os.ReadFile(file)
}

// Descriptor names a blob, as in the OCI image specification.
type Descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

type manifest struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	Config        Descriptor   `json:"config"`
	Layers        []Descriptor `json:"layers"`
}

type imageConfig struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
	Config       struct {
		User       string   `json:",omitempty"`
		Env        []string `json:",omitempty"`
		WorkingDir string   `json:",omitempty"`
		Entrypoint []string `json:",omitempty"`
		Cmd        []string `json:",omitempty"`

		Labels map[string]string `json:",omitempty"`
	} `json:"config"`
	RootFS struct {
		Type    string   `json:"type"`
		DiffIDs []string `json:"diff_ids"`
	} `json:"rootfs"`
}

const (
	mediaTypeManifest = "application/vnd.oci.image.manifest.v1+json"
	mediaTypeConfig   = "application/vnd.oci.image.config.v1+json"
	mediaTypeLayer    = "application/vnd.oci.image.layer.v1.tar"
	mediaTypeIndex    = "application/vnd.oci.image.index.v1+json"
)

// Content is an image as blobs, by digest.
type Content struct {
	Manifest Descriptor
	Blobs    map[string][]byte
}

func (c *Content) add(mediaType string, blob []byte) Descriptor {
	sum := sha256.Sum256(blob)
	added := Descriptor{MediaType: mediaType, Digest: "sha256:" + hex.EncodeToString(sum[:]), Size: len(blob)}
	c.Blobs[added.Digest] = blob
	return added
}

func (c *Content) addJSON(mediaType string, value any) (Descriptor, error) {
	blob, err := json.Marshal(value)
	return c.add(mediaType, blob), err
}

// Content builds the image.
func (i Image) Content() (*Content, error) {
	layer, err := i.layer()
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", i.Name, err)
	}
	made := &Content{Blobs: map[string][]byte{}}
	layers := []Descriptor{made.add(mediaTypeLayer, layer)}
	config, err := made.addJSON(mediaTypeConfig, i.config(layers[0].Digest))
	if err != nil {
		return nil, err
	}
	made.Manifest, err = made.addJSON(mediaTypeManifest, manifest{SchemaVersion: 2, MediaType: mediaTypeManifest, Config: config, Layers: layers})
	return made, err
}

func (i Image) programPath() string { return "/bin/" + path.Base(filepath.ToSlash(i.Main)) }

// config describes the image; the layer is not compressed, so its digest is its diff ID too.
func (i Image) config(layer string) imageConfig {
	made := imageConfig{Architecture: cmp.Or(i.Architecture, runtime.GOARCH), OS: "linux"}
	made.Config.User, made.Config.Env, made.Config.WorkingDir = i.User, i.Env, i.WorkingDir
	made.Config.Entrypoint, made.Config.Cmd, made.Config.Labels = i.Entrypoint, i.Cmd, i.Labels
	if i.Entrypoint == nil {
		made.Config.Entrypoint = []string{i.programPath()}
	}
	made.RootFS.Type, made.RootFS.DiffIDs = "layers", []string{layer}
	return made
}

func (i Image) layer() ([]byte, error) {
	binary := i.Binary
	if binary == nil {
		var err error
		if binary, err = program(i.Main, i.Progress); err != nil {
			return nil, err
		}
	}
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	files := map[string]string{i.programPath(): string(binary)}
	maps.Copy(files, i.Files)
	if err := writeDirs(w, slices.Collect(maps.Keys(files))); err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := writeFile(w, name, 0o755, files[name]); err != nil {
			return nil, err
		}
	}
	return archive.Bytes(), w.Close()
}

// writeDirs writes the directories of the files, parents first, and a /tmp for everybody.
func writeDirs(w *tar.Writer, files []string) error {
	modes := map[string]int64{"/tmp": 0o1777}
	for _, file := range files {
		for dir := path.Dir(file); dir != "/"; dir = path.Dir(dir) {
			modes[dir] = 0o755
		}
	}
	for _, dir := range slices.Sorted(maps.Keys(modes)) {
		header := &tar.Header{Typeflag: tar.TypeDir, Name: strings.TrimPrefix(dir, "/") + "/", Mode: modes[dir]}
		if err := w.WriteHeader(header); err != nil {
			return err
		}
	}
	return nil
}

func writeFile(w *tar.Writer, name string, mode int64, text string) error {
	header := &tar.Header{Typeflag: tar.TypeReg, Name: strings.TrimPrefix(name, "/"), Mode: mode, Size: int64(len(text))}
	if err := w.WriteHeader(header); err != nil {
		return err
	}
	_, err := w.Write([]byte(text))
	return err
}

// Archive returns the image as an OCI layout in a tar file.
func (i Image) Archive() ([]byte, error) {
	made, err := i.Content()
	if err != nil {
		return nil, err
	}
	named := made.Manifest
	named.Annotations = map[string]string{"io.containerd.image.name": i.Name}
	index, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": mediaTypeIndex, "manifests": []Descriptor{named}})
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{"oci-layout": []byte(`{"imageLayoutVersion":"1.0.0"}`), "index.json": index}
	for digest, blob := range made.Blobs {
		files["blobs/"+strings.Replace(digest, ":", "/", 1)] = blob
	}
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := writeFile(w, name, 0o644, string(files[name])); err != nil {
			return nil, err
		}
	}
	return out.Bytes(), w.Close()
}
