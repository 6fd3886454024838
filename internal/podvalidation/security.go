package podvalidation

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/component-helpers/node/util/sysctl"
)

func (c *checker) podSecurityContext(p *field.Path) {
	sc := c.pod.Spec.SecurityContext
	if sc == nil {
		return
	}
	c.user(p.Child("runAsUser"), sc.RunAsUser)
	c.group(p.Child("runAsGroup"), sc.RunAsGroup)
	c.group(p.Child("fsGroup"), sc.FSGroup)
	for i := range sc.SupplementalGroups {
		c.group(p.Child("supplementalGroups").Index(i), &sc.SupplementalGroups[i])
	}
	if share := c.pod.Spec.ShareProcessNamespace; share != nil && *share && c.pod.Spec.HostPID {
		c.invalid(p.Child("shareProcessNamespace"), *share, "ShareProcessNamespace and HostPID cannot both be enabled")
	}
	c.sysctls(sc.Sysctls, p.Child("sysctls"))
	optionalOneOf(&c.faults, p.Child("fsGroupChangePolicy"), sc.FSGroupChangePolicy,
		corev1.FSGroupChangeAlways, corev1.FSGroupChangeOnRootMismatch)
	optionalOneOf(&c.faults, p.Child("supplementalGroupsPolicy"), sc.SupplementalGroupsPolicy,
		corev1.SupplementalGroupsPolicyMerge, corev1.SupplementalGroupsPolicyStrict)
	optionalOneOf(&c.faults, p.Child("seLinuxChangePolicy"), sc.SELinuxChangePolicy,
		corev1.SELinuxChangePolicyMountOption, corev1.SELinuxChangePolicyRecursive)
	c.seccomp(sc.SeccompProfile, p.Child("seccompProfile"))
	c.appArmor(sc.AppArmorProfile, p.Child("appArmorProfile"))
	c.windowsOptions(sc.WindowsOptions, p.Child("windowsOptions"))
}

func (c *checker) securityContext(sc *corev1.SecurityContext, p *field.Path) {
	if sc == nil {
		return
	}
	c.user(p.Child("runAsUser"), sc.RunAsUser)
	c.group(p.Child("runAsGroup"), sc.RunAsGroup)
	optionalOneOf(&c.faults, p.Child("procMount"), sc.ProcMount, corev1.DefaultProcMount, corev1.UnmaskedProcMount)
	if sc.ProcMount != nil && *sc.ProcMount == corev1.UnmaskedProcMount && !c.hasUserNamespace() {
		c.invalid(p.Child("procMount"), *sc.ProcMount, "`hostUsers` must be false to use `Unmasked`")
	}
	if sc.AllowPrivilegeEscalation != nil && !*sc.AllowPrivilegeEscalation {
		c.noEscalation(sc, p)
	}
	c.seccomp(sc.SeccompProfile, p.Child("seccompProfile"))
	c.appArmor(sc.AppArmorProfile, p.Child("appArmorProfile"))
	c.windowsOptions(sc.WindowsOptions, p.Child("windowsOptions"))
}

// noEscalation refuses a container that must not gain privileges and is privileged or has CAP_SYS_ADMIN.
func (c *checker) noEscalation(sc *corev1.SecurityContext, p *field.Path) {
	if sc.Privileged != nil && *sc.Privileged {
		c.invalid(p, "", "cannot set `allowPrivilegeEscalation` to false and `privileged` to true")
	}
	if sc.Capabilities != nil && slices.Contains(sc.Capabilities.Add, "CAP_SYS_ADMIN") {
		c.invalid(p, "", "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN")
	}
}

// hasUserNamespace reports whether the pod gets a user namespace of its own.
func (c *checker) hasUserNamespace() bool {
	return c.pod.Spec.HostUsers != nil && !*c.pod.Spec.HostUsers
}

// hostNamespaces refuses the fields that a pod with a user namespace of its own cannot have.
func (c *checker) hostNamespaces(p *field.Path) {
	if !c.hasUserNamespace() {
		return
	}
	const why = "when `hostUsers` is false"
	if c.pod.Spec.HostNetwork {
		c.forbidden(p.Child("hostNetwork"), why)
	}
	if c.pod.Spec.HostPID {
		c.forbidden(p.Child("HostPID"), why)
	}
	if c.pod.Spec.HostIPC {
		c.forbidden(p.Child("HostIPC"), why)
	}
	c.eachContainer(p, func(ctr *corev1.Container, path *field.Path) {
		if len(ctr.VolumeDevices) > 0 {
			c.forbidden(path.Child("volumeDevices"), why)
		}
	})
}

