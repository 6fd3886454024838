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

// A bbolt file begins with two pages, each of which has a header of headerSize bytes and a meta record in the byte order of the
// machine. The offsets are relative to the record.
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

// meta is a meta record.
type meta struct {
	pageSize int64
	root     uint64
	pages    uint64 // number of pages in the file
	txid     uint64
}

// CheckDatabase returns an error if the structure of the database file at path is damaged. A snapshot is such a file.
func CheckDatabase(path string) error {
	_, err := checkDatabase(path)
	return err
}

// checkDatabase returns the index of the last entry of the write-ahead log that was applied to the database file, or
// errDamaged if the structure of the file is damaged. The index of an absent or empty file is 0.
//
// bbolt maps the file into memory, and etcd reads it in goroutines of its own. On a damaged page either of them would end
// this process with a stack trace.
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

// inspect is checkDatabase for an open file of this size.
func inspect(file io.ReaderAt, size int64) (index uint64, err error) {
	if size == 0 {
		return 0, nil
	}
	m, found := readMetas(file)
	if !found {
		return 0, fmt.Errorf("%w: it does not begin like a database", errDamaged)
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

// metaOffsets returns the offsets of both records. The page size in the first record gives the offset of the second one. If the
// first record is damaged, the page size of this machine is used.
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

// The header of a page has its id (8 bytes), flags (2), number of elements (2) and number of further pages that belong to it (4).
// Elements of elementSize bytes follow, and then the keys and values to which they point.
const (
	branchPage  = 0x01
	leafPage    = 0x02
	elementSize = 16

	// nestedBucket marks the element of a leaf whose value is a bucket: bucketSize bytes with the id of its root page and a
	// counter. If the id is 0, the page itself follows.
	nestedBucket = 0x01
	bucketSize   = 16

	// maxDepth is far more than the height of a tree of 2^40 pages.
	maxDepth = 64
)

// The buckets and the key of etcd that are read here.
const (
	keyBucket    = "key"
	metaBucket   = "meta"
	indexKey     = "consistent_index"
	revisionSize = 17 // two numbers with a "_" between them; a "t" follows for a deletion
)

// structure walks the trees of a database file. It reads the pages of the trees, but not the values, because the file has no
// checksums of them.
type structure struct {
	file io.ReaderAt
	meta meta
	seen []uint64 // one bit for each page

	index uint64
}

// readStructure returns the index of the last entry that was applied to the database, or errDamaged if a page has an
// unexpected content. The file must hold as many pages as m states.
func readStructure(file io.ReaderAt, m meta) (uint64, error) {
	s := &structure{file: file, meta: m, seen: make([]uint64, m.pages/64+1)}
	if err := s.page(m.root, "", maxDepth); err != nil {
		return 0, err
	}
	return s.index, nil
}

// page checks a page and all pages below it. bucket is the name of the outermost bucket that it belongs to, or empty.
func (s *structure) page(id uint64, bucket string, depth int) error {
	if id < 2 || id >= s.meta.pages || depth == 0 || s.seen[id/64]>>(id%64)&1 == 1 {
		return fmt.Errorf("%w: a page refers to page %d", errDamaged, id)
	}
	s.seen[id/64] |= 1 << (id % 64)
	head := make([]byte, s.meta.pageSize)
	if err := s.read(head, int64(id)*s.meta.pageSize); err != nil {
		return err
	}
	overflow := uint64(binary.NativeEndian.Uint32(head[12:]))
	if binary.NativeEndian.Uint64(head) != id || id+overflow >= s.meta.pages {
		return fmt.Errorf("%w: page %d does not match its header", errDamaged, id)
	}
	p := region{file: s.file, at: int64(id) * s.meta.pageSize, size: (1 + int64(overflow)) * s.meta.pageSize, head: head}
	if err := s.elements(p, bucket, depth); err != nil {
		return fmt.Errorf("page %d: %w", id, err)
	}
	return nil
}

// elements checks the elements of a page.
func (s *structure) elements(p region, bucket string, depth int) error {
	header, err := p.bytes(0, headerSize)
	if err != nil {
		return err
	}
	flags, count := binary.NativeEndian.Uint16(header[8:]), int64(binary.NativeEndian.Uint16(header[10:]))
	table, err := p.bytes(headerSize, count*elementSize)
	if err != nil {
		return err
	}
	var last []byte
	for i := range count {
		element, at := table[i*elementSize:], headerSize+i*elementSize
		number := func(n int64) int64 { return int64(binary.NativeEndian.Uint32(element[4*n:])) }
		var key []byte
		switch flags {
		case branchPage:
			if key, err = p.bytes(at+number(0), number(1)); err == nil {
				err = s.page(binary.NativeEndian.Uint64(element[8:]), bucket, depth-1)
			}
		case leafPage:
			if key, err = p.bytes(at+number(1), number(2)); err == nil {
				err = s.leaf(p, number(0), key, at+number(1)+number(2), number(3), bucket, depth)
			}
		default:
			err = fmt.Errorf("%w: unknown kind %#x", errDamaged, flags)
		}
		if err != nil {
			return err
		}
		if i > 0 && string(key) <= string(last) {
			return fmt.Errorf("%w: keys out of order", errDamaged)
		}
		last = key
	}
	return nil
}

// leaf checks a key and its value, which is at an offset in p.
func (s *structure) leaf(p region, flags int64, key []byte, at, size int64, bucket string, depth int) error {
	switch {
	case flags == nestedBucket:
		head, err := p.bytes(at, bucketSize)
		if err != nil {
			return err
		}
		if bucket == "" {
			bucket = string(key)
		}
		if root := binary.NativeEndian.Uint64(head); root != 0 {
			return s.page(root, bucket, depth-1)
		}
		inline, err := p.part(at+bucketSize, size-bucketSize)
		if err != nil {
			return err
		}
		return s.elements(inline, bucket, depth-1)
	case flags != 0:
		return fmt.Errorf("%w: unknown element %#x", errDamaged, flags)
	case bucket == keyBucket && (len(key) != revisionSize && len(key) != revisionSize+1 || key[8] != '_'):
		return fmt.Errorf("%w: a key is not a revision", errDamaged)
	case bucket == metaBucket && string(key) == indexKey:
		value, err := p.bytes(at, size)
		if err != nil || len(value) != 8 {
			return fmt.Errorf("%w: the applied index cannot be read", errDamaged)
		}
		s.index = binary.BigEndian.Uint64(value)
		return nil
	}
	return p.within(at, size)
}

// region is a page with the further pages that belong to it.
type region struct {
	file     io.ReaderAt
	at, size int64
	head     []byte // the first bytes, already read
}

// within returns errDamaged unless size bytes at offset are in the region.
func (r region) within(offset, size int64) error {
	if offset < 0 || size < 0 || offset > r.size || size > r.size-offset {
		return fmt.Errorf("%w: it refers to data beyond its end", errDamaged)
	}
	return nil
}

// bytes returns size bytes at offset. It reads only what is not in head.
func (r region) bytes(offset, size int64) ([]byte, error) {
	if err := r.within(offset, size); err != nil {
		return nil, err
	}
	if offset+size <= int64(len(r.head)) {
		return r.head[offset : offset+size], nil
	}
	text := make([]byte, size)
	_, err := r.file.ReadAt(text, r.at+offset)
	return text, err
}

// part returns a region within this one.
func (r region) part(offset, size int64) (region, error) {
	if err := r.within(offset, size); err != nil {
		return region{}, err
	}
	inner := region{file: r.file, at: r.at + offset, size: size}
	if offset < int64(len(r.head)) {
		inner.head = r.head[offset:min(offset+size, int64(len(r.head)))]
	}
	return inner, nil
}

// read fills p. If the file ends before, it is damaged.
func (s *structure) read(p []byte, at int64) error {
	_, err := s.file.ReadAt(p, at)
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: the file ends too soon", errDamaged)
	}
	return err
}
