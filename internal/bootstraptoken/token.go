package bootstraptoken

import (
	"crypto/rand"
	"crypto/sha256"
)

const (
	idLength     = 6
	secretLength = 16

	alphabet = "abcdefghijklmnopqrstuvwxyz0123456789"
)

// Token is one bootstrap token. Its text is had from Reveal alone: formatted in any other way it shows its ID only.
type Token struct{ id, secret string }

// Parse reads the text of a token; ok is false for everything else, such as a service account's token.
func Parse(text string) (t Token, ok bool) {
	if len(text) != idLength+1+secretLength || text[idLength] != '.' {
		return Token{}, false
	}
	t = Token{id: text[:idLength], secret: text[idLength+1:]}
	return t, IsID(t.id) && allowed(t.secret)
}

// IsID tells whether text can be the ID of a token.
func IsID(text string) bool { return len(text) == idLength && allowed(text) }

func allowed(text string) bool {
	for _, c := range []byte(text) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return true
}

// New makes a token from the system's secure random source: its secret has 82 bits.
func New() Token { return Token{id: random(idLength), secret: random(secretLength)} }

// random draws each character from the alphabet with equal chance.
func random(length int) string {
	// The largest multiple of the alphabet's length that a byte can be below.
	const limit = 256 - 256%len(alphabet)
	text, buffer := make([]byte, 0, length), make([]byte, 2*length)
	for {
		// Read never fails: the runtime ends the process where there is no random source.
		_, _ = rand.Read(buffer)
		for _, b := range buffer {
			if int(b) >= limit {
				continue
			}
			if text = append(text, alphabet[int(b)%len(alphabet)]); len(text) == length {
				return string(text)
			}
		}
	}
}

// ID is the public part of the token.
func (t Token) ID() string { return t.id }

// Reveal returns the whole token, the credential itself.
func (t Token) Reveal() string { return t.id + "." + t.secret }

// String implements fmt.Stringer.
func (t Token) String() string { return t.id + ".[hidden]" }

// GoString implements fmt.GoStringer.
func (t Token) GoString() string { return t.String() }

func (t Token) hash() [sha256.Size]byte { return sha256.Sum256([]byte(t.secret)) }
