package ledger

import (
	"crypto/sha256"
	"encoding/hex"

	"github.com/google/uuid"
)

// parseUUID reads a UUID in its canonical form: lower-case digits, with hyphens. It accepts no other form, so formatUUID
// returns the same text.
func parseUUID(text string) (id uuid.UUID, ok bool) {
	if len(text) != 36 || text[8] != '-' || text[13] != '-' || text[18] != '-' || text[23] != '-' {
		return id, false
	}
	n := 0
	for i := 0; i < len(text); i += 2 {
		if text[i] == '-' {
			i++
		}
		high, low := lowerHex[text[i]], lowerHex[text[i+1]]
		if high|low > 15 {
			return uuid.UUID{}, false
		}
		id[n] = high<<4 | low
		n++
	}
	return id, true
}

func formatUUID(id []byte) string { return uuid.UUID(id).String() }

// parseDigest reads a SHA-256 digest in lower-case hexadecimal digits.
func parseDigest(text string) (digest [sha256.Size]byte, ok bool) {
	if len(text) != 2*sha256.Size {
		return digest, false
	}
	for i := range digest {
		high, low := lowerHex[text[2*i]], lowerHex[text[2*i+1]]
		if high|low > 15 {
			return [sha256.Size]byte{}, false
		}
		digest[i] = high<<4 | low
	}
	return digest, true
}

func formatDigest(digest []byte) string { return hex.EncodeToString(digest) }

// lowerHex has the value of each lower-case hexadecimal digit, and 255 for every other byte.
var lowerHex = func() (values [256]byte) {
	for i := range values {
		values[i] = 255
	}
	for i, digit := range []byte("0123456789abcdef") {
		values[digit] = byte(i)
	}
	return values
}()
