package cli

import (
	"bytes"
	"encoding/json"
	"testing"

	"lanyard.dev/internal/version"
)

func TestVersionText(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	o := &versionOptions{streams: streams{out: &out}, output: outputOptions{format: formatText}}
	if err := o.run(version.Build{Lanyard: "v1.2.3", Commit: "abc", TreeState: "dirty", Kubernetes: "v1.37.2", Go: "go1.26.0", Platform: "linux/amd64"}); err != nil {
		t.Fatal(err)
	}
	want := "lanyard v1.2.3\nKubernetes API v1.37.2\nbuilt with go1.26.0 linux/amd64 commit abc, dirty\n"
	if out.String() != want {
		t.Errorf("got %q", out.String())
	}
}

func TestVersionJSON(t *testing.T) {
	t.Parallel()
	got := run("", "version", "-o", "json")
	var v version.Build
	if err := json.Unmarshal([]byte(got.out), &v); err != nil || got.code != 0 || v.Kubernetes == "" {
		t.Errorf("%v %+v", err, got)
	}
}
