package etcd

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// maxSocketPath is below what every supported system allows in a socket
// address (108 bytes on Linux, 104 on macOS, the final NUL included).
const maxSocketPath = 100

const socketName = "client.sock"

// socket is the place of the member's socket.
type socket struct {
	path string
	// temporary is the private directory made for the socket, or empty when
	// it lies in the data directory.
	temporary string
}

// newSocket puts the socket into dir. Where that path would be no address,
// the socket goes to a new 0700 directory for temporary files.
func newSocket(dir string) (*socket, error) {
	if path := filepath.Join(dir, socketName); addressable(path) {
		return &socket{path: path}, nil
	}
	for _, base := range []string{os.TempDir(), "/tmp"} {
		if !addressable(filepath.Join(base, "lanyard-etcd-0123456789", socketName)) {
			continue
		}
		short, err := os.MkdirTemp(base, "lanyard-etcd-")
		if err != nil {
			return nil, fmt.Errorf("make a short directory for the socket: %w", err)
		}
		return &socket{path: filepath.Join(short, socketName), temporary: short}, nil
	}
	return nil, fmt.Errorf("no directory for temporary files is fit for a socket (%s): its path is too long, or has one of # ? %%", os.TempDir())
}

// addressable tells whether a socket can be reached at path. An address is a
// short fixed-size field of the system call, however long file names may be
// elsewhere; and the client takes it as a URL, of which "#", "?" and "%" are
// syntax: it would dial another path, in vain and without end.
func addressable(path string) bool {
	return len(path) <= maxSocketPath && !strings.ContainsAny(path, "#?%")
}

func (s *socket) endpoint() string { return "unix://" + s.path }

// protect closes the socket to others even if its directory is opened later.
func (s *socket) protect() error { return os.Chmod(s.path, 0o600) }

func (s *socket) remove() {
	_ = os.Remove(s.path)
	if s.temporary != "" {
		_ = os.Remove(s.temporary)
	}
}

// privateDir makes dir, or an existing one, accessible to its owner only.
func privateDir(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil && !os.IsExist(err) {
		return err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is not a directory", dir)
	}
	if info.Mode().Perm() == 0o700 {
		return nil
	}
	return os.Chmod(dir, 0o700)
}
