// Package version returns the version of this program, and of the Kubernetes API that it serves, from the build information
// in the binary.
package version

import (
	"runtime"
	"runtime/debug"
	"strings"
)

// kubernetesModule is the library whose version determines the Kubernetes version: its v0.37.2 is part of Kubernetes v1.37.2.
const (
	kubernetesModule  = "k8s.io/apiserver"
	kubernetesRelease = "v1.37.0" // if the build information has no modules
)

// States of the source tree, as Kubernetes names them.
const (
	clean = "clean"
	dirty = "dirty"
)

// commitLength is the number of digits of a commit in a user agent.
const commitLength = 7

// Build describes a binary. Fields that the build information lacks are empty, for example after a build outside a git
// checkout.
type Build struct {
	Lanyard    string `json:"lanyard"` // "(devel)" unless it is a release
	Commit     string `json:"commit,omitempty"`
	TreeState  string `json:"treeState,omitempty"`  // "clean" or "dirty"
	CommitDate string `json:"commitDate,omitempty"` // RFC 3339
	Kubernetes string `json:"kubernetes"`
	Go         string `json:"go"`
	Platform   string `json:"platform"`
}

// Current returns the description of the running program.
func Current() Build {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = &debug.BuildInfo{GoVersion: runtime.Version()}
	}
	return describe(info)
}

func describe(info *debug.BuildInfo) Build {
	b := Build{
		Lanyard:    info.Main.Version,
		Kubernetes: kubernetesRelease,
		Go:         info.GoVersion,
		Platform:   runtime.GOOS + "/" + runtime.GOARCH,
	}
	if b.Lanyard == "" {
		b.Lanyard = "(devel)"
	}
	for _, setting := range info.Settings {
		switch setting.Key {
		case "vcs.revision":
			b.Commit = setting.Value
		case "vcs.time":
			b.CommitDate = setting.Value
		case "vcs.modified":
			b.TreeState = clean
			if setting.Value == "true" {
				b.TreeState = dirty
			}
		}
	}
	for _, dep := range info.Deps {
		if minor, ok := strings.CutPrefix(dep.Version, "v0."); ok && dep.Path == kubernetesModule {
			b.Kubernetes = "v1." + minor
		}
	}
	return b
}

// MajorMinor returns the first two numbers of the Kubernetes version.
func (b Build) MajorMinor() (major, minor string) {
	parts := strings.SplitN(strings.TrimPrefix(b.Kubernetes, "v"), ".", 3)
	return parts[0], parts[1]
}

// UserAgent returns the user agent of lanyard's clients, in the form of client-go's default. The default itself contains a
// version and a commit that only Kubernetes' own build sets.
func (b Build) UserAgent() string {
	commit := b.Commit[:min(len(b.Commit), commitLength)]
	if commit == "" {
		commit = "unknown"
	}
	return "lanyard/" + strings.Trim(b.Lanyard, "()") + " (" + b.Platform + ") kubernetes/" + b.Kubernetes + " commit/" + commit
}
