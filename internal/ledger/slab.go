package ledger

// chunkSize is the number of values that a slab allocates at once.
const chunkSize = 64

// slab holds values of one type under handles, and uses the place of a removed value again. A value does not move while
// it is there. The handle 0 means none. If T contains no pointers, the garbage collector scans only the list of chunks.
type slab[T any] struct {
	chunks []*[chunkSize]T
	free   []uint32
	next   uint32 // the first handle that was never used
}

// add returns a handle, and the zero value there.
func (s *slab[T]) add() (uint32, *T) {
	if n := len(s.free); n > 0 {
		handle := s.free[n-1]
		s.free = s.free[:n-1]
		return handle, s.at(handle)
	}
	if s.next == 0 {
		s.next = 1
	}
	if int(s.next/chunkSize) == len(s.chunks) {
		s.chunks = append(s.chunks, new([chunkSize]T))
	}
	s.next++
	return s.next - 1, s.at(s.next - 1)
}

// at returns the value of a handle. Handles are not checked.
func (s *slab[T]) at(handle uint32) *T { return &s.chunks[handle/chunkSize][handle%chunkSize] }

func (s *slab[T]) remove(handle uint32) {
	*s.at(handle) = *new(T)
	s.free = append(s.free, handle)
}

// link is the place of a value in one doubly linked list.
type link struct{ next, prev uint32 }

// insert puts a value first in a list. Parameter links returns a value's link of this list.
func insert(head *uint32, handle uint32, links func(uint32) *link) {
	*links(handle) = link{next: *head}
	if *head != 0 {
		links(*head).prev = handle
	}
	*head = handle
}

// cut removes a value from a list.
func cut(head *uint32, handle uint32, links func(uint32) *link) {
	l := *links(handle)
	if l.prev == 0 {
		*head = l.next
	} else {
		links(l.prev).next = l.next
	}
	if l.next != 0 {
		links(l.next).prev = l.prev
	}
}

// multimap leads from hashes to handles. Several handles can have the same hash. It is a table with open addressing that
// contains no pointers and is at most four fifths full.
type multimap struct {
	cells []uint64 // hash and handle; 0 if the cell is empty
	n     int
}

func (m *multimap) add(hash, handle uint32) {
	if (m.n+1)*5 > len(m.cells)*4 {
		m.grow()
	}
	m.n++
	m.put(uint64(hash)<<32 | uint64(handle))
}

func (m *multimap) put(cell uint64) {
	i := m.home(uint32(cell >> 32))
	for m.cells[i] != 0 {
		i = m.after(i)
	}
	m.cells[i] = cell
}

// home returns the cell where a hash belongs, or after which it belongs if the cell is taken.
func (m *multimap) home(hash uint32) int { return int(uint64(hash) * uint64(len(m.cells)) >> 32) }

func (m *multimap) after(i int) int {
	if i++; i == len(m.cells) {
		return 0
	}
	return i
}

// distance returns the number of steps from cell i to cell j.
func (m *multimap) distance(i, j int) int {
	if j < i {
		j += len(m.cells)
	}
	return j - i
}

// grow makes the table a quarter larger, so that little of it is empty.
func (m *multimap) grow() {
	old := m.cells
	m.cells = make([]uint64, len(old)+len(old)/4+8)
	for _, cell := range old {
		if cell != 0 {
			m.put(cell)
		}
	}
}

// find returns the first handle with a hash that satisfies a condition, or 0.
func (m *multimap) find(hash uint32, is func(handle uint32) bool) uint32 {
	if m.n == 0 {
		return 0
	}
	for i := m.home(hash); m.cells[i] != 0; i = m.after(i) {
		if uint32(m.cells[i]>>32) == hash && is(uint32(m.cells[i])) {
			return uint32(m.cells[i])
		}
	}
	return 0
}

// remove removes a handle that was added with a hash.
func (m *multimap) remove(hash, handle uint32) {
	cell := uint64(hash)<<32 | uint64(handle)
	i := m.home(hash)
	for m.cells[i] != cell {
		i = m.after(i)
	}
	// Move the cells back that belong at or before the gap, so that find does not stop there.
	for j := m.after(i); m.cells[j] != 0; j = m.after(j) {
		if home := m.home(uint32(m.cells[j] >> 32)); m.distance(home, j) >= m.distance(i, j) {
			m.cells[i] = m.cells[j]
			i = j
		}
	}
	m.cells[i] = 0
	m.n--
}
