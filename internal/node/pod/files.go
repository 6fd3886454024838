package pod

import (
	"bytes"
	"context"
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
	"k8s.io/utils/ptr"

	"lanyard.dev/internal/node/cri"
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

const hostsPath = "/etc/hosts"

// hostsFile returns the pod's /etc/hosts: names of its own, or the machine's for a pod with the host's network, and in
// either case its aliases.
func hostsFile(pod *corev1.Pod, ips []string) ([]byte, error) {
	var out bytes.Buffer
	if pod.Spec.HostNetwork {
		host, err := os.ReadFile(hostsPath)
		if err != nil {
			return nil, err
		}
		out.WriteString("# Kubernetes-managed hosts file (host network).\n")
		out.Write(host)
	} else {
		out.WriteString("# Kubernetes-managed hosts file.\n")
		out.WriteString("127.0.0.1\tlocalhost\n")
		out.WriteString("::1\tlocalhost ip6-localhost ip6-loopback\n")
		out.WriteString("fe00::0\tip6-localnet\n")
		out.WriteString("fe00::0\tip6-mcastprefix\n")
		out.WriteString("fe00::1\tip6-allnodes\n")
		out.WriteString("fe00::2\tip6-allrouters\n")
		for _, ip := range ips {
			fmt.Fprintf(&out, "%s\t%s\n", ip, hostname(pod))
		}
	}
	if len(pod.Spec.HostAliases) > 0 {
		out.WriteString("\n# Entries added by HostAliases.\n")
	}
	for _, alias := range pod.Spec.HostAliases {
		fmt.Fprintf(&out, "%s\t%s\n", alias.IP, strings.Join(alias.Hostnames, "\t"))
	}
	return out.Bytes(), nil
}

// Kubernetes' bounds on what containers say as they end.
const (
	longestWords     = 4096
	longestWordsOf   = 12 * 1024 // of all containers of a pod
	fallbackLogLines = 80
	fallbackLogBytes = 2048
)

// lastWords returns what a run left in its termination log, or, where it failed and the pod wants that, the end of its
// log. What was found is remembered; it does not change any more.
func (w *worker) lastWords(ctx context.Context, pod *corev1.Pod, c *corev1.Container, run *cri.Container) string {
	if words, ok := w.messages[run.ID]; ok {
		return words
	}
	limit := int64(min(longestWords, longestWordsOf/max(len(containersOf(pod)), 1)))
	var words string
	if c.TerminationMessagePath != "" {
		words = w.files.readTermination(w.uid, run.Name, run.Attempt, limit)
	}
	failed := run.ExitCode != 0 || run.Reason == "OOMKilled"
	if words == "" && failed && c.TerminationMessagePolicy == corev1.TerminationMessageFallbackToLogsOnError {
		words = w.endOfLog(ctx, run.ID, min(limit, fallbackLogBytes))
	}
	w.messages[run.ID] = words
	return words
}

// endOfLog returns at most limit bytes of the end of a run's log, "" where it cannot be read.
func (w *worker) endOfLog(ctx context.Context, id string, limit int64) string {
	tail := &ending{limit: int(limit)}
	options := &corev1.PodLogOptions{TailLines: ptr.To[int64](fallbackLogLines)}
	if err := w.Runtime.Logs(ctx, id, options, tail, tail); err != nil {
		w.logFailure(ctx, "read the end of a container's log", err)
		return ""
	}
	return string(bytes.ToValidUTF8(tail.data, []byte("\uFFFD")))
}

// ending keeps the end of what is written to it.
type ending struct {
	data  []byte
	limit int
}

func (e *ending) Write(p []byte) (int, error) {
	e.data = append(e.data, p...)
	if over := len(e.data) - e.limit; over > 0 {
		e.data = append(e.data[:0], e.data[over:]...)
	}
	return len(p), nil
}
