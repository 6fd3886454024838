//go:build linux

package nodetest

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"lanyard.dev/internal/ociimage"
)

// images is where the programs of the kit's own images are.
const images = "lanyard.dev/internal/node/nodetest/images/"

// Image is a container image of one Go program.
type Image = ociimage.Image

// Tool is the image of a program with many uses: see images/tool. It runs as root, and waits where it has no arguments.
func Tool() Image {
	return Image{Name: "lanyard.test/tool:1", Main: images + "tool", Cmd: []string{"sleep"}}
}

func pause() Image { return Image{Name: "lanyard.test/pause:1", Main: images + "pause"} }

// archives writes the images as files into a directory.
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
