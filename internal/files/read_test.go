package files

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
)

func TestReadIsBounded(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "config.yaml")
	for _, test := range []struct {
		size, limit int64
		want        string
	}{
		{0, 0, ""}, {0, 10, ""}, {9, 10, ""}, {10, 10, ""}, {11, 10, path + " is larger than 10 bytes"},
		{MaxConfig, MaxConfig, ""}, {MaxConfig + 1, MaxConfig, path + " is larger than 4096 KiB"},
	} {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, test.size); err != nil {
			t.Fatal(err)
		}
		data, err := Read(path, test.limit)
		if test.want == "" && (err != nil || int64(len(data)) != test.size) {
			t.Errorf("%d of %d bytes: read %d, %v", test.size, test.limit, len(data), err)
		}
		if test.want != "" && (!errors.Is(err, ErrTooLarge) || err.Error() != test.want || data != nil) {
			t.Errorf("%d of %d bytes: %d bytes, %v, want %q", test.size, test.limit, len(data), err, test.want)
		}
	}
}

// TestReadOfUnknownSize reads files of which Stat reports the size 0.
func TestReadOfUnknownSize(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"/dev/zero", "/proc/self/maps"} {
		if _, err := os.Stat(path); err != nil {
			continue
		}
		if _, err := Read(path, 16); !errors.Is(err, ErrTooLarge) || !strings.HasPrefix(err.Error(), path) {
			t.Errorf("%s: %v", path, err)
		}
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = r.Close(), w.Close() }()
	if _, err := w.WriteString("seventeen letters"); err != nil {
		t.Fatal(err)
	}
	// The writer stays open: the reader stops at the limit and does not wait for the end.
	if _, err := ReadAll(r, "pipe", 16); !errors.Is(err, ErrTooLarge) || err.Error() != "pipe is larger than 16 bytes" {
		t.Errorf("pipe: %v", err)
	}
}

func TestReadErrorsNameTheFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	absent := filepath.Join(dir, "absent")
	if _, err := Read(absent, 1); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), absent) {
		t.Errorf("absent: %v", err)
	}
	if _, err := Read(dir, 1); err == nil || strings.Count(err.Error(), dir) != 1 {
		t.Errorf("directory: %v", err)
	}
	broken := errors.New("broken")
	if _, err := ReadAll(iotest.ErrReader(broken), "standard input", 1); !errors.Is(err, broken) || !strings.Contains(err.Error(), "standard input") {
		t.Errorf("broken reader: %v", err)
	}
}
