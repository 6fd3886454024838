package etcd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"os"
)

// The start of a bbolt file: two pages, each with a header of headerSize
// bytes and a meta record, in the byte order of the machine. Offsets are
// within the record.
const (
	headerSize   = 16
	metaSize     = 64
	metaMagic    = 0xED0CDAED
	pageSizeAt   = 8
	rootAt       = 16
	highWaterAt  = 40
	txidAt       = 48
	checksumAt   = 56
	minPageBytes = 1 << 10
	maxPageBytes = 64 << 10
)

// meta is what a meta record says.
type meta struct {
	pageSize int64
	root     uint64
	pages    uint64 // the file holds this many
	txid     uint64
}

// checkDatabase returns the index of the last entry of the write-ahead log
// that the database file holds, and errDamaged if the structure of the file
// is damaged. An absent or empty file holds none.
//
// bbolt maps the file into memory, and etcd reads it in goroutines of its
// own. On a damaged page either would end this process with a stack trace for
// a message.
func checkDatabase(path string) (index uint64, err error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if index, err = inspect(f, info.Size()); err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	return index, nil
}

func inspect(file io.ReaderAt, size int64) (index uint64, err error) {
	if size == 0 {
		return 0, nil
	}
	m, found := readMetas(file)
	if !found {
		return 0, fmt.Errorf("%w: it does not begin as a database does", errDamaged)
	}
	if need := int64(m.pages) * m.pageSize; size < need {
		return 0, fmt.Errorf("%w: it holds %d bytes of at least %d", errDamaged, size, need)
	}
	return readStructure(file, m)
}

// readMetas returns the newest valid meta record.
func readMetas(file io.ReaderAt) (newest meta, found bool) {
	for _, at := range metaOffsets(file) {
		if m, ok := readMeta(file, at); ok && (!found || m.txid > newest.txid) {
			newest, found = m, true
		}
	}
	return newest, found
}

// metaOffsets finds the second record by the page size in the first, or,
// when that one is damaged, by the page size of this machine.
func metaOffsets(file io.ReaderAt) []int64 {
	pageSize := int64(os.Getpagesize())
	if first, ok := readMeta(file, headerSize); ok {
		pageSize = first.pageSize
	}
	return []int64{headerSize, pageSize + headerSize}
}

func readMeta(file io.ReaderAt, at int64) (meta, bool) {
	record := make([]byte, metaSize)
	if _, err := file.ReadAt(record, at); err != nil {
		return meta{}, false
	}
	m := meta{
		pageSize: int64(binary.NativeEndian.Uint32(record[pageSizeAt:])), root: binary.NativeEndian.Uint64(record[rootAt:]),
		pages: binary.NativeEndian.Uint64(record[highWaterAt:]), txid: binary.NativeEndian.Uint64(record[txidAt:]),
	}
	sum := fnv.New64a()
	_, _ = sum.Write(record[:checksumAt])
	valid := binary.NativeEndian.Uint32(record) == metaMagic &&
		binary.NativeEndian.Uint64(record[checksumAt:]) == sum.Sum64() &&
		m.pageSize >= minPageBytes && m.pageSize <= maxPageBytes && m.pages < 1<<40
	return m, valid
}
