package version

import (
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
)

func TestDescribe(t *testing.T) {
	t.Parallel()
	release := &debug.BuildInfo{
		GoVersion: "go1.26.0",
		Main:      debug.Module{Version: "v1.2.3"},
		Deps:      []*debug.Module{{Path: "k8s.io/api", Version: "v0.36.0"}, {Path: "k8s.io/apiserver", Version: "v0.37.2"}},
		Settings: []debug.BuildSetting{
			{Key: "vcs.revision", Value: "0123456789abcdef"}, {Key: "vcs.time", Value: "2026-11-27T18:58:35Z"}, {Key: "vcs.modified", Value: "false"},
		},
	}
	changed := &debug.BuildInfo{GoVersion: "go1", Settings: []debug.BuildSetting{{Key: "vcs.revision", Value: "abc"}, {Key: "vcs.modified", Value: "true"}}}
	platform := runtime.GOOS + "/" + runtime.GOARCH
	tests := map[string]struct {
		info  *debug.BuildInfo
		want  Build
		agent string
	}{
		"release": {
			release, Build{"v1.2.3", "0123456789abcdef", "clean", "2026-11-27T18:58:35Z", "v1.37.2", "go1.26.0", platform},
			"lanyard/v1.2.3 (" + platform + ") kubernetes/v1.37.2 commit/0123456",
		},
		"changed": {changed, Build{"(devel)", "abc", "dirty", "", "v1.37.0", "go1", platform}, "lanyard/devel (" + platform + ") kubernetes/v1.37.0 commit/abc"},
		"unknown": {&debug.BuildInfo{GoVersion: "go1"}, Build{"(devel)", "", "", "", "v1.37.0", "go1", platform}, "lanyard/devel (" + platform + ") kubernetes/v1.37.0 commit/unknown"},
	}
	for name, test := range tests {
		got := describe(test.info)
		if got != test.want {
			t.Errorf("%s: got %v, want %v", name, got, test.want)
		}
		if major, minor := got.MajorMinor(); major != "1" || minor != "37" {
			t.Errorf("%s: %s and %s", name, major, minor)
		}
		if got.UserAgent() != test.agent {
			t.Errorf("%s: user agent %q, want %q", name, got.UserAgent(), test.agent)
		}
	}
}

// TestCurrent checks that the description of a test binary has no placeholders.
func TestCurrent(t *testing.T) {
	t.Parallel()
	got := Current()
	if got.Go != runtime.Version() || strings.Contains(got.UserAgent(), "$") {
		t.Errorf("got %+v", got)
	}
}
