//go:build linux

package nodetest

import (
	"bytes"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"lanyard.dev/internal/ociimage"
)

// images is the import path of the directory with the programs of this package's images.
const images = "lanyard.dev/internal/node/nodetest/images/"

// Image is a container image of one Go program.
type Image = ociimage.Image

// Tool is the image of the program images/tool. It runs as root. Without arguments, it sleeps.
func Tool() Image {
	return Image{Name: "lanyard.test/tool:1", Main: images + "tool", Cmd: []string{"sleep"}}
}

func pause() Image { return Image{Name: "lanyard.test/pause:1", Main: images + "pause"} }

// archives writes the images as files into a directory, and returns their paths.
func archives(t testing.TB, dir string, all []Image) []string {
	t.Helper()
	paths := make([]string, 0, len(all))
	for n, image := range all {
		archive, err := image.Archive()
		if err != nil {
			t.Fatalf("%v", err)
		}
		file := filepath.Join(dir, fmt.Sprintf("image-%d.tar", n))
		if err := os.WriteFile(file, archive, 0o600); err != nil {
			t.Fatalf("%v", err)
		}
		paths = append(paths, file)
	}
	return paths
}

// Registry serves images at a loopback address, to which containerd connects without TLS.
type Registry struct {
	// Host is the address and port. The image lanyard.test/tool:1 is pulled as Host/tool:1.
	Host string

	username, password string
	contents           map[string]*ociimage.Content // by repository:tag
	types              map[string]string            // media types, by digest
	blobs              map[string][]byte
	resolved           atomic.Int64
	hold               atomic.Pointer[chan struct{}]
}

// NewRegistry returns a registry that serves until the test ends. If username is not "", requests need username and password.
func NewRegistry(t testing.TB, username, password string, all ...Image) *Registry {
	t.Helper()
	r := &Registry{
		username: username, password: password,
		contents: map[string]*ociimage.Content{}, types: map[string]string{}, blobs: map[string][]byte{},
	}
	for _, image := range all {
		made, err := image.Content()
		if err != nil {
			t.Fatalf("%v", err)
		}
		_, name, _ := strings.Cut(image.Name, "/")
		r.contents[name] = made
		r.types[made.Manifest.Digest] = made.Manifest.MediaType
		maps.Copy(r.blobs, made.Blobs)
	}
	server := httptest.NewServer(r)
	t.Cleanup(server.Close)
	r.Host = strings.TrimPrefix(server.URL, "http://")
	return r
}

// Resolved returns how often a tag was resolved with valid credentials. Each pull resolves its tag once.
func (r *Registry) Resolved() int { return int(r.resolved.Load()) }

// Hold makes every request wait until release is called. release may be called several times.
func (r *Registry) Hold() (release func()) {
	gate := make(chan struct{})
	r.hold.Store(&gate)
	return func() {
		if r.hold.CompareAndSwap(&gate, nil) {
			close(gate)
		}
	}
}

// ServeHTTP serves the part of the OCI distribution specification that pulls need.
func (r *Registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if gate := r.hold.Load(); gate != nil {
		select {
		case <-*gate:
		case <-req.Context().Done():
			return
		}
	}
	if username, password, _ := req.BasicAuth(); username != r.username || password != r.password {
		w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
		http.Error(w, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`, http.StatusUnauthorized)
		return
	}
	path := strings.TrimPrefix(req.URL.Path, "/v2/")
	if name, reference, found := strings.Cut(path, "/manifests/"); found {
		r.serveManifest(w, req, name, reference)
		return
	}
	if _, digest, found := strings.Cut(path, "/blobs/"); found {
		r.serveBlob(w, req, digest, "application/octet-stream")
	}
}

func (r *Registry) serveManifest(w http.ResponseWriter, req *http.Request, name, reference string) {
	if made := r.contents[name+":"+reference]; made != nil {
		reference = made.Manifest.Digest
		r.resolved.Add(1)
	}
	r.serveBlob(w, req, reference, r.types[reference])
}

func (r *Registry) serveBlob(w http.ResponseWriter, req *http.Request, digest, mediaType string) {
	blob, ok := r.blobs[digest]
	if !ok {
		http.Error(w, `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"not here"}]}`, http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Docker-Content-Digest", digest)
	http.ServeContent(w, req, "", time.Time{}, bytes.NewReader(blob))
}
