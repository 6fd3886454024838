package pod

import (
	"fmt"
	"regexp"
	"strings"
	"unicode"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// operatingSystem refuses what the pod's operating system does not have.
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

func (c *checker) windowsOnly(p *field.Path) {
	spec := &c.pod.Spec
	c.notOnWindows(p, []setField{
		{"hostUsers", spec.HostUsers != nil},
		{"hostPID", spec.HostPID},
		{"hostIPC", spec.HostIPC},
		{"shareProcessNamespace", spec.ShareProcessNamespace != nil},
		{"resources", spec.Resources != nil},
	})
	if sc := spec.SecurityContext; sc != nil {
		c.notOnWindows(p.Child("securityContext"), []setField{
			{"appArmorProfile", sc.AppArmorProfile != nil},
			{"seLinuxOptions", sc.SELinuxOptions != nil},
			{"seccompProfile", sc.SeccompProfile != nil},
			{"fsGroup", sc.FSGroup != nil},
			{"fsGroupChangePolicy", sc.FSGroupChangePolicy != nil},
			{"sysctls", len(sc.Sysctls) > 0},
			{"runAsUser", sc.RunAsUser != nil},
			{"runAsGroup", sc.RunAsGroup != nil},
			{"supplementalGroups", sc.SupplementalGroups != nil},
			{"supplementalGroupsPolicy", sc.SupplementalGroupsPolicy != nil},
			{"seLinuxChangePolicy", sc.SELinuxChangePolicy != nil},
		})
	}
	c.eachContainer(p, func(ctr *corev1.Container, path *field.Path) {
		c.windowsContainer(ctr.SecurityContext, path.Child("securityContext"))
	})
}

func (c *checker) windowsContainer(sc *corev1.SecurityContext, p *field.Path) {
	if sc == nil {
		return
	}
	c.notOnWindows(p, []setField{
		{"appArmorProfile", sc.AppArmorProfile != nil},
		{"seLinuxOptions", sc.SELinuxOptions != nil},
		{"seccompProfile", sc.SeccompProfile != nil},
		{"capabilities", sc.Capabilities != nil},
		{"readOnlyRootFilesystem", sc.ReadOnlyRootFilesystem != nil},
		{"privileged", sc.Privileged != nil},
		{"allowPrivilegeEscalation", sc.AllowPrivilegeEscalation != nil},
		{"procMount", sc.ProcMount != nil},
		{"runAsUser", sc.RunAsUser != nil},
		{"runAsGroup", sc.RunAsGroup != nil},
	})
}

// setField is a field by name, and whether it has a value.
type setField struct {
	name string
	set  bool
}

func (c *checker) notOnWindows(p *field.Path, fields []setField) {
	for _, f := range fields {
		if f.set {
			c.forbidden(p.Child(f.name), "cannot be set for a windows pod")
		}
	}
}

// hostProcess checks that either all containers of a pod are Windows host processes or none is.
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

const (
	maxCredentialSpec = 64 << 10
	maxWindowsDomain  = 256
	maxWindowsUser    = 104
)

// Names of Windows domains, by NetBIOS and by DNS.
var (
	netBIOSName = regexp.MustCompile(`^[^\\/:\*\?"<>|\.][^\\/:\*\?"<>|]{0,14}$`)
	domainName  = regexp.MustCompile(`^[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)*$`)
)

func (c *checker) windowsOptions(w *corev1.WindowsSecurityContextOptions, p *field.Path) {
	if w == nil {
		return
	}
	if w.GMSACredentialSpecName != nil {
		c.invalid(p.Child("gmsaCredentialSpecName"), *w.GMSACredentialSpecName,
			validation.IsDNS1123Subdomain(*w.GMSACredentialSpecName)...)
	}
	if s := w.GMSACredentialSpec; s != nil {
		switch {
		case *s == "":
			c.invalid(p.Child("gmsaCredentialSpec"), "", "gmsaCredentialSpec cannot be an empty string")
		case len(*s) > maxCredentialSpec:
			c.invalid(p.Child("gmsaCredentialSpec"), "", "gmsaCredentialSpec size must be under 64 KiB")
		}
	}
	if w.RunAsUserName != nil {
		name := *w.RunAsUserName
		c.invalid(p.Child("runAsUserName"), name, windowsUserFaults(name)...)
	}
}

// windowsUserFaults says what is wrong with a name of the form [DOMAIN\]USER.
func windowsUserFaults(name string) []string {
	switch {
	case name == "":
		return []string{"runAsUserName cannot be an empty string"}
	case strings.ContainsFunc(name, unicode.IsControl):
		return []string{"runAsUserName cannot contain control characters"}
	case strings.Count(name, `\`) > 1:
		return []string{"runAsUserName cannot contain more than one backslash"}
	}
	domain, user, qualified := strings.Cut(name, `\`)
	if !qualified {
		domain, user = "", name
	}
	var why []string
	if len(domain) >= maxWindowsDomain {
		why = append(why, "runAsUserName's Domain length must be under 256 characters")
	}
	if qualified && !netBIOSName.MatchString(domain) && !domainName.MatchString(domain) {
		why = append(why, "runAsUserName's Domain doesn't match the NetBios nor the DNS format")
	}
	switch {
	case user == "":
		why = append(why, "runAsUserName's User cannot be empty")
	case len(user) > maxWindowsUser:
		why = append(why, "runAsUserName's User length must not be longer than 104 characters")
	case strings.Trim(user, ". ") == "":
		why = append(why, "runAsUserName's User cannot contain only periods or spaces")
	}
	if strings.ContainsAny(user, `"/\:;|=,+*?<>@[]`) {
		why = append(why, `runAsUserName's User cannot contain the following characters: "/\:;|=,+*?<>@[]`)
	}
	return why
}
