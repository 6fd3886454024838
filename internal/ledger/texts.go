package ledger

import (
	"encoding/binary"
	"hash/maphash"
)

// texts holds each string once, as long as it has references. Strings of up to maxShort bytes are in cells of a few sizes
// without pointers, and the few longer ones are ordinary strings.
//
// A handle is the class of the string in its upper bits, and the number of the cell in the class. Class 0 has the long
// strings; a cell of class c has 8*c bytes: the number of references, the length, and the bytes. The empty string is 0.
type texts struct {
	seed    maphash.Seed
	byHash  multimap
	classes [classes]cells
	long    slab[longText]
}

type longText struct {
	text       string
	references uint32
}

const (
	classes    = 33
	cellBits   = 26
	cellHeader = 5
	maxShort   = 8*(classes-1) - cellHeader
)

// cells are the cells of one size.
type cells struct {
	chunks [][]byte // of chunkSize cells each
	free   []uint32
	next   uint32
}

func newTexts() texts { return texts{seed: maphash.MakeSeed()} }

func (t *texts) hash(text []byte) uint32 { return uint32(maphash.Bytes(t.seed, text)) }

// intern returns the handle of a string, and adds a reference.
func (t *texts) intern(text []byte) uint32 {
	if len(text) == 0 {
		return 0
	}
	hash := t.hash(text)
	handle := t.find(hash, text)
	if handle == 0 {
		handle = t.add(text)
		t.byHash.add(hash, handle)
	}
	if handle>>cellBits == 0 {
		t.long.at(handle).references++
	} else {
		cell := t.cell(handle)
		binary.LittleEndian.PutUint32(cell, binary.LittleEndian.Uint32(cell)+1)
	}
	return handle
}

// lookup returns the handle of a string without adding a reference. It returns false if there is no such string.
func (t *texts) lookup(text string) (handle uint32, ok bool) {
	if text == "" {
		return 0, true
	}
	handle = t.find(t.hash([]byte(text)), []byte(text))
	return handle, handle != 0
}

func (t *texts) find(hash uint32, text []byte) uint32 {
	return t.byHash.find(hash, func(handle uint32) bool {
		if handle>>cellBits == 0 {
			return t.long.at(handle).text == string(text)
		}
		return string(t.bytes(handle)) == string(text)
	})
}

func (t *texts) add(text []byte) uint32 {
	if len(text) > maxShort {
		handle, long := t.long.add()
		long.text = string(text)
		return handle
	}
	class := uint32(cellHeader+len(text)+7) / 8
	c := &t.classes[class]
	var number uint32
	if n := len(c.free); n > 0 {
		number, c.free = c.free[n-1], c.free[:n-1]
	} else {
		if int(c.next/chunkSize) == len(c.chunks) {
			c.chunks = append(c.chunks, make([]byte, chunkSize*8*class))
		}
		number = c.next
		c.next++
	}
	handle := class<<cellBits | number
	cell := t.cell(handle)
	cell[cellHeader-1] = byte(len(text))
	copy(cell[cellHeader:], text)
	return handle
}

func (t *texts) cell(handle uint32) []byte {
	class, number := handle>>cellBits, handle&(1<<cellBits-1)
	start := number % chunkSize * 8 * class
	return t.classes[class].chunks[number/chunkSize][start : start+8*class]
}

// bytes returns a string as bytes, which are not valid after its last reference is released and must not be modified.
func (t *texts) bytes(handle uint32) []byte {
	if handle == 0 {
		return nil
	}
	if handle>>cellBits == 0 {
		return []byte(t.long.at(handle).text)
	}
	cell := t.cell(handle)
	return cell[cellHeader : cellHeader+int(cell[cellHeader-1])]
}

// release removes a reference.
func (t *texts) release(handle uint32) {
	if handle == 0 {
		return
	}
	if handle>>cellBits == 0 {
		long := t.long.at(handle)
		if long.references--; long.references == 0 {
			t.byHash.remove(t.hash([]byte(long.text)), handle)
			t.long.remove(handle)
		}
		return
	}
	cell := t.cell(handle)
	references := binary.LittleEndian.Uint32(cell) - 1
	binary.LittleEndian.PutUint32(cell, references)
	if references == 0 {
		t.byHash.remove(t.hash(t.bytes(handle)), handle)
		c := &t.classes[handle>>cellBits]
		c.free = append(c.free, handle&(1<<cellBits-1))
	}
}
