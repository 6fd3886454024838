package backup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"k8s.io/utils/clock"

	"lanyard.dev/internal/bootstraptoken"
	"lanyard.dev/internal/datadir"
	"lanyard.dev/internal/etcd"
	"lanyard.dev/internal/etcd/snapshot"
	"lanyard.dev/internal/files"
)

const (
	// storeTimeout limits each call of the restored etcd.
	storeTimeout = time.Minute

	objectsPrefix = "/registry/"
	// bootstrapTokensPrefix is the beginning of the keys of bootstrap tokens, which are Secrets.
	bootstrapTokensPrefix = objectsPrefix + "secrets/" + bootstraptoken.Namespace + "/" + bootstraptoken.SecretPrefix
	// keyringsPrefix is the beginning of the keys of the objects with the signing keys that are kept in the store.
	keyringsPrefix = objectsPrefix + "internal.lanyard.dev/keyrings/"

	// minBump is more than the number of revisions that an authority makes while a backup is written.
	minBump = 1_000_000_000
)

// Options say what to restore.
type Options struct {
	// File is the backup, and Key opens it.
	File string
	Key  Key
	// DataDir is where the data directory is made. It must be absent or empty.
	DataDir string
	// AcceptEarlierTokens keeps the signing keys and the bootstrap tokens of the backup. Without it, new signing keys are made and
	// bootstrap tokens are removed, so that no token from before the restore is accepted.
	AcceptEarlierTokens bool
	// Clock is for the revision of the restored store.
	Clock clock.PassiveClock
}

// Restored is what a restore has done.
type Restored struct {
	Manifest Manifest
	DataDir  string // absolute
	Objects  int64  // number of objects in the store
	Revision int64  // of the store, after it was raised
	// BootstrapTokens is the number of bootstrap tokens that were removed.
	BootstrapTokens int64
}

// Restore makes a data directory from a backup. An error leaves no part of the directory behind.
func Restore(ctx context.Context, o Options) (done Restored, err error) {
	file, err := os.Open(o.File)
	if err != nil {
		return Restored{}, fmt.Errorf("open the backup: %w", err)
	}
	defer file.Close()
	target, err := datadir.Restore(o.DataDir)
	if err != nil {
		return Restored{}, err
	}
	r := restoration{options: o, target: target}
	if done, err = r.run(ctx, file); err == nil {
		err = target.Finish()
	}
	if err != nil {
		return Restored{}, errors.Join(err, target.Discard())
	}
	return done, nil
}

// contextReader ends with ctx.
type contextReader struct {
	ctx    context.Context
	source io.Reader
}

func (r contextReader) Read(p []byte) (int, error) {
	if err := context.Cause(r.ctx); err != nil {
		return 0, err
	}
	return r.source.Read(p)
}

// restoration takes the content of an archive into a directory.
type restoration struct {
	options Options
	target  *datadir.Restoration
}

// run makes the files, without giving them their names.
func (r *restoration) run(ctx context.Context, file io.Reader) (done Restored, err error) {
	content, err := decrypt(file, r.options.Key)
	if err != nil {
		return Restored{}, fmt.Errorf("open %s: %w", r.options.File, err)
	}
	done.DataDir = r.target.Path()
	if done.Manifest, err = readArchive(contextReader{ctx, content}, r); err != nil {
		return Restored{}, fmt.Errorf("read %s: %w", r.options.File, cmp.Or(context.Cause(ctx), err))
	}
	if err := r.restoreStore(ctx, &done); err != nil {
		return Restored{}, err
	}
	if !r.options.AcceptEarlierTokens {
		if err := r.target.ReplaceSigningKeys(); err != nil {
			return Restored{}, err
		}
	}
	return done, context.Cause(ctx)
}

func (r *restoration) file(f datadir.File) error { return r.target.Write(f) }

func (r *restoration) snapshot(content io.Reader) error {
	return files.WriteFrom(r.target.Temporary(), 0o600, func(w io.Writer) error {
		_, err := io.Copy(w, content)
		return err
	})
}

// restoreStore makes the directory of etcd and runs etcd on it, which shows that it works.
func (r *restoration) restoreStore(ctx context.Context, done *Restored) (err error) {
	if err := snapshot.Restore(r.target.Temporary(), r.target.EtcdDir(), r.bump(done.Manifest.Created)); err != nil {
		return fmt.Errorf("restore the store: %w", err)
	}
	member, err := etcd.Start(ctx, etcd.Config{Dir: r.target.EtcdDir()})
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
		defer cancel()
		err = errors.Join(err, member.Stop(ctx))
	}()
	client, err := member.Client()
	if err != nil {
		return err
	}
	defer client.Close()
	return r.adjust(ctx, client, done)
}

// bump returns what to add to the revision. It grows with the time since the backup, so that a second restore of one backup leads to
// a higher revision than clients have seen after the first: no authority makes a revision each microsecond.
func (r *restoration) bump(created time.Time) uint64 {
	return minBump + uint64(max(0, r.options.Clock.Since(created).Microseconds()))
}

// adjust removes from the store what must not be accepted, and counts.
func (r *restoration) adjust(ctx context.Context, client *clientv3.Client, done *Restored) error {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	if !r.options.AcceptEarlierTokens {
		deleted, err := client.Delete(ctx, bootstrapTokensPrefix, clientv3.WithPrefix())
		if err != nil {
			return fmt.Errorf("remove bootstrap tokens: %w", err)
		}
		done.BootstrapTokens = deleted.Deleted
		if _, err := client.Delete(ctx, keyringsPrefix, clientv3.WithPrefix()); err != nil {
			return fmt.Errorf("remove signing keys: %w", err)
		}
	}
	counted, err := client.Get(ctx, objectsPrefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil {
		return fmt.Errorf("count the restored objects: %w", err)
	}
	done.Objects, done.Revision = counted.Count, counted.Header.Revision
	return nil
}
