//go:build linux

package cri

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/ptr"

	"lanyard.dev/internal/files"
)

// effectiveSecurity returns the container's security context, with the values of its pod's for fields that are not set.
func effectiveSecurity(pod *corev1.Pod, container *corev1.Container) *corev1.SecurityContext {
	own := &corev1.SecurityContext{}
	if container.SecurityContext != nil {
		own = container.SecurityContext.DeepCopy()
	}
	shared := pod.Spec.SecurityContext
	if shared == nil {
		return own
	}
	inherit(&own.RunAsUser, shared.RunAsUser)
	inherit(&own.RunAsGroup, shared.RunAsGroup)
	inherit(&own.RunAsNonRoot, shared.RunAsNonRoot)
	inherit(&own.SELinuxOptions, shared.SELinuxOptions)
	inherit(&own.SeccompProfile, shared.SeccompProfile)
	inherit(&own.AppArmorProfile, shared.AppArmorProfile)
	return own
}

func inherit[T any](own **T, shared *T) {
	if *own == nil {
		*own = shared
	}
}

// containerSecurity returns a container's security context in CRI.
func (r *Runtime) containerSecurity(ctx context.Context, spec ContainerSpec) (*runtimeapi.LinuxContainerSecurityContext, error) {
	security := effectiveSecurity(spec.Pod, spec.Container)
	namespaces, err := namespaceOptions(spec.Pod)
	if err != nil {
		return nil, err
	}
	mapped := &runtimeapi.LinuxContainerSecurityContext{
		Capabilities: capabilities(security.Capabilities), Privileged: ptr.Deref(security.Privileged, false), NamespaceOptions: namespaces,
		SelinuxOptions: selinux(security.SELinuxOptions), ReadonlyRootfs: ptr.Deref(security.ReadOnlyRootFilesystem, false),
		SupplementalGroups: supplementalGroups(spec.Pod), NoNewPrivs: !ptr.Deref(security.AllowPrivilegeEscalation, true),
	}
	mapped.MaskedPaths, mapped.ReadonlyPaths = procPaths(security.ProcMount)
	if mapped.Seccomp, err = r.seccomp(security.SeccompProfile); err != nil {
		return nil, err
	}
	if mapped.Apparmor, err = r.apparmor(security.AppArmorProfile); err != nil {
		return nil, err
	}
	if mapped.SupplementalGroupsPolicy, err = r.groupsPolicy(ctx, spec.Pod); err != nil {
		return nil, err
	}
	return mapped, r.setUser(ctx, spec, security, mapped)
}

// setUser sets the user and the group of the container. If the pod sets none, CRI gets none, and the image determines them. CRI
// accepts no group without a user, so a pod that sets only a group gets the user of the image.
func (r *Runtime) setUser(ctx context.Context, spec ContainerSpec, security *corev1.SecurityContext, mapped *runtimeapi.LinuxContainerSecurityContext) error {
	mapped.RunAsUser, mapped.RunAsGroup = int64Value(security.RunAsUser), int64Value(security.RunAsGroup)
	mustNotBeRoot := ptr.Deref(security.RunAsNonRoot, false)
	if security.RunAsUser == nil && security.RunAsGroup == nil && !mustNotBeRoot {
		return nil
	}
	var user imageUser
	if security.RunAsUser == nil {
		var err error
		if user, err = r.userOf(ctx, spec.ImageID); err != nil {
			return err
		}
	}
	if mustNotBeRoot {
		if fault := rootFault(security.RunAsUser, user); fault != "" {
			return &ConfigError{Message: fmt.Sprintf("%s (pod: %q, container: %s)", fault, podName(spec.Pod), spec.Container.Name)}
		}
	}
	if security.RunAsUser == nil && security.RunAsGroup != nil {
		mapped.RunAsUser, mapped.RunAsUsername = int64Value(user.uid), user.name
	}
	return nil
}

// rootFault returns why a container may run as root, in the kubelet's words, or "" if it cannot.
func rootFault(runAsUser *int64, user imageUser) string {
	switch {
	case runAsUser != nil && *runAsUser == 0:
		return "container's runAsUser breaks non-root policy"
	case runAsUser != nil:
		return ""
	case user.uid == nil:
		return fmt.Sprintf("container has runAsNonRoot and image has non-numeric user (%s), cannot verify user is non-root", user.name)
	case *user.uid == 0:
		return "container has runAsNonRoot and image will run as root"
	}
	return ""
}

