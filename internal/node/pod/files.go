package pod

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// files are what a worker keeps of its pod on this machine: ROOT/UID/etc-hosts, ROOT/UID/containers/NAME/ATTEMPT (what a
// run says as it ends). The directories are root's alone, since the files in them may be open to all.
type files struct {
	path string
	root *os.Root
}

// openFiles makes the directory and opens it. Names of pods and containers cannot lead out of it.
func openFiles(path string) (*files, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of the pods: %w", err)
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, fmt.Errorf("open the directory of the pods: %w", err)
	}
	return &files{path, root}, nil
}

func (f *files) close() error { return f.root.Close() }

// prepare makes the directory of a pod.
func (f *files) prepare(uid types.UID) error {
	if err := f.root.MkdirAll(filepath.Join(string(uid), "containers"), 0o700); err != nil {
		return fmt.Errorf("make the directory of the pod: %w", err)
	}
	return f.root.Chmod(string(uid), 0o700)
}

// writeHosts writes the pod's /etc/hosts in place, since running containers have the file itself mounted, and returns
// its path.
func (f *files) writeHosts(uid types.UID, content []byte) (string, error) {
	name := filepath.Join(string(uid), "etc-hosts")
	if old, err := f.root.ReadFile(name); err == nil && string(old) == string(content) {
		return filepath.Join(f.path, name), nil
	}
	return filepath.Join(f.path, name), f.write(name, content, 0o644)
}

// write sets the mode whatever the process's umask.
func (f *files) write(name string, content []byte, mode fs.FileMode) error {
	if err := f.root.WriteFile(name, content, mode); err != nil {
		return err
	}
	return f.root.Chmod(name, mode)
}

func termination(uid types.UID, container string, attempt uint32) string {
	return filepath.Join(string(uid), "containers", container, strconv.FormatUint(uint64(attempt), 10))
}

// makeTermination makes the empty file in which a run may say why it ended. Whatever user it runs as may write there.
func (f *files) makeTermination(uid types.UID, container string, attempt uint32) (string, error) {
	name := termination(uid, container, attempt)
	if err := f.root.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return "", err
	}
	return filepath.Join(f.path, name), f.write(name, nil, 0o666)
}

// readTermination returns at most limit bytes of what a run said.
func (f *files) readTermination(uid types.UID, container string, attempt uint32, limit int64) string {
	file, err := f.root.Open(termination(uid, container, attempt))
	if err != nil {
		return ""
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, limit))
	if err != nil {
		return ""
	}
	return strings.ToValidUTF8(string(data), "\uFFFD")
}

// removeTermination forgets what a run said.
func (f *files) removeTermination(uid types.UID, container string, attempt uint32) {
	_ = f.root.Remove(termination(uid, container, attempt)) // goes with the pod's directory at the latest
}

// remove removes what was made here, and the pod's directory unless others have something in it.
func (f *files) remove(uid types.UID) error {
	var errs []error
	// Earlier agents kept a file named user as well.
	for _, name := range []string{"etc-hosts", "user", "containers"} {
		errs = append(errs, f.root.RemoveAll(filepath.Join(string(uid), name)))
	}
	_ = f.root.Remove(string(uid))
	return errors.Join(errs...)
}

// existing returns the pods that have a directory.
func (f *files) existing() ([]types.UID, error) {
	entries, err := fs.ReadDir(f.root.FS(), ".")
	if err != nil {
		return nil, err
	}
	var all []types.UID
	for _, e := range entries {
		if _, err := f.root.Stat(filepath.Join(e.Name(), "containers")); e.IsDir() && err == nil {
			all = append(all, types.UID(e.Name()))
		}
	}
	return all, nil
}

// hostname is the name the pod has for itself.
func hostname(pod *corev1.Pod) string {
	name := pod.Name
	if pod.Spec.Hostname != "" {
		name = pod.Spec.Hostname
	}
	const longest = 63
	if len(name) > longest {
		name = strings.TrimRight(name[:longest], "-.")
	}
	return name
}
