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

	"lanyard.dev/internal/files"
	"lanyard.dev/internal/node/cri"
)

// podFiles are the files that the workers keep of their pods: ROOT/UID/etc-hosts, and the termination logs
// ROOT/UID/containers/NAME/ATTEMPT. Only root can enter the directories, because all users may write to some of the files.
type podFiles struct {
	path string
	root *os.Root
}

// openFiles makes the directory and opens it. No name of a pod or container leads out of it.
func openFiles(path string) (*podFiles, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of the pods: %w", err)
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, fmt.Errorf("open the directory of the pods: %w", err)
	}
	return &podFiles{path, root}, nil
}

func (f *podFiles) close() error { return f.root.Close() }

// prepare makes the directory of a pod.
func (f *podFiles) prepare(uid types.UID) error {
	if err := f.root.MkdirAll(filepath.Join(string(uid), "containers"), 0o700); err != nil {
		return fmt.Errorf("make the directory of the pod: %w", err)
	}
	return f.root.Chmod(string(uid), 0o700)
}

// writeHosts writes the pod's /etc/hosts and returns its path. It does not replace the file, because running containers have
// mounted it.
func (f *podFiles) writeHosts(uid types.UID, content []byte) (string, error) {
	name := filepath.Join(string(uid), "etc-hosts")
	if f.hasContent(name, content) {
		return filepath.Join(f.path, name), nil
	}
	return filepath.Join(f.path, name), f.write(name, content, 0o644)
}

// hasContent reports whether a file has the content. It reads hardly more than the length of the content, because containers may
// write to the file.
func (f *podFiles) hasContent(name string, content []byte) bool {
	file, err := f.root.Open(name)
	if err != nil {
		return false
	}
	defer file.Close()
	stored, err := files.ReadAll(file, name, int64(len(content)))
	return err == nil && bytes.Equal(stored, content)
}

// write writes a file and sets its mode, independent of the umask.
func (f *podFiles) write(name string, content []byte, mode fs.FileMode) error {
	if err := f.root.WriteFile(name, content, mode); err != nil {
		return err
	}
	return f.root.Chmod(name, mode)
}

// terminationLog returns the path of a run's termination log below the root.
func terminationLog(uid types.UID, container string, attempt uint32) string {
	return filepath.Join(string(uid), "containers", container, strconv.FormatUint(uint64(attempt), 10))
}

// makeTerminationLog makes an empty termination log, to which every user may write, and returns its path.
func (f *podFiles) makeTerminationLog(uid types.UID, container string, attempt uint32) (string, error) {
	name := terminationLog(uid, container, attempt)
	if err := f.root.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return "", err
	}
	return filepath.Join(f.path, name), f.write(name, nil, 0o666)
}

// readTerminationLog returns at most limit bytes of a run's termination log, or "" if it cannot be read.
func (f *podFiles) readTerminationLog(uid types.UID, container string, attempt uint32, limit int64) string {
	file, err := f.root.Open(terminationLog(uid, container, attempt))
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

// removeTerminationLog removes a run's termination log.
func (f *podFiles) removeTerminationLog(uid types.UID, container string, attempt uint32) {
	_ = f.root.Remove(terminationLog(uid, container, attempt)) // if this fails, the file is removed with the pod's directory
}

// remove removes the pod's files, and the pod's directory if it is empty then.
func (f *podFiles) remove(uid types.UID) error {
	var errs []error
	// Earlier versions of the agent also made a file named user.
	for _, name := range []string{"etc-hosts", "user", "containers"} {
		errs = append(errs, f.root.RemoveAll(filepath.Join(string(uid), name)))
	}
	_ = f.root.Remove(string(uid))
	return errors.Join(errs...)
}

// existing returns the UIDs of the pods that have a directory.
func (f *podFiles) existing() ([]types.UID, error) {
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

// hostname returns the host name in the pod.
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

const (
	hostsPath = "/etc/hosts"
	// maxHosts is the limit for hostsPath, in bytes. Lists of hosts to block have a few megabytes.
	maxHosts = 16 << 20
)

// hostsFile returns the pod's /etc/hosts. It has the pod's host name, or the machine's entries for a pod in the host network,
// and the pod's host aliases.
func hostsFile(pod *corev1.Pod, ips []string) ([]byte, error) {
	var out bytes.Buffer
	if pod.Spec.HostNetwork {
		host, err := files.Read(hostsPath, maxHosts)
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

// The bounds of Kubernetes on termination messages.
const (
	maxMessage       = 4096
	maxPodMessages   = 12 * 1024 // all containers of a pod together
	fallbackLogLines = 80
	fallbackLogBytes = 2048
)

// terminationMessage returns the content of a run's termination log. If that is empty, the run has failed, and the container's
// policy permits it, it returns the end of the run's log. The message is remembered, because it does not change any more.
func (w *worker) terminationMessage(ctx context.Context, pod *corev1.Pod, c *corev1.Container, run *cri.Container) string {
	if message, ok := w.messages[run.ID]; ok {
		return message
	}
	limit := int64(min(maxMessage, maxPodMessages/max(len(containersOf(pod)), 1)))
	var message string
	if c.TerminationMessagePath != "" {
		message = w.files.readTerminationLog(w.uid, run.Name, run.Attempt, limit)
	}
	failed := run.ExitCode != 0 || run.Reason == "OOMKilled"
	if message == "" && failed && c.TerminationMessagePolicy == corev1.TerminationMessageFallbackToLogsOnError {
		message = w.logTail(ctx, run.ID, min(limit, fallbackLogBytes))
	}
	w.messages[run.ID] = message
	return message
}

// logTail returns at most the last limit bytes of a run's log, or "" if the log cannot be read.
func (w *worker) logTail(ctx context.Context, id string, limit int64) string {
	tail := &tailWriter{limit: int(limit)}
	options := &corev1.PodLogOptions{TailLines: ptr.To[int64](fallbackLogLines)}
	if err := w.Runtime.Logs(ctx, id, options, tail, tail); err != nil {
		w.logFailure(ctx, "read the end of a container's log", err)
		return ""
	}
	return string(bytes.ToValidUTF8(tail.data, []byte("\uFFFD")))
}

// tailWriter keeps the last bytes that are written to it.
type tailWriter struct {
	data  []byte
	limit int
}

func (e *tailWriter) Write(p []byte) (int, error) {
	e.data = append(e.data, p...)
	if over := len(e.data) - e.limit; over > 0 {
		e.data = append(e.data[:0], e.data[over:]...)
	}
	return len(p), nil
}
