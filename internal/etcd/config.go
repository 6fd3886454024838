package etcd

import (
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"google.golang.org/grpc"
)

const (
	// memberName and peerName end up in the stored membership. They name no
	// path and no host, so a data directory may be moved or copied.
	memberName = "lanyard"
	peerName   = "unix://lanyard.peer.invalid"

	// A lone member elects itself when one election timeout has passed at the
	// latest, so a short timeout makes the start fast. Ticks are the work that
	// an idle member does, so there are as few in a timeout as etcd permits.
	tickMs     = 20
	electionMs = 5 * tickMs

	// etcd drops the entries of raft's log from memory after every hundredth,
	// but for the last snapshotCatchUp, which are for followers that lag. There
	// are none. (0 would mean 5000.)
	snapshotCatchUp = 1
	// snapshotEvery bounds how many entries a start reads back into memory.
	snapshotEvery = 500
	keepOldFiles  = 2

	quotaBytes = 8 << 30

	// slowRequest is when etcd starts to complain about itself. Its own bound
	// of 100 ms is made for clusters on dedicated disks.
	slowRequest = time.Second
)

// Config says where the member lives.
type Config struct {
	// Dir holds the member's data. It is created 0700 if absent; its parent
	// must exist.
	Dir string

	// Log receives etcd's warnings and errors as JSON lines; nil discards
	// them. Neither keys nor values are ever among them.
	Log io.Writer

	// UnsafeNoFsync lets writes be acknowledged before they are on the disk.
	// It is for tests that do not look at durability.
	UnsafeNoFsync bool
}

func (c Config) validate() error {
	if c.Dir == "" {
		return errors.New("etcd: no data directory given")
	}
	if !filepath.IsAbs(c.Dir) {
		return errors.New("etcd: the data directory must be an absolute path")
	}
	return nil
}

// member returns the library's configuration for a lone member on socket.
func (c Config) member(socket string, log *failureLog, register func(*grpc.Server)) *embed.Config {
	peer := url.URL{Scheme: "unix", Host: "lanyard.peer.invalid"}
	m := embed.NewConfig()
	m.Name, m.Dir = memberName, c.Dir
	m.ListenPeerUrls, m.AdvertisePeerUrls = nil, []url.URL{peer}
	m.ListenClientUrls = []url.URL{{Scheme: "unix", Path: socket}}
	m.AdvertiseClientUrls = []url.URL{{Scheme: "unix", Host: "lanyard.client.invalid"}}
	m.InitialCluster = memberName + "=" + peerName
	m.TickMs, m.ElectionMs = tickMs, electionMs
	m.SnapshotCount, m.SnapshotCatchUpEntries = snapshotEvery, snapshotCatchUp
	m.MaxSnapFiles, m.MaxWalFiles = keepOldFiles, keepOldFiles
	m.QuotaBackendBytes, m.BackendFreelistType = quotaBytes, "map"
	m.WarningApplyDuration, m.WarningUnaryRequestDuration = slowRequest, slowRequest
	m.EnableGRPCGateway, m.UnsafeNoFsync = false, c.UnsafeNoFsync
	m.ServiceRegister = register
	m.ZapLoggerBuilder = embed.NewZapLoggerBuilder(log.logger(c.Log))
	return m
}

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
