package backup

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"lanyard.dev/internal/datadir"
)

// entry is an entry of an archive that a test makes.
type entry struct {
	name, text string
	kind       byte // 0 means a plain file
	size       int64
	pax        map[string]string
}

const testManifest = `{"format":1,"lanyard":"v1.2.3","created":"2030-01-02T03:04:05Z","etcd":{"revision":7}}`

// good returns the entries of an archive that is accepted.
func good() []entry {
	return []entry{{name: manifestName, text: testManifest}, {name: datadir.CACertName, text: "certificate"}, {name: snapshotName, text: "database"}}
}

// build writes the entries, and checksums unless the last entry is of that name.
func build(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var out bytes.Buffer
	w := &archiveWriter{tar: tar.NewWriter(&out)}
	for _, e := range entries {
		if e.kind == 0 && e.size == 0 && e.pax == nil {
			if err := w.addBytes(e.name, []byte(e.text)); err != nil {
				t.Fatal(err)
			}
			continue
		}
		header := &tar.Header{Typeflag: e.kind, Name: e.name, Linkname: e.text, Size: e.size, Mode: 0o600, PAXRecords: e.pax}
		if err := w.tar.WriteHeader(header); err != nil {
			t.Fatal(err)
		}
	}
	if entries[len(entries)-1].name != sumsName {
		if err := w.close(); err != nil {
			_ = w.tar.Flush()
		}
	}
	return out.Bytes()
}

// taken is a receiver that keeps what it takes.
type taken struct {
	names    []string
	database string
}

func (r *taken) file(f datadir.File) error {
	if len(f.Data) > maxFile {
		return fmt.Errorf("%s has %d bytes", f.Name, len(f.Data))
	}
	r.names = append(r.names, f.Name)
	return nil
}

func (r *taken) snapshot(content io.Reader) error {
	data, err := io.ReadAll(content)
	r.database = string(data)
	return err
}

func TestArchive(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	made := Manifest{Format: format, Lanyard: "v1", Created: time.Unix(1_900_000_000, 0).UTC(), Etcd: Etcd{"3.7.3", "ab", 9}, CA: "cd"}
	w, err := newArchiveWriter(&out, made)
	if err != nil {
		t.Fatal(err)
	}
	database := strings.Repeat("database", 100_000)
	err = errors.Join(w.addBytes(datadir.CACertName, []byte("certificate")), w.addBytes("sa.key", nil),
		w.add(snapshotName, int64(len(database)), strings.NewReader(database)), w.close())
	if err != nil {
		t.Fatal(err)
	}
	var got taken
	read, err := readArchive(&out, &got)
	if err != nil || read != made {
		t.Errorf("manifest %+v, %v; want %+v", read, err, made)
	}
	if fmt.Sprint(got.names) != "[ca.crt sa.key]" || got.database != database {
		t.Errorf("took %q and %d bytes", got.names, len(got.database))
	}
}

// TestArchiveOfAChangingSize checks that a snapshot with another size than announced makes no archive.
func TestArchiveOfAChangingSize(t *testing.T) {
	t.Parallel()
	for _, size := range []int64{7, 9} {
		w, err := newArchiveWriter(io.Discard, Manifest{Format: format})
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(w.add(snapshotName, size, strings.NewReader("database")), w.close()); err == nil {
			t.Errorf("8 bytes were written as %d", size)
		}
	}
}

