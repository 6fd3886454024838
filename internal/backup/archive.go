package backup

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"
	"time"

	"lanyard.dev/internal/datadir"
	"lanyard.dev/internal/etcd/snapshot"
)

// The entries of an archive beside the files of datadir.Essentials.
const (
	manifestName = "manifest.json"
	snapshotName = "etcd.db"
	sumsName     = "SHA256SUMS"
)

// format is the version of the archive. A reader accepts this version and earlier ones.
const format = 1

// The largest sizes of entries. The limit of a snapshot is snapshot.MaxSize.
const (
	maxManifest = 64 << 10
	maxFile     = 1 << 20
	// maxPadding is the limit for what may follow the end of the archive: tar programs fill up their last block.
	maxPadding = 1 << 20
)

// ErrDamaged means that an archive is not complete or not as a backup is.
var ErrDamaged = errors.New("the backup is damaged or was cut off")

// ErrNewer means that an archive has a later format than this program knows.
var ErrNewer = errors.New("the backup was made by a newer version of lanyard")

// Manifest describes a backup.
type Manifest struct {
	Format  int       `json:"format"`
	Lanyard string    `json:"lanyard"` // version of the program that made the backup
	Created time.Time `json:"created"`
	Etcd    Etcd      `json:"etcd"`
	// CA is the SHA-256 of the certificate of the CA, in PEM. It identifies the authority.
	CA string `json:"caSHA256"`
}

// Etcd describes the store in a backup.
type Etcd struct {
	Version   string `json:"version"`
	ClusterID string `json:"clusterID"` // hexadecimal
	// Revision is the revision when the snapshot began. The snapshot may have a later one.
	Revision int64 `json:"revision"`
}

// archiveWriter writes an archive.
type archiveWriter struct {
	tar  *tar.Writer
	time time.Time
	sums strings.Builder
}

// newArchiveWriter begins an archive with the manifest.
func newArchiveWriter(w io.Writer, m Manifest) (*archiveWriter, error) {
	a := &archiveWriter{tar: tar.NewWriter(w), time: m.Created}
	data, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode the manifest: %w", err)
	}
	return a, a.addBytes(manifestName, append(data, '\n'))
}

func (a *archiveWriter) addBytes(name string, data []byte) error {
	return a.add(name, int64(len(data)), bytes.NewReader(data))
}

// add writes an entry of size bytes.
func (a *archiveWriter) add(name string, size int64, content io.Reader) error {
	header := &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o600, ModTime: a.time}
	if err := a.tar.WriteHeader(header); err != nil {
		return fmt.Errorf("write %s to the backup: %w", name, err)
	}
	sum := sha256.New()
	if _, err := io.Copy(io.MultiWriter(a.tar, sum), content); err != nil {
		return fmt.Errorf("write %s to the backup: %w", name, err)
	}
	a.sums.WriteString(sumLine(name, sum))
	return nil
}

// close writes the checksums and ends the archive.
func (a *archiveWriter) close() error {
	if err := a.addBytes(sumsName, []byte(a.sums.String())); err != nil {
		return err
	}
	return a.tar.Close()
}

func sumLine(name string, sum hash.Hash) string {
	return hex.EncodeToString(sum.Sum(nil)) + "  " + name + "\n"
}

// receiver takes the content of an archive. Nothing that it takes is trustworthy before readArchive has returned.
type receiver interface {
	file(datadir.File) error
	snapshot(io.Reader) error
}

// readArchive reads an archive of any content. It hands the entries to r, with names only of datadir.Essentials, none of them twice
// or larger than its limit. It returns an error unless the archive is complete and each checksum fits. Errors of r are returned as
// they are.
func readArchive(source io.Reader, r receiver) (Manifest, error) {
	a := &archiveReader{tar: tar.NewReader(source)}
	manifest, err := a.manifest()
	if err != nil {
		return Manifest{}, err
	}
	if err := a.content(r); err != nil {
		return Manifest{}, err
	}
	return manifest, a.end(source)
}

// archiveReader reads the entries of an archive in their order.
type archiveReader struct {
	tar  *tar.Reader
	sums strings.Builder
	sum  hash.Hash // of the entry that is being read
	name string
}

