package configfile_test

import (
	"strings"
	"testing"

	"k8s.io/apiserver/pkg/apis/apiserver"

	"lanyard.dev/internal/apiserver/configfile"
)

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
