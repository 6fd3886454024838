package process

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"lanyard.dev/internal/files"
	"lanyard.dev/internal/tokenvolume"
)

const (
	directoryPrefix = "lanyard-exec-"
	lockName        = "lock"
	filesName       = "serviceaccount"
	kubeconfigName  = "kubeconfig"

	// directoryTries bounds how often another supervisor may take a new directory for one that was left behind.
	directoryTries = 10
	// unlockedAge is how old a directory must be to have been left behind before it was locked.
	unlockedAge = 10 * time.Minute
)

// directory holds the files where nothing can be mounted. It is locked by its supervisor, so that the next one of the same
// user can tell that it was left behind.
type directory struct {
	path string
	lock *files.Lock
}

// newDirectory makes a directory that user alone can read, and removes those that were left behind.
func newDirectory(user User) (*directory, error) {
	base := directoryBase(user)
	sweepDirectories(base)
	for range directoryTries {
		d, err := tryDirectory(base, user)
		if errors.Is(err, files.ErrLocked) || errors.Is(err, fs.ErrNotExist) {
			continue
		}
		return d, err
	}
	return nil, fmt.Errorf("no directory could be made in %s", base)
}

// directoryBase prefers the user's own runtime directory, which is on a tmpfs. Another user cannot enter that.
func directoryBase(user User) string {
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" && !user.Other && ownDirectory(dir) {
		return dir
	}
	return os.TempDir()
}

func ownDirectory(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && info.IsDir() && owned(info)
}

func owned(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(stat.Uid) == os.Geteuid()
}

// tryDirectory makes the directory with the user's own one in it: the lock is the supervisor's.
func tryDirectory(base string, user User) (*directory, error) {
	path, err := os.MkdirTemp(base, directoryPrefix)
	if err != nil {
		return nil, err
	}
	lock, err := files.TryLock(filepath.Join(path, lockName))
	if err != nil {
		return nil, err
	}
	d := &directory{path, lock}
	files := d.files()
	err = os.Mkdir(files, 0o700)
	if err == nil && user.Other {
		err = letIn(path, files, user)
	}
	if err != nil {
		return nil, errors.Join(err, d.remove())
	}
	return d, nil
}

// letIn lets another user read what the supervisor, which has more rights, writes. The directory stays the supervisor's:
// its owner could put things into the supervisor's way.
func letIn(path, files string, user User) error {
	// Others may pass through to what only the user's group can open, and only the user can read.
	return errors.Join(os.Chown(files, unset, user.GID), os.Chmod(files, 0o750), os.Chmod(path, 0o711))
}

func (d *directory) files() string { return filepath.Join(d.path, filesName) }

func (d *directory) open() (*os.File, error) { return os.Open(d.files()) }

func (d *directory) remove() error {
	// Once the lock is released the directory may be another's to remove.
	return errors.Join(os.RemoveAll(d.path), d.lock.Release())
}

// sweepDirectories removes what supervisors of this user that were killed have left. What it cannot remove stays for the
// next one.
func sweepDirectories(base string) {
	entries, err := os.ReadDir(base)
	if err != nil {
		return
	}
	for _, entry := range entries {
		if entry.IsDir() && strings.HasPrefix(entry.Name(), directoryPrefix) {
			sweepDirectory(filepath.Join(base, entry.Name()))
		}
	}
}

func sweepDirectory(path string) {
	info, err := os.Lstat(path)
	if err != nil || !info.IsDir() || !owned(info) {
		return
	}
	lock := filepath.Join(path, lockName)
	if _, err := os.Lstat(lock); err != nil && time.Since(info.ModTime()) < unlockedAge {
		return
	}
	held, err := files.TryLock(lock)
	if err != nil {
		return
	}
	_ = os.RemoveAll(path)
	_ = held.Release()
}

