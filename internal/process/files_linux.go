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
	"lanyard.dev/internal/hint"
	"lanyard.dev/internal/runas"
	"lanyard.dev/internal/tokenvolume"
)

const (
	directoryPrefix = "lanyard-exec-"
	lockName        = "lock"
	filesName       = "serviceaccount"
	kubeconfigName  = "kubeconfig"

	// directoryAttempts bounds how often another supervisor may remove a new directory, which looks abandoned until it is locked.
	directoryAttempts = 10
	// unlockedAge is the age from which a directory without a lock is treated as abandoned.
	unlockedAge = 10 * time.Minute
)

// directory is a private directory that holds the files if nothing is mounted. Its supervisor locks it, so that the next
// supervisor of the same user recognizes an abandoned one.
type directory struct {
	path string
	lock *files.Lock
}

// newDirectory creates a directory that only user can read, and removes abandoned ones.
func newDirectory(user runas.User) (*directory, error) {
	base := directoryBase(user)
	removeAbandoned(base)
	for range directoryAttempts {
		d, err := tryDirectory(base, user)
		if errors.Is(err, files.ErrLocked) || errors.Is(err, fs.ErrNotExist) {
			continue
		}
		return d, err
	}
	return nil, fmt.Errorf("no directory could be created in %s", base)
}

// directoryBase returns where to create the directory. It prefers the caller's runtime directory, which is on a tmpfs, but
// which another user cannot enter.
func directoryBase(user runas.User) string {
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" && !user.Other && isOwnDirectory(dir) {
		return dir
	}
	return os.TempDir()
}

func isOwnDirectory(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && info.IsDir() && isOwned(info)
}

func isOwned(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(stat.Uid) == os.Geteuid()
}

// tryDirectory creates the directory with one for the files in it. The lock stays outside of the latter, since the user of the
// command must not reach it.
func tryDirectory(base string, user runas.User) (*directory, error) {
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
		err = grantAccess(path, files, user)
	}
	if err != nil {
		return nil, errors.Join(err, d.remove())
	}
	return d, nil
}

// grantAccess lets another user read the files. The supervisor remains the owner of the directory, because the owner could
// create entries that mislead the supervisor, which has more rights.
func grantAccess(path, files string, user runas.User) error {
	// Everyone can traverse path. Only the user's group can list the files, and only the user can read the token.
	return errors.Join(os.Chown(files, noID, user.GID), os.Chmod(files, 0o750), os.Chmod(path, 0o711))
}

func (d *directory) files() string { return filepath.Join(d.path, filesName) }

func (d *directory) open() (*os.File, error) { return os.Open(d.files()) }

func (d *directory) remove() error {
	// After the release of the lock, another supervisor may remove the directory.
	return errors.Join(os.RemoveAll(d.path), d.lock.Release())
}

// removeAbandoned removes the directories of supervisors of this user that were killed. If it cannot remove one, it leaves that
// to the next supervisor.
func removeAbandoned(base string) {
	entries, err := os.ReadDir(base)
	if err != nil {
		return
	}
	for _, entry := range entries {
		if entry.IsDir() && strings.HasPrefix(entry.Name(), directoryPrefix) {
			removeIfAbandoned(filepath.Join(base, entry.Name()))
		}
	}
}

func removeIfAbandoned(path string) {
	info, err := os.Lstat(path)
	if err != nil || !info.IsDir() || !isOwned(info) {
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

// kubeconfig returns a kubeconfig for the command. It contains paths instead of contents, so that it remains valid when the
// files are renewed.
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

// writeFiles writes the files for the first time.
func (s *supervisor) writeFiles() error {
	dir, err := s.openVolume()
	if err != nil {
		return fmt.Errorf("open the volume: %w", err)
	}
	// Only the descriptor leads to the writable mount.
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

func (s *supervisor) openVolume() (*os.File, error) {
	if s.directory == nil {
		return s.volume.dir, nil
	}
	dir, err := s.directory.open()
	if err == nil {
		s.volume = &volume{dir: dir}
	}
	return dir, err
}

// writeKubeconfig writes the kubeconfig beside the directory of the files, where the command's user can read but not replace it.
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

// The variables in which the command finds its Pod and files.
const (
	envPod       = PodNameEnv
	envNamespace = "LANYARD_POD_NAMESPACE"
	envDirectory = "LANYARD_SERVICEACCOUNT_DIR"
	envKube      = "KUBECONFIG"
)

// environment returns the environment of the command. It leaves out the variables that would lead clients to the caller's
// credentials or to another server.
func (s *supervisor) environment() ([]string, error) {
	env := runas.WithoutVariables(s.User.Environment(s.Env, s.PreserveEnv), envKube, serviceHost, servicePort, servicePortHTTPS, envPod, envNamespace, envDirectory)
	env = append(env, envPod+"="+s.pod.Name, envNamespace+"="+s.pod.Namespace)
	if s.directory != nil {
		return append(env, envDirectory+"="+s.directory.files(), envKube+"="+s.kubeconfigPath()), nil
	}
	server, err := s.Server.environment()
	if err != nil {
		return nil, hint.New(fmt.Errorf("server %s: %w", s.Server.URL, err), "use --no-mount, which provides a kubeconfig instead")
	}
	if s.Server.Name != "" {
		s.printf("in-cluster clients expect the name %s in the server's certificate, but the kubeconfig sets %s", s.Server.URL.Hostname(), s.Server.Name)
	}
	return append(append(env, envDirectory+"="+WellKnown), server...), nil
}
