package keyring

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"lanyard.dev/internal/apiserver/mirror"
	"lanyard.dev/internal/apiserver/registry/storagetest"
	"lanyard.dev/internal/signingkey"
	"lanyard.dev/internal/signingkey/rotation"
)

func object(revision string, ring []byte) *Object {
	return &Object{ObjectMeta: metav1.ObjectMeta{Name: name, ResourceVersion: revision}, Ring: ring}
}

// TestUnreadableKeys delivers keys that cannot be read, older ones, and a deletion. While the stored keys cannot be read, nothing is
// fresh.
func TestUnreadableKeys(t *testing.T) {
	t.Parallel()
	k, _ := NewOn(t, storagetest.Start(t), mirror.Config{SoleWriter: true}, rotation.Policy{}, signingkey.None())
	ring, _, err := rotation.Policy{}.Advance(rotation.Ring{}, time.Now(), nil)
	if err != nil {
		t.Fatal(err)
	}
	data, err := ring.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	k.Set(object("5", data))
	signer := k.Current().Signer("")
	if signer == nil || k.Fresh() != nil {
		t.Fatalf("signer %v, %v", signer, k.Fresh())
	}
	k.Set(object("4", []byte("{}")))
	if err := k.Fresh(); err != nil {
		t.Errorf("after an older revision: %v", err)
	}
	k.Set(object("6", []byte("{}")))
	if err := k.Fresh(); !errors.Is(err, rotation.ErrUnreadable) || k.Current().Signer("").ID() != signer.ID() {
		t.Errorf("unreadable: %v", err)
	}
	k.Set(object("7", data))
	if err := k.Fresh(); err != nil {
		t.Errorf("readable again: %v", err)
	}
	k.Delete(&metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: name, ResourceVersion: "6"}})
	if k.Current().Signer("") == nil {
		t.Error("an older deletion removed the keys")
	}
	k.Delete(&metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: name, ResourceVersion: "7"}})
	if k.Current().Signer("") != nil || k.Fresh() != nil {
		t.Errorf("after the deletion: %v", k.Fresh())
	}
}

// FuzzDecode checks that bytes from the storage become an object or an error that quotes none of them.
func FuzzDecode(f *testing.F) {
	for _, seed := range []string{`{"metadata":{"name":"signing-keys"},"ring":"eA=="}`, `{"ring":null}`, `{"ring":"secret`, `[]`, ``, `{"ring":"?secret"}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		obj, _, err := Codec{}.Decode(data, nil, nil)
		if err != nil {
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("the error quotes the data: %v", err)
			}
			return
		}
		var again bytes.Buffer
		if err := (Codec{}).Encode(obj, &again); err != nil {
			t.Fatal(err)
		}
		if back, err := runtime.Decode(Codec{}, again.Bytes()); err != nil || !bytes.Equal(back.(*Object).Ring, obj.(*Object).Ring) {
			t.Errorf("decoded again: %v, %v", back, err)
		}
	})
}

// TestDecodeIsBounded checks the limit of an object's size, and the types that it decodes into.
func TestDecodeIsBounded(t *testing.T) {
	t.Parallel()
	good := []byte(`{"ring":"eA=="}`)
	if _, _, err := (Codec{}).Decode(append(good, bytes.Repeat([]byte(" "), maxObject)...), nil, nil); !errors.Is(err, rotation.ErrUnreadable) {
		t.Errorf("a large object: %v", err)
	}
	if _, _, err := (Codec{}).Decode(good, nil, &ObjectList{}); !errors.Is(err, rotation.ErrUnreadable) {
		t.Errorf("into a list: %v", err)
	}
}
