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
	// Name is an image reference with a tag, such as lanyard.test/tool:1.
	Name string
	// Main is the import path of the program, or a path relative to the working directory.
	Main string
	// Binary is the program, built for Linux and Architecture (a GOARCH value). If it is nil, Main is built for the
	// architecture of this machine.
	Binary       []byte
	Architecture string
	// User is the user of containers: a UID, UID:GID, or a name in the /etc/passwd of Files.
	User       string
	Env        []string
	WorkingDir string
	// Entrypoint is the program if it is nil. Cmd are the default arguments.
	Entrypoint, Cmd []string
	Labels          map[string]string
	// Files are further files, contents by absolute path. Files and their directories have the mode 0755.
	Files map[string]string
	// Progress receives the name of each package that is compiled, one a line. It may be nil.
	Progress io.Writer
}

// builds contains the programs that this process has built, by Main, as func() ([]byte, error). Each is built once. They are
// kept in memory, so that no file is left when the process ends.
var builds sync.Map

func program(main string, progress io.Writer) ([]byte, error) {
	build, _ := builds.LoadOrStore(main, sync.OnceValues(func() ([]byte, error) { return build(main, progress) }))
	once, ok := build.(func() ([]byte, error))
	if !ok {
		return nil, fmt.Errorf("no build of %s", main)
	}
	return once()
}

// build uses no flags, such as -trimpath, that would make Go compile packages again which an ordinary static build has compiled.
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

// Descriptor identifies a blob, as in the OCI image specification.
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

// Content is an image as blobs by digest.
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

// Content builds the image and returns its blobs.
func (i Image) Content() (*Content, error) {
	layer, err := i.layer()
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", i.Name, err)
	}
	content := &Content{Blobs: map[string][]byte{}}
	layers := []Descriptor{content.add(mediaTypeLayer, layer)}
	config, err := content.addJSON(mediaTypeConfig, i.config(layers[0].Digest))
	if err != nil {
		return nil, err
	}
	content.Manifest, err = content.addJSON(mediaTypeManifest, manifest{SchemaVersion: 2, MediaType: mediaTypeManifest, Config: config, Layers: layers})
	return content, err
}

func (i Image) programPath() string { return "/bin/" + path.Base(filepath.ToSlash(i.Main)) }

// config returns the configuration of the image. The layer is not compressed, so its digest is also its diff ID.
func (i Image) config(layer string) imageConfig {
	config := imageConfig{Architecture: cmp.Or(i.Architecture, runtime.GOARCH), OS: "linux"}
	config.Config.User, config.Config.Env, config.Config.WorkingDir = i.User, i.Env, i.WorkingDir
	config.Config.Entrypoint, config.Config.Cmd, config.Config.Labels = i.Entrypoint, i.Cmd, i.Labels
	if i.Entrypoint == nil {
		config.Config.Entrypoint = []string{i.programPath()}
	}
	config.RootFS.Type, config.RootFS.DiffIDs = "layers", []string{layer}
	return config
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

// writeDirs writes the directories of the files, parents first, and /tmp, which everyone can write to.
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

// Archive returns the image as a tar file with an OCI image layout, which ctr images import reads.
func (i Image) Archive() ([]byte, error) {
	content, err := i.Content()
	if err != nil {
		return nil, err
	}
	named := content.Manifest
	named.Annotations = map[string]string{"io.containerd.image.name": i.Name}
	index, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": mediaTypeIndex, "manifests": []Descriptor{named}})
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{"oci-layout": []byte(`{"imageLayoutVersion":"1.0.0"}`), "index.json": index}
	for digest, blob := range content.Blobs {
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
