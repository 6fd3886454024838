package datadir

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"lanyard.dev/internal/files"
)

// Running is an instance that is up on this machine, for this user.
type Running struct {
	DataDir string `json:"dataDir"`
	PID     int    `json:"pid"`
	URL     string `json:"url"`
}

// Kubeconfig is the administrator's kubeconfig of the instance.
func (r Running) Kubeconfig() string { return filepath.Join(r.DataDir, kubeconfigName) }

const (
	recordSuffix     = ".json"
	recordLockSuffix = ".lock"

	// maxRecord bounds what is read of a record.
	maxRecord = 64 << 10
)

// record is what one instance publishes: NAME.json, which is true for as long
// as someone holds the lock on NAME.lock. They are two files because on some
// systems a locked file cannot be read by others.
type record struct {
	base string
	lock *files.Lock
}

// Announce publishes that this instance is ready at url, for Find and for
// the message of a second Open. It may be called again when url changes. An
// error means only that other commands do not find this instance by
// themselves.
func (d *Dir) Announce(url string) error {
	if err := d.writeOwner(url); err != nil {
		return err
	}
	if d.record == nil {
		opened, err := openRecord(runtimeDir(), d.path)
		if err != nil {
			return err
		}
		d.record = opened
	}
	return d.record.write(Running{DataDir: d.path, PID: os.Getpid(), URL: url})
}

func openRecord(dir, dataDir string) (*record, error) {
	if err := createRuntimeDir(dir); err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte(dataDir))
	base := filepath.Join(dir, hex.EncodeToString(sum[:8]))
	// Someone who looks for stale records holds the lock for an instant, and
	// may remove the file between its opening and its locking here.
	for range 100 {
		lock, err := files.TryLock(base + recordLockSuffix)
		if err == nil && lock.InPlace() {
			return &record{base: base, lock: lock}, nil
		}
		if err == nil {
			_ = lock.Release()
		} else if !errors.Is(err, files.ErrLocked) {
			return nil, unwritable(base+recordLockSuffix, err)
		}
	}
	return nil, files.Unusable(base+recordLockSuffix, "is locked by another process", nil,
		"stop that process, or set "+runtimeDirEnv)
}

func (r *record) write(running Running) error {
	data, err := json.Marshal(running)
	if err != nil {
		return fmt.Errorf("encode the record of %s: %w", running.DataDir, err)
	}
	if err := files.Write(r.base+recordSuffix, append(data, '\n'), 0o600); err != nil {
		return unwritable(r.base+recordSuffix, err)
	}
	return nil
}

// withdraw removes both files while the lock is held, so that no other
// instance can have put its own there.
func (r *record) withdraw() error {
	_ = os.Remove(r.base + recordSuffix)
	_ = os.Remove(r.base + recordLockSuffix)
	return r.lock.Release()
}

// FindRunning returns the instances of this user that are up on this machine,
// in no particular order, and clears away the records of those that were
// killed. No instance is no error.
func FindRunning() ([]Running, error) {
	dir := runtimeDir()
	if ok, err := trusted(dir); err != nil || !ok {
		return nil, err
	}
	names, err := filepath.Glob(filepath.Join(escape(dir), "*"+recordSuffix))
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", dir, err)
	}
	var found []Running
	for _, name := range names {
		if running, ok := readRecord(strings.TrimSuffix(name, recordSuffix)); ok {
			found = append(found, running)
		}
	}
	return found, nil
}

// escape makes dir match itself in a pattern.
func escape(dir string) string {
	return strings.NewReplacer(`*`, `[*]`, `?`, `[?]`, `[`, `[[]`).Replace(dir)
}

// readRecord reads a record that is true, and removes one that no longer is.
func readRecord(base string) (Running, bool) {
	lock, err := files.TryLock(base + recordLockSuffix)
	if err == nil {
		_ = (&record{base: base, lock: lock}).withdraw()
		return Running{}, false
	}
	if !errors.Is(err, files.ErrLocked) {
		return Running{}, false
	}
	return parseRecordFile(base + recordSuffix)
}

func parseRecordFile(path string) (Running, bool) {
	data, err := files.Read(path, maxRecord)
	if err != nil {
		return Running{}, false
	}
	var running Running
	if json.Unmarshal(data, &running) != nil || !filepath.IsAbs(running.DataDir) {
		return Running{}, false
	}
	return running, true
}
