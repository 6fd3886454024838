package ledger

import (
	"bytes"
	"math"
	"net/netip"
	"time"
)

// use is a Use in memory.
type use struct {
	address [16]byte // IPv4 in its form as IPv6; zero if there is no IP address
	at      uint32   // as instant
}

func newUse(u *Use) use {
	packed := use{at: instant(u.At)}
	if address, err := netip.ParseAddr(u.Address); err == nil {
		packed.address = address.As16()
	}
	return packed
}

// newer reports whether u replaces old. Of two uses in the same second, the one with the larger address does, so that the result
// does not depend on the order.
func (u *use) newer(old *use) bool {
	return u.at > old.at || u.at == old.at && bytes.Compare(u.address[:], old.address[:]) > 0
}

// of returns the use of the credential with an ID, or the zero value if there was none.
func (u *use) of(id string) Use {
	if u.at == 0 {
		return Use{}
	}
	found := Use{ID: id, At: fromInstant(u.at)}
	if u.address != [16]byte{} {
		found.Address = netip.AddrFrom16(u.address).Unmap().String()
	}
	return found
}

// instant returns a time as seconds since 1970. The result is 0 for earlier times, such as the zero time, and the maximum for
// times after 2106.
func instant(t time.Time) uint32 {
	return uint32(min(max(t.Unix(), 0), math.MaxUint32))
}

func fromInstant(seconds uint32) time.Time {
	if seconds == 0 {
		return time.Time{}
	}
	return time.Unix(int64(seconds), 0).UTC()
}
