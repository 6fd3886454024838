package datadir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"lanyard.dev/internal/files"
	"lanyard.dev/internal/hint"
	"lanyard.dev/internal/signingkey"
)

// File is a file of a data directory.
type File struct {
	Name string
	Data []byte
}

// required are the files that a new machine needs beside the data of etcd. It also needs those of furtherKeys that exist. All other
// files can be created again from these.
var required = []string{CACertName, caKeyName, nodesCACertName, nodesCAKeyName, signingKeyName, encryptionName}

// furtherKeys returns the names of the files of Dir.SigningKeyFor.
func furtherKeys() []string {
	var names []string
	for _, alg := range signingkey.Algorithms() {
		names = append(names, furtherKeyName(alg))
	}
	return names
}

func essentials() []string { return append(slices.Clone(required), furtherKeys()...) }

// IsEssential reports whether Essentials may return a file of this name.
func IsEssential(name string) bool { return slices.Contains(essentials(), name) }

// Essentials returns the files of the data directory at path that a new machine needs beside the data of etcd, in a fixed order.
// An authority may run on the directory. If one of the files is absent that every directory has, the error is a *hint.Error.
func Essentials(path string) ([]File, error) {
	var found []File
	for _, name := range essentials() {
		data, err := readFile(filepath.Join(path, name))
		switch {
		case err != nil:
			return nil, err
		case data == nil && !slices.Contains(required, name):
			continue
		case data == nil:
			return nil, files.Unusable(filepath.Join(path, name), "is missing", nil, "start the authority once, which creates what is missing or says why it cannot")
		}
		found = append(found, File{name, data})
	}
	return found, nil
}

// restoring is the directory in a new data directory that has the files until all of them are complete.
const restoring = ".restore"

// Restoration is a data directory that is being made from a backup. Until Finish, everything is in a directory inside it, so that
// no authority starts on a part of a backup: an authority refuses a directory that has files and no lock file.
type Restoration struct {
	path    string
	created bool     // whether the directory did not exist
	moved   []string // by Finish
}

// Restore begins to make a data directory at path, which must be absent or empty. It returns a *hint.Error otherwise, and if another
// restore has begun there. The caller calls Finish or Discard.
func Restore(path string) (*Restoration, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("find the data directory: %w", err)
	}
	present, err := exists(path)
	if err != nil {
		return nil, unreadable(path, err)
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, createError(path, err)
	}
	r := &Restoration{path: path, created: !present}
	if err := r.begin(); err != nil {
		if r.created {
			_ = os.Remove(path)
		}
		return nil, err
	}
	return r, nil
}

func (r *Restoration) begin() error {
	if err := checkOwner(r.path); err != nil {
		return err
	}
	entries, err := os.ReadDir(r.path)
	if err != nil {
		return unreadable(r.path, err)
	}
	if present, err := exists(filepath.Join(r.path, lockName)); err != nil || present {
		return files.Unusable(r.path, "is a data directory already", err,
			"restore into a new directory with --data-dir, or stop its authority and move it away first")
	}
	for _, entry := range entries {
		switch entry.Name() {
		case lostAndFound:
		case restoring:
			return files.Unusable(r.path, "has the files of another restore, which runs or was interrupted", nil,
				"if none runs, remove "+r.join()+" and try again")
		default:
			return files.Unusable(r.path, "is not empty: it holds "+entry.Name(), nil,
				"restore into a new directory with --data-dir, or move it away first")
		}
	}
	if err := os.Chmod(r.path, 0o700); err != nil {
		return unwritable(r.path, err)
	}
	if err := os.Mkdir(r.join(), 0o700); err != nil {
		return unwritable(r.path, err)
	}
	return nil
}

func (r *Restoration) join(name ...string) string {
	return filepath.Join(append([]string{r.path, restoring}, name...)...)
}

// Path is the absolute path of the data directory.
func (r *Restoration) Path() string { return r.path }

// EtcdDir is where the caller makes the directory of the etcd member.
func (r *Restoration) EtcdDir() string { return r.join(etcdName) }

// Temporary is the path of a file that Finish does not keep.
func (r *Restoration) Temporary() string { return r.join(temporaryName) }

const temporaryName = "temporary"

// Write writes one of the files of Essentials. It checks the content of those that an authority would refuse.
func (r *Restoration) Write(f File) error {
	problem := ""
	switch {
	case f.Name == signingKeyName || slices.Contains(furtherKeys(), f.Name):
		problem = checkSigningKey(f.Data)
	case f.Name == encryptionName:
		problem = checkEncryptionConfig(f.Data)
	}
	if problem != "" {
		return hint.New(fmt.Errorf("%s in the backup %s", f.Name, problem), "use another backup")
	}
	if !IsEssential(f.Name) {
		return fmt.Errorf("a data directory has no file %q", f.Name)
	}
	if err := files.Write(r.join(f.Name), f.Data, 0o600); err != nil {
		return unwritable(r.join(f.Name), err)
	}
	return nil
}

// ReplaceSigningKeys replaces the key that signs tokens by a new one of the same algorithm, and removes those for other algorithms,
// which the next start creates again. So no token of the old keys is accepted.
func (r *Restoration) ReplaceSigningKeys() error {
	for _, name := range furtherKeys() {
		if err := os.Remove(r.join(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return unwritable(r.join(name), err)
		}
	}
	old, err := signingkey.LoadPrivate(r.join(signingKeyName))
	if err != nil {
		return err
	}
	key, err := signingkey.Generate(old.Algorithm())
	if err != nil {
		return err
	}
	data, err := key.MarshalPEM()
	if err != nil {
		return err
	}
	return r.Write(File{signingKeyName, data})
}

// Finish gives the files their names. The lock file comes last: it makes the directory a data directory. After an error, the
// caller calls Discard.
func (r *Restoration) Finish() error {
	for _, name := range required {
		if _, err := os.Lstat(r.join(name)); err != nil {
			return hint.New(fmt.Errorf("the backup has no %s", name), "use another backup")
		}
	}
	for name, text := range map[string]string{dataMark: dataMarkText, lockName: ""} {
		if err := files.Write(r.join(name), []byte(text), 0o600); err != nil {
			return unwritable(r.join(name), err)
		}
	}
	if err := os.Remove(r.Temporary()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return unwritable(r.path, err)
	}
	for _, name := range append(essentials(), etcdName, dataMark, lockName) {
		err := os.Rename(r.join(name), filepath.Join(r.path, name))
		if errors.Is(err, fs.ErrNotExist) && !slices.Contains(required, name) && IsEssential(name) {
			continue
		}
		if err != nil {
			return unwritable(r.path, err)
		}
		r.moved = append(r.moved, name)
	}
	if err := os.Remove(r.join()); err != nil {
		return unwritable(r.path, err)
	}
	return files.SyncDir(r.path)
}

// Discard removes everything that was made.
func (r *Restoration) Discard() error {
	errs := []error{os.RemoveAll(r.join())}
	for _, name := range slices.Backward(r.moved) {
		errs = append(errs, os.RemoveAll(filepath.Join(r.path, name)))
	}
	if r.created {
		errs = append(errs, os.Remove(r.path))
	}
	return errors.Join(errs...)
}
