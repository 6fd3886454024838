package cli

import (
	"bytes"
	"encoding/json"
	"runtime"
	"runtime/debug"
	"testing"
)

func TestDescribeBuild(t *testing.T) {
	t.Parallel()
	release := &debug.BuildInfo{
		GoVersion: "go1.26.0",
		Main:      debug.Module{Version: "v1.2.3"},
		Deps:      []*debug.Module{{Path: "k8s.io/api", Version: "v0.36.0"}, {Path: "k8s.io/apiserver", Version: "v0.37.2"}},
		Settings:  []debug.BuildSetting{{Key: "vcs.revision", Value: "abc"}},
	}
	platform := runtime.GOOS + "/" + runtime.GOARCH
	tests := map[string]struct {
		info *debug.BuildInfo
		want versionInfo
	}{
		"release": {release, versionInfo{"v1.2.3", "abc", "v1.37.2", "go1.26.0", platform}},
		"unknown": {&debug.BuildInfo{GoVersion: "go1"}, versionInfo{"(devel)", "", "v1.37", "go1", platform}},
	}
	for name, test := range tests {
		if got := describeBuild(test.info); got != test.want {
			t.Errorf("%s: got %v, want %v", name, got, test.want)
		}
	}
}

func TestVersionText(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	o := &versionOptions{streams: streams{out: &out}, output: outputOptions{format: formatText}}
	if err := o.run(versionInfo{"v1.2.3", "abc", "v1.37.2", "go1.26.0", "linux/amd64"}); err != nil {
		t.Fatal(err)
	}
	want := "lanyard v1.2.3\nKubernetes API v1.37.2\nbuilt with go1.26.0 linux/amd64 commit abc\n"
	if out.String() != want {
		t.Errorf("got %q", out.String())
	}
}

func TestVersionJSON(t *testing.T) {
	t.Parallel()
	got := run("", "version", "-o", "json")
	var v versionInfo
	if err := json.Unmarshal([]byte(got.out), &v); err != nil || got.code != 0 || v.Kubernetes == "" {
		t.Errorf("%v %+v", err, got)
	}
}