// kubeconfig is for clients that do not look for a service account where this one is. It names the files, so that it
// stays true when they are renewed.
func (d *directory) kubeconfig(server Server, namespace string, hasCA bool) ([]byte, error) {
	const name = "lanyard"
	cluster := clientcmdapi.NewCluster()
	cluster.Server, cluster.TLSServerName = server.URL.String(), server.Name
	if hasCA {
		cluster.CertificateAuthority = filepath.Join(d.files(), caFile)
	} else {
		cluster.InsecureSkipTLSVerify = server.Insecure
	}
	user := clientcmdapi.NewAuthInfo()
	user.TokenFile = filepath.Join(d.files(), tokenFile)
	context := clientcmdapi.NewContext()
	context.Cluster, context.AuthInfo, context.Namespace = name, name, namespace
	config := clientcmdapi.NewConfig()
	config.Clusters[name], config.AuthInfos[name], config.Contexts[name] = cluster, user, context
	config.CurrentContext = name
	data, err := clientcmd.Write(*config)
	if err != nil {
		return nil, fmt.Errorf("encode the kubeconfig: %w", err)
	}
	return data, nil
}

// fill writes the files for the first time.
func (s *supervisor) fill() error {
	dir, err := s.open()
	if err != nil {
		return fmt.Errorf("open the volume: %w", err)
	}
	// The descriptor leads to the mount that can be written to; no path does.
	s.root, err = os.OpenRoot(fmt.Sprintf("/proc/self/fd/%d", dir.Fd()))
	if err != nil {
		return fmt.Errorf("open the volume: %w", err)
	}
	if err := tokenvolume.Write(s.root, s.content.files); err != nil {
		return fmt.Errorf("write the volume: %w", err)
	}
	if s.directory == nil {
		return nil
	}
	return s.writeKubeconfig()
}

func (s *supervisor) open() (*os.File, error) {
	if s.directory == nil {
		return s.volume.dir, nil
	}
	dir, err := s.directory.open()
	if err == nil {
		s.volume = &volume{dir: dir}
	}
	return dir, err
}

// writeKubeconfig puts it beside the volume's directory, where the command's user can read and not replace it.
func (s *supervisor) writeKubeconfig() error {
	data, err := s.directory.kubeconfig(s.Server, s.pod.Namespace, s.content.hasCA)
	if err != nil {
		return err
	}
	path := s.kubeconfigPath()
	if err := os.WriteFile(path, data, secretMode); err != nil {
		return err
	}
	if s.User.Other {
		return os.Chown(path, s.User.UID, s.User.GID)
	}
	return nil
}

func (s *supervisor) kubeconfigPath() string { return filepath.Join(s.directory.path, kubeconfigName) }

// Variables that tell the command of its Pod and files.
const (
	envPod       = PodNameEnv
	envNamespace = "LANYARD_POD_NAMESPACE"
	envDirectory = "LANYARD_SERVICEACCOUNT_DIR"
	envKube      = "KUBECONFIG"
)

// environment is the caller's, less what would lead clients to the caller's own credentials, or to another server.
func (s *supervisor) environment() ([]string, error) {
	env := without(s.User.environment(s.Env, s.PreserveEnv), envKube, serviceHost, servicePort, servicePortHTTPS, envPod, envNamespace, envDirectory)
	env = append(env, envPod+"="+s.pod.Name, envNamespace+"="+s.pod.Namespace)
	if s.directory != nil {
		return append(env, envDirectory+"="+s.directory.files(), envKube+"="+s.kubeconfigPath()), nil
	}
	found, err := s.Server.environment()
	if err != nil {
		return nil, &Error{Err: fmt.Errorf("server %s: %w", s.Server.URL, err), Next: "--no-mount hands over a kubeconfig, which can"}
	}
	if s.Server.Name != "" {
		s.say("in-cluster clients will look for the name %s in the server's certificate, not for %s", s.Server.URL.Hostname(), s.Server.Name)
	}
	return append(append(env, envDirectory+"="+WellKnown), found...), nil
}