func TestArchivesThatAreRefused(t *testing.T) {
	t.Parallel()
	whole := build(t, good()...)
	with := func(at int, e entry) []byte {
		entries := good()
		return build(t, append(entries[:at:at], append([]entry{e}, entries[at:]...)...)...)
	}
	tests := map[string]struct {
		archive []byte
		want    string
	}{
		"nothing":          {nil, "an entry is missing"},
		"text":             {bytes.Repeat([]byte("text"), 1000), "an entry is missing"},
		"cut off":          {whole[:len(whole)/2], "damaged or was cut off"},
		"without its end":  {whole[:1024+512], "damaged or was cut off"},
		"another manifest": {build(t, entry{name: manifestName, text: `{"format":"1"}`}), "its manifest cannot be read"},
		"no manifest":      {build(t, good()[1:]...), `the unexpected entry "ca.crt"`},
		"two manifests":    {with(1, good()[0]), `the unexpected entry "manifest.json"`},
		"a file twice":     {with(1, good()[1]), `the unexpected entry "ca.crt"`},
		"an unknown file":  {with(1, entry{name: "x", text: "x"}), `the unexpected entry "x"`},
		"a path upwards":   {with(1, entry{name: "../ca.crt", text: "x"}), `the unexpected entry "../ca.crt"`},
		"a whole path":     {with(1, entry{name: "/etc/passwd", text: "x"}), `the unexpected entry "/etc/passwd"`},
		"a path to a file": {with(1, entry{name: "./sa.key", text: "x"}), `the unexpected entry "./sa.key"`},
		"the lock file":    {with(1, entry{name: "lock", text: "x"}), `the unexpected entry "lock"`},
		"a link":           {with(1, entry{name: "sa.key", text: "/etc/passwd", kind: tar.TypeSymlink}), `the unexpected entry "sa.key"`},
		"a hard link":      {with(1, entry{name: "sa.key", text: "ca.crt", kind: tar.TypeLink}), `the unexpected entry "sa.key"`},
		"a directory":      {with(1, entry{name: "sa.key", kind: tar.TypeDir}), `the unexpected entry "sa.key"`},
		"a device":         {with(1, entry{name: "sa.key", kind: tar.TypeChar}), `the unexpected entry "sa.key"`},
		"too large":        {build(t, good()[0], entry{name: "sa.key", kind: tar.TypeReg, size: maxFile + 1}), "sa.key is too large"},
		"huge":             {build(t, good()[0], entry{name: snapshotName, kind: tar.TypeReg, size: 1 << 40}), "etcd.db is too large"},
		"a wrong checksum": {build(t, append(good(), entry{name: sumsName, text: strings.Repeat("0", 64) + "  " + manifestName + "\n"})...), "a checksum is wrong"},
		"more after it":    {build(t, append(good(), entry{name: sumsName, text: sumsOf(t, good())}, entry{name: "x"}, entry{name: sumsName})...), "something follows the checksums"},
		"much padding":     {append(bytes.Clone(whole), make([]byte, maxPadding+1)...), "its end is wrong"},
	}
	for name, test := range tests {
		_, err := readArchive(bytes.NewReader(test.archive), &taken{})
		if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
	if _, err := readArchive(bytes.NewReader(append(bytes.Clone(whole), make([]byte, 10240)...)), &taken{}); err != nil {
		t.Errorf("with the padding of a tar program: %v", err)
	}
}

// sumsOf returns the checksums of the entries.
func sumsOf(t *testing.T, entries []entry) string {
	t.Helper()
	r := tar.NewReader(bytes.NewReader(build(t, entries...)))
	for {
		header, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if header.Name == sumsName {
			data, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			return string(data)
		}
	}
}

func TestNewerArchive(t *testing.T) {
	t.Parallel()
	newer := build(t, entry{name: manifestName, text: `{"format":2,"lanyard":"v9.0.0","etcd":"elsewhere"}`}, entry{name: "etcd/part-1"})
	_, err := readArchive(bytes.NewReader(newer), &taken{})
	if !errors.Is(err, ErrNewer) || !strings.Contains(err.Error(), `"v9.0.0", with format 2`) {
		t.Errorf("got %v", err)
	}
}

func TestErrorsOfTheReceiver(t *testing.T) {
	t.Parallel()
	full := errors.New("disk full")
	if _, err := readArchive(bytes.NewReader(build(t, good()...)), failing{full}); !errors.Is(err, full) || errors.Is(err, ErrDamaged) {
		t.Errorf("got %v", err)
	}
}

type failing struct{ err error }

func (f failing) file(datadir.File) error  { return f.err }
func (f failing) snapshot(io.Reader) error { return f.err }

// FuzzArchive checks that only known files, each once and within its limit, leave the reader, and that what it accepts is complete.
func FuzzArchive(f *testing.F) {
	whole := build(f, good()...)
	f.Add(whole)
	f.Add(whole[:len(whole)-1024])
	f.Add(build(f, append(good()[:1], entry{name: "../sa.key", text: "x"})...))
	f.Add(build(f, append(good()[:1], entry{name: "sa.key", text: "/etc/passwd", kind: tar.TypeSymlink})...))
	f.Fuzz(func(t *testing.T, data []byte) {
		var got taken
		manifest, err := readArchive(bytes.NewReader(data), &got)
		seen := map[string]bool{}
		for _, name := range got.names {
			if !datadir.IsEssential(name) || seen[name] {
				t.Fatalf("took %q", got.names)
			}
			seen[name] = true
		}
		if err == nil && (manifest.Format != format || !bytes.Contains(data, []byte(sumsName))) {
			t.Errorf("accepted %+v", manifest)
		}
	})
}
