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
	highWaterAt  = 40
	txidAt       = 48
	checksumAt   = 56
	maxPageBytes = 64 << 10
)

// checkDatabase reports a database file that ends before its own last page.
// bbolt maps the file into memory and would end this process with a bus error
// on touching what is not there. Every other kind of damage is bbolt's to
// find, so a file this function cannot make sense of passes.
func checkDatabase(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if need := databaseSize(f); info.Size() < need {
		return fmt.Errorf("%w: %s holds %d bytes of at least %d", errGaveUp, path, info.Size(), need)
	}
	return nil
}

// databaseSize is what the newest valid meta record says the file must hold,
// or 0 if there is none.
func databaseSize(file io.ReaderAt) int64 {
	var size int64
	var newest uint64
	for _, at := range metaOffsets(file) {
		record, ok := readMeta(file, at)
		if !ok {
			continue
		}
		if txid := binary.NativeEndian.Uint64(record[txidAt:]); size == 0 || txid > newest {
			newest = txid
			pages := binary.NativeEndian.Uint64(record[highWaterAt:])
			size = int64(pages) * int64(binary.NativeEndian.Uint32(record[pageSizeAt:]))
		}
	}
	return size
}

// metaOffsets finds the second record by the page size in the first, or,
// when that one is damaged, by the page size of this machine.
func metaOffsets(file io.ReaderAt) []int64 {
	pageSize := int64(os.Getpagesize())
	if first, ok := readMeta(file, headerSize); ok {
		pageSize = int64(binary.NativeEndian.Uint32(first[pageSizeAt:]))
	}
	return []int64{headerSize, pageSize + headerSize}
}

func readMeta(file io.ReaderAt, at int64) ([]byte, bool) {
	record := make([]byte, metaSize)
	if _, err := file.ReadAt(record, at); err != nil {
		return nil, false
	}
	sum := fnv.New64a()
	_, _ = sum.Write(record[:checksumAt])
	valid := binary.NativeEndian.Uint32(record) == metaMagic &&
		binary.NativeEndian.Uint64(record[checksumAt:]) == sum.Sum64() &&
		binary.NativeEndian.Uint32(record[pageSizeAt:]) <= maxPageBytes
	return record, valid
}
