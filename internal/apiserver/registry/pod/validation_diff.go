package pod

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
)

// Bounds in bytes: of the text of a difference, and of a spec that is compared in full, which takes far longer than to
// validate it.
const (
	maxDiff     = 8 << 10
	maxDiffSpec = 32 << 10
)

// specDiff shows what differs between two specs. The text reaches the audit log with the refusal, so where users keep
// secrets (values of variables and headers, commands, options of drivers) it only says which values are the same.
func specDiff(old, updated *corev1.PodSpec) string {
	if old.Size() > maxDiffSpec || updated.Size() > maxDiffSpec {
		return "these differ: " + strings.Join(changedFields(old, updated), ", ")
	}
	m := masks{}
	anyType := cmp.Exporter(func(reflect.Type) bool { return true })
	text := cmp.Diff(*m.spec(old), *m.spec(updated), anyType)
	if len(text) > maxDiff {
		text = strings.ToValidUTF8(text[:maxDiff], "") + "\n... (cut)"
	}
	return text
}

// changedFields names the fields of the spec that differ, as they are written in JSON.
func changedFields(old, updated *corev1.PodSpec) []string {
	var names []string
	a, b := reflect.ValueOf(*old), reflect.ValueOf(*updated)
	for i := range a.NumField() {
		if !equality.Semantic.DeepEqual(a.Field(i).Interface(), b.Field(i).Interface()) {
			name, _, _ := strings.Cut(a.Type().Field(i).Tag.Get("json"), ",")
			names = append(names, "spec."+name)
		}
	}
	return names
}

// masks gives every value met a number of its own.
type masks map[string]int

func (m masks) hide(value *string) {
	if *value == "" {
		return
	}
	if m[*value] == 0 {
		m[*value] = len(m) + 1
	}
	*value = fmt.Sprintf("<value %d, not shown>", m[*value])
}

func (m masks) all(values []string) {
	for i := range values {
		m.hide(&values[i])
	}
}

func (m masks) values(options map[string]string) {
	for key, value := range options {
		m.hide(&value)
		options[key] = value
	}
}

// spec returns a copy of spec in which nothing is to be read that may be secret.
func (m masks) spec(spec *corev1.PodSpec) *corev1.PodSpec {
	spec = spec.DeepCopy()
	for _, list := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range list {
			m.container(&list[i])
		}
	}
	for i := range spec.EphemeralContainers {
		m.container((*corev1.Container)(&spec.EphemeralContainers[i].EphemeralContainerCommon))
	}
	if spec.SecurityContext != nil {
		m.windows(spec.SecurityContext.WindowsOptions)
	}
	for i := range spec.Volumes {
		if v := spec.Volumes[i].FlexVolume; v != nil {
			m.values(v.Options)
		}
		if v := spec.Volumes[i].CSI; v != nil {
			m.values(v.VolumeAttributes)
		}
	}
	return spec
}

func (m masks) container(c *corev1.Container) {
	m.all(c.Command)
	m.all(c.Args)
	for i := range c.Env {
		m.hide(&c.Env[i].Value)
	}
	for _, probe := range []*corev1.Probe{c.LivenessProbe, c.ReadinessProbe, c.StartupProbe} {
		if probe != nil {
			m.action(probe.Exec, probe.HTTPGet)
		}
	}
	if c.Lifecycle != nil {
		for _, hook := range []*corev1.LifecycleHandler{c.Lifecycle.PostStart, c.Lifecycle.PreStop} {
			if hook != nil {
				m.action(hook.Exec, hook.HTTPGet)
			}
		}
	}
	if c.SecurityContext != nil {
		m.windows(c.SecurityContext.WindowsOptions)
	}
}

func (m masks) action(exec *corev1.ExecAction, get *corev1.HTTPGetAction) {
	if exec != nil {
		m.all(exec.Command)
	}
	if get != nil {
		for i := range get.HTTPHeaders {
			m.hide(&get.HTTPHeaders[i].Value)
		}
	}
}

func (m masks) windows(w *corev1.WindowsSecurityContextOptions) {
	if w != nil && w.GMSACredentialSpec != nil {
		m.hide(w.GMSACredentialSpec)
	}
}
