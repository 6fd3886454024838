package rotation

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"lanyard.dev/internal/signingkey"
)

const (
	// MaxSize is the limit for an encoded Ring, in bytes. A full one has about a tenth.
	MaxSize = 256 << 10
	// version is the version of the encoding. A program refuses a newer one, since it would lose what it does not know.
	version = 1
	// maxIDSize is the limit for the ID of a key. A thumbprint has 43 bytes.
	maxIDSize = 64
)

// ErrUnreadable reports bytes that are not an encoded Ring.
var ErrUnreadable = errors.New("the stored signing keys cannot be read")

type encodedRing struct {
	Version int          `json:"version"`
	Keys    []encodedKey `json:"keys"`
}

// encodedKey has the private key or the public key, in PEM, or neither if the key has ended.
type encodedKey struct {
	ID        string               `json:"id"`
	Algorithm signingkey.Algorithm `json:"algorithm"`
	Private   string               `json:"private,omitempty"`
	Public    string               `json:"public,omitempty"`
	Created   time.Time            `json:"created"`
	Signed    time.Time            `json:"signed,omitzero"`
	Stopped   time.Time            `json:"stopped,omitzero"`
	Ended     time.Time            `json:"ended,omitzero"`
	Revoked   bool                 `json:"revoked,omitempty"`
	TakenOver bool                 `json:"takenOver,omitempty"`
}

// Marshal returns the encoding of r. The result is a secret.
func (r Ring) Marshal() ([]byte, error) {
	all := encodedRing{Version: version, Keys: []encodedKey{}}
	for i := range r.keys {
		encoded, err := encode(&r.keys[i])
		if err != nil {
			return nil, fmt.Errorf("encode key %s: %w", r.keys[i].ID, err)
		}
		all.Keys = append(all.Keys, encoded)
	}
	return json.Marshal(all)
}

func encode(k *Key) (encodedKey, error) {
	e := encodedKey{
		ID: k.ID, Algorithm: k.Algorithm, Created: k.Created, Signed: k.Signed, Stopped: k.Stopped, Ended: k.Ended,
		Revoked: k.Revoked, TakenOver: k.TakenOver,
	}
	var text []byte
	var err error
	switch {
	case k.Private != nil:
		text, err = k.Private.MarshalPEM()
		e.Private = string(text)
	case k.accepted():
		text, err = k.Public.MarshalPEM()
		e.Public = string(text)
	}
	return e, err
}

// Unmarshal returns the Ring that Marshal encoded. The error is ErrUnreadable, with no part of the data.
func Unmarshal(data []byte) (Ring, error) {
	if len(data) > MaxSize {
		return Ring{}, fmt.Errorf("%w: they are larger than %d bytes", ErrUnreadable, MaxSize)
	}
	var all encodedRing
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	err := decoder.Decode(&all)
	if _, end := decoder.Token(); err != nil || end != io.EOF {
		return Ring{}, fmt.Errorf("%w: they are not in the form in which this program stores them", ErrUnreadable)
	}
	if all.Version != version {
		return Ring{}, fmt.Errorf("%w: they have version %d of the form, and this program knows version %d", ErrUnreadable, all.Version, version)
	}
	var r Ring
	for i := range all.Keys {
		k, err := all.Keys[i].decode()
		if err != nil {
			return Ring{}, fmt.Errorf("%w: key %d: %w", ErrUnreadable, i, err)
		}
		if r.index(k.ID) >= 0 {
			return Ring{}, fmt.Errorf("%w: key %d is there twice", ErrUnreadable, i)
		}
		r.keys = append(r.keys, k)
	}
	if r.count() > signingkey.MaxKeys {
		return Ring{}, fmt.Errorf("%w: %w", ErrUnreadable, signingkey.ErrTooManyKeys)
	}
	return r, nil
}

// decode returns the record, if its fields fit together.
func (e *encodedKey) decode() (Key, error) {
	k := Key{
		ID: e.ID, Algorithm: e.Algorithm, Created: e.Created, Signed: e.Signed, Stopped: e.Stopped, Ended: e.Ended,
		Revoked: e.Revoked, TakenOver: e.TakenOver,
	}
	state := k.State()
	mayHave := map[State]struct{ private, public bool }{Published: {private: true}, Signing: {private: true}, Verifying: {public: true}}[state]
	if (e.Private != "") != mayHave.private || (e.Public != "") != mayHave.public {
		return Key{}, fmt.Errorf("a key in the state %s has other parts", state)
	}
	switch {
	case e.ID == "" || len(e.ID) > maxIDSize || e.Created.IsZero():
		return Key{}, errors.New("it has no valid ID or no time")
	case mayHave.private:
		private, err := signingkey.ParsePrivatePEM([]byte(e.Private))
		if err != nil {
			return Key{}, err
		}
		k.Private, k.Public = private, private.Public()
	case mayHave.public:
		public, err := signingkey.ParsePublicPEM([]byte(e.Public))
		if err != nil {
			return Key{}, err
		}
		k.Public = public[0]
	default:
		return k, nil
	}
	if k.Public.ID() != e.ID || k.Public.Algorithm() != e.Algorithm {
		return Key{}, errors.New("its ID or its algorithm is not that of the key")
	}
	return k, nil
}