// podName returns the pod's name in the form of the kubelet's messages.
func podName(pod *corev1.Pod) string {
	return fmt.Sprintf("%s_%s(%s)", pod.Name, pod.Namespace, pod.UID)
}

func capabilities(all *corev1.Capabilities) *runtimeapi.Capability {
	if all == nil {
		return nil
	}
	mapped := &runtimeapi.Capability{}
	for _, name := range all.Add {
		mapped.AddCapabilities = append(mapped.AddCapabilities, string(name))
	}
	for _, name := range all.Drop {
		mapped.DropCapabilities = append(mapped.DropCapabilities, string(name))
	}
	return mapped
}

// procPaths returns the files of the kernel that a container cannot see, and those that it cannot write. Empty lists mask
// nothing; they do not select the runtime's default.
func procPaths(mount *corev1.ProcMountType) (masked, readOnly []string) {
	if ptr.Deref(mount, corev1.DefaultProcMount) == corev1.UnmaskedProcMount {
		return []string{}, []string{}
	}
	masked = []string{
		"/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
		"/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap",
	}
	return masked, []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
}

// seccomp returns the profile. It is Unconfined if the pod sets none, which is the kubelet's default.
func (r *Runtime) seccomp(profile *corev1.SeccompProfile) (*runtimeapi.SecurityProfile, error) {
	if profile == nil {
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}, nil
	}
	switch profile.Type {
	case corev1.SeccompProfileTypeRuntimeDefault:
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}, nil
	case corev1.SeccompProfileTypeUnconfined:
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}, nil
	case corev1.SeccompProfileTypeLocalhost:
		ref, err := localhostProfile(r.config.SeccompDir, ptr.Deref(profile.LocalhostProfile, ""))
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: ref}, err
	}
	return nil, &ConfigError{Message: fmt.Sprintf("seccompProfile type %q is not known", profile.Type)}
}

// apparmor returns the profile, or nil for the runtime's default. A profile that the kernel cannot enforce is refused.
func (r *Runtime) apparmor(profile *corev1.AppArmorProfile) (*runtimeapi.SecurityProfile, error) {
	if profile == nil {
		return nil, nil
	}
	if profile.Type != corev1.AppArmorProfileTypeUnconfined && !r.hasAppArmor() {
		return nil, &ConfigError{Message: "Cannot enforce AppArmor: AppArmor is not enabled on the host"}
	}
	switch profile.Type {
	case corev1.AppArmorProfileTypeRuntimeDefault:
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}, nil
	case corev1.AppArmorProfileTypeUnconfined:
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}, nil
	case corev1.AppArmorProfileTypeLocalhost:
		name := ptr.Deref(profile.LocalhostProfile, "")
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: name}, nil
	}
	return nil, &ConfigError{Message: fmt.Sprintf("appArmorProfile type %q is not known", profile.Type)}
}

// hasAppArmor reports whether the kernel enforces AppArmor's profiles.
func (r *Runtime) hasAppArmor() bool {
	enabled, err := files.Read(cmp.Or(r.config.AppArmorFile, "/sys/module/apparmor/parameters/enabled"), files.MaxText)
	return err == nil && strings.HasPrefix(string(enabled), "Y")
}

// groupsPolicy returns the policy of the pod. Strict is refused if the runtime would ignore it, because containers would
// then be in groups that the pod excludes.
func (r *Runtime) groupsPolicy(ctx context.Context, pod *corev1.Pod) (runtimeapi.SupplementalGroupsPolicy, error) {
	security := pod.Spec.SecurityContext
	if security == nil || ptr.Deref(security.SupplementalGroupsPolicy, corev1.SupplementalGroupsPolicyMerge) != corev1.SupplementalGroupsPolicyStrict {
		return runtimeapi.SupplementalGroupsPolicy_Merge, nil
	}
	answer, err := r.status(ctx, false)
	if err != nil {
		return 0, err
	}
	if !answer.GetFeatures().GetSupplementalGroupsPolicy() {
		return 0, &ConfigError{Message: "SupplementalGroupsPolicy=Strict is not supported in this node"}
	}
	return runtimeapi.SupplementalGroupsPolicy_Strict, nil
}