// damaged returns ErrDamaged with the reason. It keeps the cause of err, since the source may be the broken part.
func damaged(reason string, err error) error {
	if err == nil {
		return fmt.Errorf("%w: %s", ErrDamaged, reason)
	}
	return fmt.Errorf("%w: %s: %w", ErrDamaged, reason, err)
}

// next begins the next entry, which must be a plain file with a name that limit knows.
func (a *archiveReader) next(limit func(name string) int64) (name string, content io.Reader, err error) {
	a.finish()
	header, err := a.tar.Next()
	if err != nil {
		return "", nil, damaged("an entry is missing", err)
	}
	largest := limit(header.Name)
	switch {
	case header.Typeflag != tar.TypeReg || largest == 0 || isSparse(header):
		return "", nil, damaged(fmt.Sprintf("it has the unexpected entry %.80q", header.Name), nil)
	case header.Size < 0 || header.Size > largest:
		return "", nil, damaged(header.Name+" is too large", nil)
	}
	a.name, a.sum = header.Name, sha256.New()
	return header.Name, damageReader{io.TeeReader(a.tar, a.sum), header.Name}, nil
}

// isSparse reports whether the reader adds zeros to the entry that the archive does not hold.
func isSparse(header *tar.Header) bool {
	for key := range header.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return true
		}
	}
	return false
}

// damageReader marks errors of an entry's content as damage.
type damageReader struct {
	content io.Reader
	name    string
}

func (d damageReader) Read(p []byte) (int, error) {
	n, err := d.content.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = damaged("it ends in "+d.name, err)
	}
	return n, err
}

// finish adds the checksum of the last entry.
func (a *archiveReader) finish() {
	if a.sum != nil {
		a.sums.WriteString(sumLine(a.name, a.sum))
		a.sum = nil
	}
}

func only(wanted string, size int64) func(string) int64 {
	return func(name string) int64 {
		if name == wanted {
			return size
		}
		return 0
	}
}

func (a *archiveReader) manifest() (m Manifest, err error) {
	_, content, err := a.next(only(manifestName, maxManifest))
	if err != nil {
		return m, err
	}
	data, err := io.ReadAll(content)
	if err != nil {
		return m, err
	}
	// A later format may have other fields, so only these two are read first.
	var head struct {
		Format  int    `json:"format"`
		Lanyard string `json:"lanyard"`
	}
	if json.Unmarshal(data, &head) != nil || head.Format < 1 {
		return m, damaged("its manifest cannot be read", nil)
	}
	if head.Format > format {
		return m, fmt.Errorf("%w: %.40q, with format %d; this program knows format %d", ErrNewer, head.Lanyard, head.Format, format)
	}
	if json.Unmarshal(data, &m) != nil || m.Etcd.Revision < 0 {
		return m, damaged("its manifest cannot be read", nil)
	}
	return m, nil
}

// content reads the files and the snapshot.
func (a *archiveReader) content(r receiver) error {
	seen := map[string]bool{}
	limit := func(name string) int64 {
		switch {
		case name == snapshotName:
			return snapshot.MaxSize
		case datadir.IsEssential(name) && !seen[name]:
			return maxFile
		}
		return 0
	}
	for {
		name, content, err := a.next(limit)
		if err != nil {
			return err
		}
		if name == snapshotName {
			return r.snapshot(content)
		}
		seen[name] = true
		data, err := io.ReadAll(content)
		if err != nil {
			return err
		}
		if err := r.file(datadir.File{Name: name, Data: data}); err != nil {
			return err
		}
	}
}

// end compares the checksums, and reads source to its end, since the encryption recognizes a file that was cut off only there.
func (a *archiveReader) end(source io.Reader) error {
	_, content, err := a.next(only(sumsName, maxManifest))
	if err != nil {
		return err
	}
	want := a.sums.String()
	sums, err := io.ReadAll(content)
	if err != nil {
		return err
	}
	if string(sums) != want {
		return damaged("a checksum is wrong", nil)
	}
	if _, err := a.tar.Next(); !errors.Is(err, io.EOF) {
		return damaged("something follows the checksums", err)
	}
	n, err := io.Copy(io.Discard, io.LimitReader(source, maxPadding+1))
	if err != nil || n > maxPadding {
		return damaged("its end is wrong", err)
	}
	return nil
}