func (c *checker) user(p *field.Path, id *int64) {
	if id != nil {
		c.invalid(p, *id, validation.IsValidUserID(*id)...)
	}
}

func (c *checker) group(p *field.Path, id *int64) {
	if id != nil {
		c.invalid(p, *id, validation.IsValidGroupID(*id)...)
	}
}

const maxSysctlName = 253

// sysctlName matches the name of a sysctl, with either of the separators of sysctl.d(5).
var sysctlName = regexp.MustCompile(`^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$`)

func (c *checker) sysctls(list []corev1.Sysctl, p *field.Path) {
	seen := sets.New[string]()
	for i := range list {
		name, path := list[i].Name, p.Index(i).Child("name")
		switch {
		case name == "":
			c.required(path, "")
		case len(name) > maxSysctlName || !sysctlName.MatchString(name):
			c.invalid(path, name,
				fmt.Sprintf("must have at most %d characters and match regex %s", maxSysctlName, sysctlName))
		default:
			c.unique(seen, path, name)
		}
		switch namespace, _, _ := sysctl.GetNamespace(name); {
		case namespace == sysctl.NetNamespace && c.pod.Spec.HostNetwork:
			c.invalid(path, name, "may not be specified when 'hostNetwork' is true")
		case namespace == sysctl.IPCNamespace && c.pod.Spec.HostIPC:
			c.invalid(path, name, "may not be specified when 'hostIPC' is true")
		}
	}
}

func (c *checker) seccomp(profile *corev1.SeccompProfile, p *field.Path) {
	if profile == nil {
		return
	}
	if profile.Type == "" {
		c.required(p.Child("type"), "type is required when seccompProfile is set")
	} else {
		oneOf(&c.faults, p.Child("type"), profile.Type, corev1.SeccompProfileTypeLocalhost,
			corev1.SeccompProfileTypeRuntimeDefault, corev1.SeccompProfileTypeUnconfined)
	}
	path, file := p.Child("localhostProfile"), profile.LocalhostProfile
	switch local := profile.Type == corev1.SeccompProfileTypeLocalhost; {
	case local && file == nil:
		c.required(path, "must be set when seccomp type is Localhost")
	case local:
		c.descendingPath(path, *file)
	case file != nil:
		c.invalid(path, *profile, "can only be set when seccomp type is Localhost")
	}
}

const maxAppArmorProfile = 4095

func (c *checker) appArmor(profile *corev1.AppArmorProfile, p *field.Path) {
	if profile == nil {
		return
	}
	path, file := p.Child("localhostProfile"), profile.LocalhostProfile
	switch profile.Type {
	case corev1.AppArmorProfileTypeLocalhost:
		c.appArmorFile(file, path)
	case corev1.AppArmorProfileTypeRuntimeDefault, corev1.AppArmorProfileTypeUnconfined:
		if file != nil {
			c.invalid(path, *file, "can only be set when AppArmor type is Localhost")
		}
	case "":
		c.required(p.Child("type"), "type is required when appArmorProfile is set")
	default:
		c.add(field.NotSupported(p.Child("type"), profile.Type, []corev1.AppArmorProfileType{
			corev1.AppArmorProfileTypeLocalhost, corev1.AppArmorProfileTypeRuntimeDefault, corev1.AppArmorProfileTypeUnconfined}))
	}
}

func (c *checker) appArmorFile(file *string, p *field.Path) {
	switch {
	case file == nil || *file == "":
		c.required(p, "must be set when AppArmor type is Localhost")
	case strings.TrimSpace(*file) != *file:
		c.invalid(p, *file, "must not be padded with whitespace")
	case len(*file) > maxAppArmorProfile:
		c.add(field.TooLong(p, "", maxAppArmorProfile))
	}
}

