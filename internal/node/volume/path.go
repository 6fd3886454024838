//go:build linux

package volume

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
)

// kind is the directory of all volumes of one kind.
type kind string

const (
	projected   kind = "projected"
	secret      kind = "secret"
	configMap   kind = "configmap"
	downwardAPI kind = "downward-api"
	emptyDir    kind = "empty-dir"
)

func kindOf(volume *corev1.Volume) kind {
	switch {
	case volume.Projected != nil:
		return projected
	case volume.Secret != nil:
		return secret
	case volume.ConfigMap != nil:
		return configMap
	case volume.DownwardAPI != nil:
		return downwardAPI
	}
	return emptyDir
}

// podDir is the directory of one pod.
type podDir struct{ root, name string }

// podAt takes a UID that checkUID has passed, and a root that links lead to no more.
func podAt(root string, uid types.UID) podDir { return podDir{root, string(uid)} }

func (d podDir) path() string    { return filepath.Join(d.root, d.name) }
func (d podDir) volumes() string { return filepath.Join(d.path(), "volumes") }

func (d podDir) volume(k kind, name string) string {
	return filepath.Join(d.volumes(), string(k), name)
}

// maxUID is longer than any UID in use; the authority's are 36 characters.
const maxUID = 128

// checkUID refuses a UID that cannot be the name of a directory of its own. UIDs come from outside.
func checkUID(uid types.UID) error {
	if len(uid) == 0 || len(uid) > maxUID {
		return fmt.Errorf("pod UID has %d characters, want 1 to %d", len(uid), maxUID)
	}
	for _, c := range []byte(uid) {
		if !strings.ContainsRune("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-", rune(c)) {
			return fmt.Errorf("pod UID %q is not letters, digits and hyphens", uid)
		}
	}
	return nil
}

func checkNames(pod *corev1.Pod) error {
	if err := checkUID(pod.UID); err != nil {
		return err
	}
	seen := map[string]bool{}
	for i := range pod.Spec.Volumes {
		name := pod.Spec.Volumes[i].Name
		if faults := validation.IsDNS1123Label(name); len(faults) > 0 {
			return fmt.Errorf("volume name %q: %s", name, faults[0])
		}
		if seen[name] {
			return fmt.Errorf("volume name %q is there twice", name)
		}
		seen[name] = true
	}
	return nil
}

// root makes the directory of all pods, closes it to others and returns its path without links, as the kernel names
// mounts in it.
func (v *Volumes) root() (string, error) {
	if !filepath.IsAbs(v.config.Root) {
		return "", errors.New("the directory of volumes is not an absolute path")
	}
	if err := os.MkdirAll(v.config.Root, 0o700); err != nil {
		return "", err
	}
	path, err := filepath.EvalSymlinks(v.config.Root)
	if err != nil {
		return "", err
	}
	info, err := os.Lstat(path)
	if err != nil {
		return "", err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.IsDir() || int(stat.Uid) != os.Geteuid() {
		return "", fmt.Errorf("%s is not a directory of this user", path)
	}
	if info.Mode().Perm() != 0o700 {
		return path, os.Chmod(path, 0o700)
	}
	return path, nil
}
