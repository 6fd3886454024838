package apiserver

import (
	apimachineryversion "k8s.io/apimachinery/pkg/version"
	basecompatibility "k8s.io/component-base/compatibility"

	"lanyard.dev/internal/version"
)

// kubernetesVersion says at /version which Kubernetes the API is that of, and what this program was built from. The
// library only knows what the linker was told.
type kubernetesVersion struct {
	basecompatibility.EffectiveVersion
}

// Info implements basecompatibility.EffectiveVersion.
func (v kubernetesVersion) Info() *apimachineryversion.Info {
	info, build := *v.EffectiveVersion.Info(), version.Current()
	info.Major, info.Minor = build.MajorMinor()
	info.GitVersion = build.Kubernetes + "+lanyard"
	info.GitCommit, info.GitTreeState, info.BuildDate = build.Commit, build.TreeState, build.CommitDate
	return &info
}
