package backup

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"filippo.io/age"
	clientv3 "go.etcd.io/etcd/client/v3"

	"lanyard.dev/internal/datadir"
	"lanyard.dev/internal/etcd"
	"lanyard.dev/internal/etcd/snapshot"
	"lanyard.dev/internal/files"
	"lanyard.dev/internal/hint"
	"lanyard.dev/internal/version"
)

// stopTimeout limits how long the etcd of a directory on which no authority runs may take to stop.
const stopTimeout = 10 * time.Second

// Write writes a backup of the data directory dir to path, encrypted to recipients, with mode 0600. path must be absent, and gets
// its name once the backup is complete. If an authority runs on dir, its etcd sends the snapshot, and the authority is not
// disturbed. Otherwise Write locks the directory and starts its etcd for that.
func Write(ctx context.Context, dir, path string, recipients []age.Recipient) (Manifest, error) {
	if _, err := os.Lstat(path); err == nil {
		return Manifest{}, files.Unusable(path, "exists already", nil, "choose another name, or move that file away")
	}
	source, err := openSource(ctx, dir)
	if err != nil {
		return Manifest{}, err
	}
	var manifest Manifest
	err = files.WriteFrom(path, 0o600, func(w io.Writer) error {
		encrypted, err := age.Encrypt(w, recipients...)
		if err != nil {
			return fmt.Errorf("encrypt: %w", err)
		}
		if manifest, err = source.write(ctx, encrypted); err != nil {
			return err
		}
		return encrypted.Close()
	})
	if err := errors.Join(err, source.close()); err != nil {
		return Manifest{}, err
	}
	return manifest, nil
}

// source is a data directory that is being backed up.
type source struct {
	path   string
	client *clientv3.Client
	// dir and member are nil if an authority runs on the directory.
	dir    *datadir.Dir
	member *etcd.Server
}

func openSource(ctx context.Context, path string) (*source, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("find the data directory: %w", err)
	}
	s := &source{path: path}
	s.dir, err = datadir.OpenExisting(path)
	switch {
	case errors.Is(err, datadir.ErrInUse):
		if s.client, err = etcd.Connect(filepath.Join(path, "etcd")); err != nil {
			return nil, hint.New(fmt.Errorf("%s is in use, but its etcd cannot be reached: %w", path, err), "if its authority is starting or ending, try again in a moment")
		}
		return s, nil
	case err != nil:
		return nil, err
	case s.dir == nil:
		return nil, files.Unusable(path, "is not the data directory of an authority", nil,
			"name it with --data-dir; lanyard serve has its data in an etcd of your own, which etcdctl backs up")
	}
	if err := s.startMember(ctx); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *source) startMember(ctx context.Context) (err error) {
	if err := s.dir.CheckData(); err != nil {
		return err
	}
	if s.member, err = etcd.Start(ctx, etcd.Config{Dir: s.dir.EtcdDir()}); err != nil {
		return err
	}
	s.client, err = s.member.Client()
	return err
}

func (s *source) close() error {
	var errs []error
	if s.client != nil {
		errs = append(errs, s.client.Close())
	}
	if s.member != nil {
		ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
		defer cancel()
		errs = append(errs, s.member.Stop(ctx))
	}
	if s.dir != nil {
		errs = append(errs, s.dir.Close())
	}
	return errors.Join(errs...)
}

var errChanged = errors.New("the files of the data directory changed while they were backed up: try again")

// write writes the archive. The files are read before and after the snapshot, because a key that is replaced in between would not
// fit the snapshot.
func (s *source) write(ctx context.Context, w io.Writer) (Manifest, error) {
	essentials, err := datadir.Essentials(s.path)
	if err != nil {
		return Manifest{}, err
	}
	stream, err := snapshot.Open(ctx, s.client)
	if err != nil {
		return Manifest{}, err
	}
	defer stream.Close()
	manifest := Manifest{
		Format: format, Lanyard: version.Current().Lanyard, Created: time.Now().UTC().Truncate(time.Second),
		Etcd: Etcd{Version: stream.Version, ClusterID: fmt.Sprintf("%x", stream.ClusterID), Revision: stream.Revision},
		CA:   fingerprint(essentials),
	}
	archive, err := newArchiveWriter(w, manifest)
	if err != nil {
		return Manifest{}, err
	}
	for _, f := range essentials {
		if err := archive.addBytes(f.Name, f.Data); err != nil {
			return Manifest{}, err
		}
	}
	if err := archive.add(snapshotName, stream.Size, stream); err != nil {
		return Manifest{}, err
	}
	if err := s.unchanged(essentials); err != nil {
		return Manifest{}, err
	}
	return manifest, archive.close()
}

func (s *source) unchanged(before []datadir.File) error {
	after, err := datadir.Essentials(s.path)
	if err != nil {
		return err
	}
	if !slices.EqualFunc(before, after, func(a, b datadir.File) bool { return a.Name == b.Name && bytes.Equal(a.Data, b.Data) }) {
		return errChanged
	}
	return nil
}

// fingerprint returns the SHA-256 of the CA's certificate.
func fingerprint(essentials []datadir.File) string {
	for _, f := range essentials {
		if f.Name == datadir.CACertName {
			sum := sha256.Sum256(f.Data)
			return hex.EncodeToString(sum[:])
		}
	}
	return ""
}
