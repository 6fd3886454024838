package etcd

import (
	"errors"
	"io"
	"net/url"
	"path/filepath"
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
