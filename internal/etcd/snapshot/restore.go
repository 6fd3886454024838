package snapshot

import (
	"errors"
	"fmt"
	"runtime/debug"

	"go.etcd.io/etcd/etcdutl/v3/snapshot"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"lanyard.dev/internal/etcd"
)

var errUnreadable = errors.New("it cannot be read as a snapshot of etcd")

// Restore makes the directory dir of a member, which must be absent, from the snapshot in file. bump is added to the revision, so
// that it is higher than any that clients have seen, and earlier revisions count as compacted, so that watches of clients end and
// the clients list again.
//
// The file may have any content: its structure is checked first, because etcd would end this process on damage.
func Restore(file, dir string, bump uint64) (err error) {
	if err := etcd.CheckDatabase(file); err != nil {
		return err
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("%w: %v", errUnreadable, cause)
		}
	}()
	log := zap.New(zapcore.NewNopCore(), zap.WithFatalHook(zapcore.WriteThenPanic))
	err = snapshot.NewV3(log).Restore(snapshot.RestoreConfig{
		SnapshotPath: file, OutputDataDir: dir,
		Name: etcd.MemberName, PeerURLs: []string{etcd.PeerURL}, InitialCluster: etcd.MemberName + "=" + etcd.PeerURL,
		RevisionBump: bump, MarkCompacted: true,
	})
	if err != nil {
		return fmt.Errorf("%w: %w", errUnreadable, err)
	}
	return nil
}
