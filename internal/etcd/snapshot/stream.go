package snapshot

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	// MaxSize is the largest size of a snapshot. The quota of a database is half of it.
	MaxSize = 16 << 30

	// statusTimeout limits how long a member may take to describe itself, and stallTimeout how long it may take for the next
	// part of a snapshot.
	statusTimeout = 10 * time.Second
	stallTimeout  = 30 * time.Second
)

var (
	errStatus = errors.New("etcd did not answer in time")
	errStall  = fmt.Errorf("etcd sent nothing for %v", stallTimeout)
	errSum    = errors.New("the snapshot does not match the checksum that etcd sent")
	errSize   = errors.New("etcd announced a snapshot of an impossible size")
)

// Stream reads a snapshot from a member: its database, and the SHA-256 of the database in the last 32 bytes. It keeps no more
// than one message in memory.
type Stream struct {
	// Size is the number of bytes that Read will return.
	Size int64
	// Revision is the revision of the member a moment before the snapshot. The snapshot may have a later one.
	Revision int64
	// ClusterID identifies the cluster of the member, and Version is the version of its etcd.
	ClusterID uint64
	Version   string

	remote   pb.Maintenance_SnapshotClient
	cancel   context.CancelCauseFunc
	stall    *time.Timer
	buffered []byte
	left     int64 // of Size
	sum      hash.Hash
	trailer  []byte
}

// Open begins a snapshot of the member that client is connected to. The caller closes it.
func Open(ctx context.Context, client *clientv3.Client) (*Stream, error) {
	status, err := describe(ctx, client)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	s := &Stream{
		Revision: status.Header.GetRevision(), ClusterID: status.Header.GetClusterId(), Version: status.Version,
		cancel: cancel, sum: sha256.New(),
	}
	s.stall = time.AfterFunc(stallTimeout, func() { cancel(errStall) })
	if err := s.begin(ctx, client); err != nil {
		s.Close()
		return nil, fmt.Errorf("take a snapshot: %w", err)
	}
	return s, nil
}

func describe(ctx context.Context, client *clientv3.Client) (*clientv3.StatusResponse, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, statusTimeout, errStatus)
	defer cancel()
	status, err := client.Status(ctx, client.Endpoints()[0])
	if err != nil {
		return nil, fmt.Errorf("connect to etcd: %w", causeOr(ctx, err))
	}
	return status, nil
}

// causeOr returns why ctx has ended, or err if it has not.
func causeOr(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// begin asks for the snapshot and reads its first part, which has the number of bytes that follow. The client's own call does not
// return that number.
func (s *Stream) begin(ctx context.Context, client *clientv3.Client) (err error) {
	s.remote, err = pb.NewMaintenanceClient(client.ActiveConnection()).Snapshot(ctx, &pb.SnapshotRequest{})
	if err != nil {
		return causeOr(ctx, err)
	}
	first, err := s.receive()
	if err != nil {
		return err
	}
	s.buffered = first.GetBlob()
	s.Size = int64(len(s.buffered)) + int64(min(first.GetRemainingBytes(), MaxSize)) + sha256.Size
	if s.left = s.Size; s.Size > MaxSize {
		return errSize
	}
	return nil
}

func (s *Stream) receive() (*pb.SnapshotResponse, error) {
	s.stall.Reset(stallTimeout)
	defer s.stall.Stop()
	answer, err := s.remote.Recv()
	if err != nil && !errors.Is(err, io.EOF) {
		err = causeOr(s.remote.Context(), err)
	}
	return answer, err
}

// Read returns io.EOF once all of Size bytes were read and the checksum fits.
func (s *Stream) Read(p []byte) (int, error) {
	for len(s.buffered) == 0 {
		answer, err := s.receive()
		switch {
		case errors.Is(err, io.EOF):
			return 0, s.finish()
		case err != nil:
			return 0, fmt.Errorf("take a snapshot: %w", err)
		}
		s.buffered = answer.GetBlob()
	}
	n := copy(p, s.buffered)
	s.buffered = s.buffered[n:]
	if s.left -= int64(n); s.left < 0 {
		return 0, fmt.Errorf("take a snapshot: %w", errSize)
	}
	s.add(p[:n])
	return n, nil
}

// add hashes all but the last bytes of the snapshot.
func (s *Stream) add(p []byte) {
	database := max(0, int64(len(p))-max(0, sha256.Size-s.left))
	s.sum.Write(p[:database])
	s.trailer = append(s.trailer, p[database:]...)
}

func (s *Stream) finish() error {
	switch {
	case s.left > 0:
		return fmt.Errorf("take a snapshot: %w", io.ErrUnexpectedEOF)
	case !bytes.Equal(s.trailer, s.sum.Sum(nil)):
		return fmt.Errorf("take a snapshot: %w", errSum)
	}
	return io.EOF
}

// Close ends the snapshot.
func (s *Stream) Close() {
	s.stall.Stop()
	s.cancel(context.Canceled)
}