// operatingSystem refuses the fields that the pod's operating system does not have.
func (c *checker) operatingSystem(p *field.Path) {
	c.hostProcess(p)
	os := c.pod.Spec.OS
	if os == nil {
		return
	}
	switch os.Name {
	case "":
		c.required(p.Child("os", "name"), "")
	case corev1.Linux:
		c.linuxOnly(p)
	case corev1.Windows:
		c.windowsOnly(p)
	default:
		c.add(field.NotSupported(p.Child("os"), os.Name, []corev1.OSName{corev1.Linux, corev1.Windows}))
	}
}

func (c *checker) linuxOnly(p *field.Path) {
	const why = "windows options cannot be set for a linux pod"
	if sc := c.pod.Spec.SecurityContext; sc != nil && sc.WindowsOptions != nil {
		c.forbidden(p.Child("securityContext", "windowsOptions"), why)
	}
	c.eachContainer(p, func(ctr *corev1.Container, path *field.Path) {
		if ctr.SecurityContext != nil && ctr.SecurityContext.WindowsOptions != nil {
			c.forbidden(path.Child("securityContext", "windowsOptions"), why)
		}
	})
}

// windowsOnly refuses the fields that a pod on Windows cannot have: some of its spec, and all but two of its security
// contexts.
func (c *checker) windowsOnly(p *field.Path) {
	const why = "cannot be set for a windows pod"
	spec := &c.pod.Spec
	for _, f := range []setField{
		{"hostUsers", spec.HostUsers != nil},
		{"hostPID", spec.HostPID},
		{"hostIPC", spec.HostIPC},
		{"shareProcessNamespace", spec.ShareProcessNamespace != nil},
		{"resources", spec.Resources != nil},
	} {
		if f.set {
			c.forbidden(p.Child(f.name), why)
		}
	}
	securityContext := func(sc any, p *field.Path) {
		for name := range setFields(sc) {
			if name != "windowsOptions" && name != "runAsNonRoot" {
				c.forbidden(p.Child(name), why)
			}
		}
	}
	if spec.SecurityContext != nil {
		securityContext(spec.SecurityContext, p.Child("securityContext"))
	}
	c.eachContainer(p, func(ctr *corev1.Container, path *field.Path) {
		if ctr.SecurityContext != nil {
			securityContext(ctr.SecurityContext, path.Child("securityContext"))
		}
	})
}

// hostProcess requires that either all containers of a pod are Windows host processes or none is.
func (c *checker) hostProcess(p *field.Path) {
	var podWide *bool
	if sc := c.pod.Spec.SecurityContext; sc != nil && sc.WindowsOptions != nil {
		podWide = sc.WindowsOptions.HostProcess
	}
	total, host := 0, 0
	c.eachContainer(p, func(ctr *corev1.Container, path *field.Path) {
		total++
		own := podWide
		if sc := ctr.SecurityContext; sc != nil && sc.WindowsOptions != nil && sc.WindowsOptions.HostProcess != nil {
			own = sc.WindowsOptions.HostProcess
			if podWide != nil && *podWide != *own {
				c.invalid(path.Child("securityContext", "windowsOptions", "hostProcess"), *own,
					fmt.Sprintf("pod hostProcess value must be identical if both are specified, was %v", *podWide))
			}
		}
		if own != nil && *own {
			host++
		}
	})
	if host == 0 {
		return
	}
	if host != total {
		c.invalid(p, "", "If pod contains any hostProcess containers then all containers must be HostProcess containers")
	}
	if !c.pod.Spec.HostNetwork {
		c.invalid(p.Child("hostNetwork"), false, "hostNetwork must be true if pod contains any hostProcess containers")
	}
}

// windowsOptions checks the name of a user, USER or DOMAIN\USER. No agent runs such a pod; a kubelet checks the rest.
func (c *checker) windowsOptions(w *corev1.WindowsSecurityContextOptions, p *field.Path) {
	if w == nil || w.RunAsUserName == nil {
		return
	}
	switch name := *w.RunAsUserName; {
	case name == "":
		c.invalid(p.Child("runAsUserName"), name, "runAsUserName cannot be an empty string")
	case strings.ContainsFunc(name, unicode.IsControl):
		c.invalid(p.Child("runAsUserName"), name, "runAsUserName cannot contain control characters")
	case strings.Count(name, `\`) > 1:
		c.invalid(p.Child("runAsUserName"), name, "runAsUserName cannot contain more than one backslash")
	}
}
