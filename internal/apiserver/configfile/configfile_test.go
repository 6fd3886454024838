package configfile_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apiserver/pkg/apis/apiserver"

	"lanyard.dev/internal/apiserver/configfile"
)

func TestRead(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "config.yaml")
	if _, err := configfile.Read(file); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("no file: %v", err)
	}
	for size, want := range map[int64]string{configfile.MaxSize: "", configfile.MaxSize + 1: file + ": larger than 4194304 bytes"} {
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(file, size); err != nil {
			t.Fatal(err)
		}
		switch text, err := configfile.Read(file); {
		case want == "" && (err != nil || int64(len(text)) != size):
			t.Errorf("%d bytes: read %d, %v", size, len(text), err)
		case want != "" && (err == nil || err.Error() != want):
			t.Errorf("%d bytes: %v, want %q", size, err, want)
		}
	}
}

func TestOneDocument(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"a: b": "",
		"\ufeff# c\n%YAML 1.1\n---\na: b\n---\n# end\n": "",
		"--- {a: b}\n...\n":                             "",
		"---\n# nothing\n":                              "the file is empty",
		"a: b\n---\nc: d":                               "several YAML documents",
		"--- {a: b}\n--- {c: d}":                        "several YAML documents",
		"a: b\n...\nc: d":                               "several YAML documents",
	} {
		if err := configfile.OneDocument([]byte(text)); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte("apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\nplugins: [{name: PodSecurity, path: x.yaml}]\n"))
	f.Add([]byte("---\n{}\n...\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		config, err := configfile.Decode[*apiserver.AdmissionConfiguration](text)
		if (err == nil) != (config != nil) {
			t.Errorf("%v, %v", config, err)
		}
	})
}
