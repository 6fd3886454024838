package issuance

import (
	"bytes"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"
)

// FuzzDecode decodes any bytes. What can be decoded must encode to the same bytes.
func FuzzDecode(f *testing.F) {
	o := &Object{Content: []byte("content")}
	o.Name = "name"
	valid, err := runtime.Encode(Codec{}, o)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(valid)
	f.Add(valid[:headerBytes])
	f.Add([]byte(header + "\xff\xff"))
	f.Add([]byte(header + "\x00\x00content"))
	f.Fuzz(func(t *testing.T, data []byte) {
		read := &Object{}
		if _, _, err := (Codec{}).Decode(data, nil, read); err != nil {
			return
		}
		again, err := runtime.Encode(Codec{}, read)
		if err != nil || !bytes.Equal(again, data) || read.Size() != len(data) {
			t.Errorf("%q, %v, size %d, want %q", again, err, read.Size(), data)
		}
	})
}

func TestDecode(t *testing.T) {
	t.Parallel()
	o := &Object{Content: []byte("content")}
	o.Name = "name"
	data, err := runtime.Encode(Codec{}, o)
	if err != nil {
		t.Fatal(err)
	}
	read := &Object{}
	if _, _, err := (Codec{}).Decode(data, nil, read); err != nil || read.Name != "name" || string(read.Content) != "content" {
		t.Errorf("%+v, %v", read, err)
	}
	for name, bad := range map[string][]byte{
		"empty": nil, "another format": []byte("k8s\x00 and more than a header"), "no name": []byte(header + "\x00\x00content"),
		"a short name": data[:headerBytes+3], "too large": append(data, make([]byte, maxObject)...),
	} {
		if _, _, err := (Codec{}).Decode(bad, nil, &Object{}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
