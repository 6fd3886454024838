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

// MemberName and PeerURL are stored in the data, so a restored member must have them too. They name no path and no host, so that a
// data directory may be moved or copied.
const (
	MemberName = "lanyard"
	PeerURL    = "unix://lanyard.peer.invalid"
)

const (
	// A member without peers elects itself within one election timeout, so a short timeout makes the start fast. Each tick costs
	// an idle member CPU, so a timeout has as few ticks as etcd permits.
	tickMs     = 20
	electionMs = 5 * tickMs

	// After every hundredth entry of raft's log, etcd removes all entries from memory but the last snapshotCatchUp. They are for
	// followers that are behind, of which there are none. (0 would mean 5000.)
	snapshotCatchUp = 1
	// snapshotEvery limits how many entries a start reads into memory.
	snapshotEvery = 500
	keepOldFiles  = 2

	quotaBytes = 8 << 30

	// slowRequest is the time after which etcd logs a warning about a request. Its default of 100 ms is for clusters with
	// dedicated disks.
	slowRequest = time.Second
)

// Config configures the member.
type Config struct {
	// Dir is the directory of the member's data. If it is absent, it is created with mode 0700. Its parent must exist.
	Dir string

	// Log receives etcd's warnings and errors as JSON lines, without keys and values. If it is nil, they are discarded.
	Log io.Writer

	// UnsafeNoFsync acknowledges writes before they are on the disk. It is for tests that do not check durability.
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

// member returns etcd's configuration for a member without peers on the socket.
func (c Config) member(socket string, log *failureLog, register func(*grpc.Server)) *embed.Config {
	peer := url.URL{Scheme: "unix", Host: "lanyard.peer.invalid"}
	m := embed.NewConfig()
	m.Name, m.Dir = MemberName, c.Dir
	m.ListenPeerUrls, m.AdvertisePeerUrls = nil, []url.URL{peer}
	m.ListenClientUrls = []url.URL{{Scheme: "unix", Path: socket}}
	m.AdvertiseClientUrls = []url.URL{{Scheme: "unix", Host: "lanyard.client.invalid"}}
	m.InitialCluster = MemberName + "=" + PeerURL
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

// maxSocketPath is less than the limit of a socket address on every supported system: 108 bytes on Linux and 104 on macOS, with
// the final NUL.
const maxSocketPath = 100

const socketName = "client.sock"

// socket is the path of the member's socket.
type socket struct {
	path string
	// temporary is the directory that was created for the socket, or empty if the socket is in the data directory.
	temporary string
	// link is the symbolic link to the socket in temporary, or empty.
	link string
}

// makeLink replaces the link that a killed member has left. Where no link can be made, only Connect does not find the member.
func (s *socket) makeLink() {
	_ = os.Remove(s.link)
	_ = os.Symlink(s.path, s.link)
}

// findSocket returns the path of the socket of the member that runs on dir.
func findSocket(dir string) (string, error) {
	path := filepath.Join(dir, socketName)
	if linked, err := os.Readlink(path); err == nil {
		path = linked
	}
	if _, err := os.Stat(path); err != nil {
		return "", err
	}
	if !addressable(path) {
		return "", fmt.Errorf("%s cannot be the address of a socket", path)
	}
	return path, nil
}

// newSocket returns a socket in dir. If its path cannot be an address, the socket is in a new temporary directory with mode
// 0700, and a symbolic link in dir leads to it.
func newSocket(dir string) (*socket, error) {
	path := filepath.Join(dir, socketName)
	if addressable(path) {
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
		s := &socket{path: filepath.Join(short, socketName), temporary: short, link: path}
		s.makeLink()
		return s, nil
	}
	return nil, fmt.Errorf("no directory for temporary files is suitable for the socket (%s): its path is too long, or contains one of # ? %%", os.TempDir())
}

// addressable reports whether a socket at path can be dialed. An address is a short field of fixed size in the system call,
// although paths may be longer. The client parses the address as a URL, in which "#", "?" and "%" have a meaning, so it
// would dial another path again and again.
func addressable(path string) bool {
	return len(path) <= maxSocketPath && !strings.ContainsAny(path, "#?%")
}

func (s *socket) endpoint() string { return "unix://" + s.path }

// protect removes the access of other users to the socket, in case the mode of its directory is changed later.
func (s *socket) protect() error { return os.Chmod(s.path, 0o600) }

func (s *socket) remove() {
	_ = os.Remove(s.path)
	if s.temporary != "" {
		_ = os.Remove(s.temporary)
		_ = os.Remove(s.link)
	}
}

// privateDir creates dir with mode 0700, or sets that mode on an existing directory.
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
