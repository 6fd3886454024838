package ledger

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestOrder compares an order with a sorted list while tokens are added and removed, first more of the former, then more of the latter.
func TestOrder(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 1))
	keys := []idKey{{}} // by token; token 0 is none
	for n := range 3000 {
		var key idKey
		switch n % 4 {
		case 0: // many IDs with the same prefix
			binary.BigEndian.PutUint64(key.uuid[8:], random.Uint64())
		case 1:
			key.text = fmt.Sprint("text-", random.Uint64())
		case 2: // the prefix of texts
			key.uuid = [16]byte{255, 255, 255, 255, byte(random.Uint32()), byte(random.Uint32()), byte(n >> 8), byte(n)}
		default:
			binary.BigEndian.PutUint64(key.uuid[:], random.Uint64())
		}
		keys = append(keys, key)
	}
	s := orders{key: func(token uint32) idKey { return keys[token] }}
	ids := make([]string, len(keys))
	for i := range keys {
		ids[i] = keys[i].String()
	}
	byID := func(a, b uint32) int { return compareIDs(ids[a], ids[b]) }
	var o order
	var sorted []uint32
	for step := range 12000 {
		token := uint32(1 + random.IntN(3000))
		i, there := slices.BinarySearchFunc(sorted, token, byID)
		switch add := random.IntN(10) < 7 == (step < 8000); {
		case add && !there:
			s.insert(&o, token)
			sorted = slices.Insert(sorted, i, token)
		case !add && there:
			s.remove(&o, token)
			sorted = slices.Delete(sorted, i, i+1)
		}
		if step%50 > 0 {
			continue
		}
		var all, behind []uint32
		s.each(&o, nil, func(token uint32) bool { all = append(all, token); return true })
		s.each(&o, &keys[token], func(token uint32) bool { behind = append(behind, token); return len(behind) < 100 })
		i, there = slices.BinarySearchFunc(sorted, token, byID)
		if there {
			i++
		}
		if !slices.Equal(all, sorted) || !slices.Equal(behind, sorted[i:min(i+100, len(sorted))]) || o.n != len(sorted) {
			t.Fatalf("step %d: the order has %d tokens, want %d", step, len(all), len(sorted))
		}
	}
	for _, token := range sorted[100:] {
		s.remove(&o, token)
	}
	sorted = sorted[:100]
	random.Shuffle(len(sorted), func(i, j int) { sorted[i], sorted[j] = sorted[j], sorted[i] })
	for _, token := range sorted {
		s.remove(&o, token)
	}
	if len(o.spans) > 0 || int(s.blocks.next)-1 > len(s.blocks.free) {
		t.Errorf("an empty order has %d blocks", len(o.spans))
	}
}

// TestOrderJoinsBlocks removes all but every fiftieth token, in both directions.
func TestOrderJoinsBlocks(t *testing.T) {
	t.Parallel()
	const n = 10000
	for name, removed := range map[string]func(i uint32) uint32{
		"ascending": func(i uint32) uint32 { return i }, "descending": func(i uint32) uint32 { return n - 1 - i },
	} {
		s := orders{key: func(token uint32) (key idKey) {
			binary.BigEndian.PutUint32(key.uuid[:], token)
			return key
		}}
		var o order
		for token := range uint32(n) {
			s.insert(&o, token)
		}
		for i := range uint32(n) {
			if token := removed(i); token%50 > 0 {
				s.remove(&o, token)
			}
		}
		if most := 5 * n / 50 / blockSize; len(o.spans) > most {
			t.Errorf("%s: %d blocks for %d tokens, want at most %d", name, len(o.spans), o.n, most)
		}
	}
}

// TestMultimap compares a multimap with a map while few hashes get many handles.
func TestMultimap(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	var m multimap
	want := map[uint32][]uint32{}
	for step := range 20000 {
		hash, handle := uint32(random.IntN(40))<<27|uint32(random.IntN(4)), uint32(1+random.IntN(20))
		i := slices.Index(want[hash], handle)
		if i < 0 {
			m.add(hash, handle)
			want[hash] = append(want[hash], handle)
		} else {
			m.remove(hash, handle)
			want[hash] = slices.Delete(want[hash], i, i+1)
		}
		var got []uint32
		m.find(hash, func(handle uint32) bool { got = append(got, handle); return false })
		slices.Sort(got)
		slices.Sort(want[hash])
		if !slices.Equal(got, want[hash]) {
			t.Fatalf("step %d: hash %x has %v, want %v", step, hash, got, want[hash])
		}
	}
}
