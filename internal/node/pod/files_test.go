package pod

import (
	"os"
	"testing"
)

// TestHostsThatAContainerChanged checks that the file of a pod's hosts is written again if a container has changed it, whatever
// its size is now.
func TestHostsThatAContainerChanged(t *testing.T) {
	t.Parallel()
	f, err := openFiles(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.close() }()
	if err := f.prepare("uid"); err != nil {
		t.Fatal(err)
	}
	const content = "127.0.0.1\tlocalhost\n"
	path, err := f.writeHosts("uid", []byte(content))
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int64{int64(len(content)), 0, int64(len(content)) + 1, 1 << 40} {
		if err := os.Truncate(path, size); err != nil {
			t.Fatal(err)
		}
		if again, err := f.writeHosts("uid", []byte(content)); again != path || err != nil {
			t.Fatalf("%d bytes: wrote %s, %v", size, again, err)
		}
		if info, err := os.Stat(path); err != nil || info.Size() != int64(len(content)) {
			t.Fatalf("%d bytes: %v, %v", size, info, err)
		}
		if stored, err := os.ReadFile(path); err != nil || string(stored) != content {
			t.Errorf("%d bytes: the file contains %q, %v", size, stored, err)
		}
	}
}
