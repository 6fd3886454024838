//go:build linux

package cri

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// TestRotateLogs bounds what a container that goes on and on can fill the disk with.
func TestRotateLogs(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	pod := podOf("log", "one", ";", "echo-stdin")
	pod.Spec.Containers[0].Stdin = true
	ran := start(t, r, pod)
	ran.awaitLog("one")
	path := r.LogPath(pod, "main", 0)
	if err := r.rotateLogs(t.Context(), 1<<20); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path + ".1"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a short log was rotated: %v", err)
	}
	elsewhere, dir := t.TempDir(), filepath.Dir(path)
	writeFile(t, elsewhere, "0.log", "not a log")
	if err := errors.Join(os.Rename(dir, dir+".kept"), os.Symlink(elsewhere, dir)); err != nil {
		t.Fatal(err)
	}
	if err := r.rotateLogs(t.Context(), 1); err != nil {
		t.Errorf("where a link leads out of the log directory: %v", err)
	}
	if entries, err := os.ReadDir(elsewhere); err != nil || len(entries) != 1 || entries[0].Name() != "0.log" {
		t.Errorf("out there is %v, %v", entries, err)
	}
	if err := errors.Join(os.Remove(dir), os.Rename(dir+".kept", dir)); err != nil {
		t.Fatal(err)
	}
	if err := r.rotateLogs(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if old, err := os.ReadFile(path + ".1"); err != nil || !strings.Contains(string(old), "one") {
		t.Errorf("what was said before: %q, %v", old, err)
	}
	eventually(t, "the runtime writes a new log", func(context.Context) bool {
		_, err := os.Stat(path)
		return err == nil
	})
	if log := ran.logs(ran.id, &corev1.PodLogOptions{}); log != "" {
		t.Errorf("the new log begins with %q", log)
	}
	if err := errors.Join(r.StopContainer(t.Context(), ran.id, 0), r.RemoveContainer(t.Context(), ran.id)); err != nil {
		t.Fatal(err)
	}
	for _, left := range []string{path, path + ".1"} {
		if _, err := os.Stat(left); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is left of a container that was removed: %v", left, err)
		}
	}
}
