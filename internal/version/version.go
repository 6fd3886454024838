// Package version tells which Lanyard this program is, and which Kubernetes it
// speaks, from what the Go toolchain has recorded in the binary.
package version

import (
	"runtime"
	"runtime/debug"
	"strings"
)

// kubernetesModule is the library whose version says which Kubernetes is
// served: its v0.37.2 is part of Kubernetes v1.37.2.
const (
	kubernetesModule  = "k8s.io/apiserver"
	kubernetesRelease = "v1.37.0" // where the toolchain has recorded no modules
)

// The states of the source tree, in Kubernetes' words.
const (
	clean = "clean"
	dirty = "dirty"
)

// commitLength is how much of a commit a user agent names.
const commitLength = 7

// Build describes a binary. What the toolchain did not record, as in a build
// outside a git checkout, is empty.
type Build struct {
	Lanyard    string `json:"lanyard"` // "(devel)" if it is no release
	Commit     string `json:"commit,omitempty"`
	TreeState  string `json:"treeState,omitempty"`  // "clean" or "dirty"
	CommitDate string `json:"commitDate,omitempty"` // RFC 3339
	Kubernetes string `json:"kubernetes"`
	Go         string `json:"go"`
	Platform   string `json:"platform"`
}

// Current describes the running program.
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

// MajorMinor are the first two numbers of the Kubernetes release.
func (b Build) MajorMinor() (major, minor string) {
	parts := strings.SplitN(strings.TrimPrefix(b.Kubernetes, "v"), ".", 3)
	return parts[0], parts[1]
}

// UserAgent is what lanyard's own clients call themselves, in the form of
// client-go's default. That default cannot be used: it names the version and
// the commit of client-go that the linker was told, which nobody tells it.
func (b Build) UserAgent() string {
	commit := b.Commit[:min(len(b.Commit), commitLength)]
	if commit == "" {
		commit = "unknown"
	}
	return "lanyard/" + strings.Trim(b.Lanyard, "()") + " (" + b.Platform + ") kubernetes/" + b.Kubernetes + " commit/" + commit
}
