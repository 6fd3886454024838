package rotation

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lanyard.dev/internal/signingkey"
)

// everyState returns a ring with a key in each state.
func everyState(t testing.TB) Ring {
	t.Helper()
	var r Ring
	for i, state := range []State{Retired, Revoked, Verifying, Signing, Published} {
		k := must(newKey(signingkey.Algorithms()[i%3], start.Add(time.Duration(i)*time.Hour)))
		if state != Published {
			k.sign(start)
		}
		if state == Verifying || state == Retired {
			k.stop(start)
		}
		if state == Retired || state == Revoked {
			k.end(start, state == Revoked)
		}
		k.TakenOver = i == 2
		if k.State() != state {
			t.Fatalf("state %s, want %s", k.State(), state)
		}
		r.keys = append(r.keys, k)
	}
	return r
}

// comparable returns the fields of the keys that can be compared.
func comparable(r Ring) (all []Key) {
	for _, k := range r.Keys() {
		k.Private, k.Public = nil, signingkey.PublicKey{}
		all = append(all, k)
	}
	return all
}

// TestEncoding checks that a ring comes back as it was stored, with private keys only where one may sign.
func TestEncoding(t *testing.T) {
	t.Parallel()
	r := everyState(t)
	data := must(r.Marshal())
	back, err := Unmarshal(data)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(comparable(r), comparable(back), cmp.AllowUnexported(signingkey.PublicKey{})); diff != "" {
		t.Errorf("(-stored +read):\n%s", diff)
	}
	if again := must(back.Marshal()); !bytes.Equal(data, again) {
		t.Errorf("encoded again:\n%s\nwant\n%s", again, data)
	}
	if n := bytes.Count(data, []byte("BEGIN PRIVATE KEY")); n != 2 {
		t.Errorf("%d private keys are stored, want those of the key that signs and of the next", n)
	}
	signer := back.keys[3].Private
	if err := r.keys[3].Public.Verify([]byte("x"), must(signer.Sign([]byte("x")))); err != nil {
		t.Error(err)
	}
}

// TestFullRingFits encodes the largest ring that the rules allow.
func TestFullRingFits(t *testing.T) {
	t.Parallel()
	var r Ring
	big := must(signingkey.Generate(signingkey.RS256))
	for range MaxAccepted {
		r.keys = append(r.keys, Key{ID: big.ID(), Algorithm: signingkey.RS256, Private: big, Created: start, Signed: start})
	}
	for range maxEnded {
		r.keys = append(r.keys, Key{ID: big.ID(), Algorithm: signingkey.RS256, Created: start, Signed: start, Stopped: start, Ended: start})
	}
	if data := must(r.Marshal()); len(data) > MaxSize {
		t.Errorf("%d bytes, more than %d", len(data), MaxSize)
	}
}

// TestUnreadable checks what is refused, and that no error quotes the data.
func TestUnreadable(t *testing.T) {
	t.Parallel()
	good := string(must(everyState(t).Marshal()))
	key := must(newKey("", start))
	private := strings.ReplaceAll(string(must(key.Private.MarshalPEM())), "\n", `\n`)
	public := strings.ReplaceAll(string(must(key.Public.MarshalPEM())), "\n", `\n`)
	one := func(fields string) string { return `{"version":1,"keys":[{` + fields + `}]}` }
	const created = `"created":"2026-11-28T12:00:00Z"`
	for name, data := range map[string]string{
		"nothing": "", "null": "null", "a list": "[]", "more behind it": good + "}", "half": good[:len(good)/2],
		"another version":   strings.Replace(good, `"version":1`, `"version":2`, 1),
		"another field":     strings.Replace(good, `"version":1`, `"version":1,"x":1`, 1),
		"too large":         good + strings.Repeat(" ", MaxSize),
		"twice":             strings.Replace(good, `"keys":[`, `"keys":[`+good[strings.Index(good, `{"id"`):strings.Index(good, `},{"id"`)+2], 1),
		"no ID":             one(`"algorithm":"ES256",` + created + `,"private":"` + private + `"`),
		"another ID":        one(`"id":"x","algorithm":"ES256",` + created + `,"private":"` + private + `"`),
		"another algorithm": one(`"id":"` + key.ID + `","algorithm":"ES384",` + created + `,"private":"` + private + `"`),
		"no time":           one(`"id":"` + key.ID + `","algorithm":"ES256","created":"0001-01-01T00:00:00Z","private":"` + private + `"`),
		"no key":            one(`"id":"` + key.ID + `","algorithm":"ES256",` + created),
		"no private key":    one(`"id":"` + key.ID + `","algorithm":"ES256",` + created + `,"public":"` + public + `"`),
		"a private key that stopped": one(`"id":"` + key.ID + `","algorithm":"ES256",` + created +
			`,"stopped":"2026-11-28T12:00:00Z","private":"` + private + `"`),
		"a broken key": one(`"id":"` + key.ID + `","algorithm":"ES256",` + created + `,"private":"` + strings.Replace(private, "M", "N", 4) + `"`),
		"a long ID":    one(`"id":"` + strings.Repeat("x", maxIDSize+1) + `","algorithm":"ES256",` + created + `,"ended":"2026-11-28T12:00:00Z"`),
	} {
		_, err := Unmarshal([]byte(data))
		if !errors.Is(err, ErrUnreadable) {
			t.Errorf("%s: %v", name, err)
		} else if strings.Contains(err.Error(), "BEGIN") || strings.Contains(err.Error(), "MIG") {
			t.Errorf("%s: the error quotes the data: %v", name, err)
		}
	}
}

// FuzzUnmarshal checks that a ring that can be read has a key set and an encoding that is read again.
func FuzzUnmarshal(f *testing.F) {
	f.Add(must(everyState(f).Marshal()))
	f.Add([]byte(`{"version":1,"keys":[]}`))
	f.Add([]byte(`{"version":1,"keys":[{"id":"x","algorithm":"ES256","created":"2026-11-28T12:00:00Z","ended":"2026-11-28T12:00:00Z"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := Unmarshal(data)
		if err != nil {
			return
		}
		set, err := Policy{}.Set(r)
		if err != nil {
			t.Fatalf("key set: %v", err)
		}
		for _, k := range r.Accepted() {
			if found := set.Find(k.ID); len(found) != 1 {
				t.Fatalf("the set has %d keys %s", len(found), k.ID)
			}
		}
		again, err := r.Marshal()
		if err != nil {
			t.Fatalf("encode again: %v", err)
		}
		if _, err := Unmarshal(again); err != nil && len(again) <= MaxSize {
			t.Fatalf("read again: %v", err)
		}
	})
}
