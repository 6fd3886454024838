package podvalidation

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"lanyard.dev/internal/podannotation"
)

// ValidateUpdate returns the faults of an update of a pod. The defaults of updated must have been set. Most fields of a
// spec never change; the message of a refusal lists those that may.
func ValidateUpdate(updated, old *corev1.Pod) field.ErrorList {
	c := newChecker(updated)
	meta, spec := field.NewPath("metadata"), field.NewPath("spec")
	c.add(apivalidation.ValidateObjectMetaUpdate(&updated.ObjectMeta, &old.ObjectMeta, meta)...)
	c.object()
	c.annotationsUnchanged(fixedAnnotation, old.Annotations, meta.Child("annotations"))
	if len(updated.Spec.Containers) != len(old.Spec.Containers) {
		c.forbidden(spec.Child("containers"), "pod updates may not add or remove containers")
		return c.list
	}
	if len(updated.Spec.InitContainers) != len(old.Spec.InitContainers) {
		c.forbidden(spec.Child("initContainers"), "pod updates may not add or remove containers")
		return c.list
	}
	c.deadlineShrinks(old.Spec.ActiveDeadlineSeconds, spec.Child("activeDeadlineSeconds"))
	c.tolerationsGrow(old.Spec.Tolerations, spec.Child("tolerations"))
	c.gatesShrink(old.Spec.SchedulingGates, spec.Child("schedulingGates"))
	c.specUnchanged(&old.Spec, spec)
	return c.list
}

// fixedAnnotation returns a name for the kind of an annotation that must not change after the pod was created, or "" for any
// other annotation. Such annotations record where the pod comes from, how it is confined, or which command is run in it.
func fixedAnnotation(key string) string {
	switch {
	case strings.HasPrefix(key, corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix):
		return "AppArmor annotations"
	case key == corev1.MirrorPodAnnotationKey:
		return "mirror pod annotation"
	case key == podannotation.Process:
		return "process annotation"
	case key == podannotation.OnRenew:
		return "on-renew annotation"
	}
	return ""
}

// processAnnotation is like fixedAnnotation, for the subresources of the pod of a process. A client that may write the
// status must neither renew the lease of the process nor end it.
func processAnnotation(key string) string {
	if key == podannotation.Lease {
		return "lease annotation"
	}
	return fixedAnnotation(key)
}

// BindingMayAnnotate reports whether a binding may set an annotation on the pod that it binds.
func BindingMayAnnotate(key string) bool { return processAnnotation(key) == "" }

// annotationsUnchanged refuses changes of the annotations for which kind returns a name.
func (c *checker) annotationsUnchanged(kind func(key string) string, old map[string]string, p *field.Path) {
	for key, value := range old {
		if now, kept := c.pod.Annotations[key]; kind(key) != "" && (!kept || now != value) {
			c.forbidden(p.Key(key), "may not remove or update "+kind(key))
		}
	}
	for key := range c.pod.Annotations {
		if _, had := old[key]; kind(key) != "" && !had {
			c.forbidden(p.Key(key), "may not add "+kind(key))
		}
	}
}

func (c *checker) deadlineShrinks(old *int64, p *field.Path) {
	switch now := c.pod.Spec.ActiveDeadlineSeconds; {
	case now == nil && old != nil:
		c.invalid(p, nil, "must not update from a positive integer to nil value")
	case now == nil:
	case *now < 0 || *now > math.MaxInt32:
		c.invalid(p, *now, validation.InclusiveRangeError(0, math.MaxInt32))
	case old != nil && *old < *now:
		c.invalid(p, *now, "must be less than or equal to previous value")
	}
}

// tolerationsGrow allows new tolerations, and changes of tolerationSeconds.
func (c *checker) tolerationsGrow(old []corev1.Toleration, p *field.Path) {
	timeless := func(t corev1.Toleration) corev1.Toleration {
		t.TolerationSeconds = nil
		return t
	}
	now := sets.New[corev1.Toleration]()
	for _, t := range c.pod.Spec.Tolerations {
		now.Insert(timeless(t))
	}
	for _, t := range old {
		if !now.Has(timeless(t)) {
			c.forbidden(p, "existing toleration can not be modified except its tolerationSeconds")
			return
		}
	}
}

func (c *checker) gatesShrink(old []corev1.PodSchedulingGate, p *field.Path) {
	had := sets.New(old...)
	for i, gate := range c.pod.Spec.SchedulingGates {
		if !had.Has(gate) {
			c.forbidden(p.Index(i).Child("name"),
				fmt.Sprintf("only deletion is allowed, but found new scheduling gate '%s'", gate.Name))
		}
	}
}

// updatable is the message of a refusal. It is Kubernetes' own, which does not mention that scheduling gates may be
// removed, nor that the node selector and the node affinity of a gated pod may be narrowed.
const updatable = "pod updates may not change fields other than `spec.containers[*].image`," +
	"`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`," +
	"`spec.tolerations` (only additions to existing tolerations)," +
	"`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"

// specUnchanged refuses an update of a field that must not change. It undoes the allowed changes in a copy, and compares
// the copy with old. Both specs must have the same number of containers.
func (c *checker) specUnchanged(old *corev1.PodSpec, p *field.Path) {
	if equality.Semantic.DeepEqual(&c.pod.Spec, old) {
		return
	}
	rest := c.pod.Spec.DeepCopy()
	for i := range rest.Containers {
		rest.Containers[i].Image = old.Containers[i].Image
	}
	for i := range rest.InitContainers {
		rest.InitContainers[i].Image = old.InitContainers[i].Image
	}
	rest.ActiveDeadlineSeconds = old.ActiveDeadlineSeconds
	rest.Tolerations = old.Tolerations
	rest.SchedulingGates = old.SchedulingGates
	if graceBecameOne(old.TerminationGracePeriodSeconds, rest.TerminationGracePeriodSeconds) {
		rest.TerminationGracePeriodSeconds = old.TerminationGracePeriodSeconds
	}
	if len(old.SchedulingGates) > 0 {
		c.gatedPlacement(old, p)
		rest.NodeSelector = old.NodeSelector
		rest.Affinity = withNodeAffinity(rest.Affinity, old.Affinity)
	}
	if !equality.Semantic.DeepEqual(rest, old) {
		c.forbidden(p, updatable+"\n"+specDiff(old, rest))
	}
}

// graceBecameOne reports the only allowed change of the grace period: a negative one, which is treated as 1, may become 1.
func graceBecameOne(old, now *int64) bool {
	return old != nil && now != nil && *old < 0 && *now == 1
}

// withNodeAffinity returns a copy of a with the node affinity of old. It returns nil if old is nil and the copy is empty.
func withNodeAffinity(a, old *corev1.Affinity) *corev1.Affinity {
	out := &corev1.Affinity{}
	if a != nil {
		*out = *a
	}
	out.NodeAffinity = nil
	if old != nil {
		out.NodeAffinity = old.NodeAffinity
	}
	if old == nil && out.PodAffinity == nil && out.PodAntiAffinity == nil {
		return nil
	}
	return out
}

// gatedPlacement allows a pod with scheduling gates to add to the conditions for its node, and refuses any other change of
// them.
func (c *checker) gatedPlacement(old *corev1.PodSpec, p *field.Path) {
	for key, value := range old.NodeSelector {
		if now, kept := c.pod.Spec.NodeSelector[key]; !kept || now != value {
			c.invalid(p.Child("nodeSelector"), c.pod.Spec.NodeSelector,
				"only additions to spec.nodeSelector are allowed (no mutations or deletions)")
			break
		}
	}
	before, now := requiredNodeTerms(old.Affinity), requiredNodeTerms(c.pod.Spec.Affinity)
	path := p.Child("affinity", "nodeAffinity", requiredTerms, "nodeSelectorTerms")
	switch {
	case len(before) == 0:
	case len(before) != len(now):
		c.invalid(path, now, "no additions/deletions to non-empty NodeSelectorTerms list are allowed")
	default:
		for i := range before {
			if !narrows(&now[i], &before[i]) {
				c.invalid(path.Index(i), now[i], "only additions are allowed (no mutations or deletions)")
			}
		}
	}
}

func requiredNodeTerms(a *corev1.Affinity) []corev1.NodeSelectorTerm {
	if a == nil || a.NodeAffinity == nil || a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return nil
	}
	return a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
}

// narrows reports whether term only adds conditions to old. An empty term matches no node, so an addition to it would make
// it match more.
func narrows(term, old *corev1.NodeSelectorTerm) bool {
	if len(old.MatchExpressions)+len(old.MatchFields) == 0 {
		return len(term.MatchExpressions)+len(term.MatchFields) == 0
	}
	return hasPrefix(term.MatchExpressions, old.MatchExpressions) && hasPrefix(term.MatchFields, old.MatchFields)
}

func hasPrefix(list, prefix []corev1.NodeSelectorRequirement) bool {
	return len(list) >= len(prefix) && slices.EqualFunc(list[:len(prefix)], prefix,
		func(a, b corev1.NodeSelectorRequirement) bool { return equality.Semantic.DeepEqual(a, b) })
}

// Bounds in bytes: of the text of a difference, and of a spec that is compared in full. A full comparison takes much longer
// than validation.
const (
	maxDiff     = 8 << 10
	maxDiffSpec = 32 << 10
)

// specDiff returns the difference between two specs as text. The text is part of the refusal, and so of the audit log.
// Values that may be secrets (values of variables and headers, commands, options of drivers) are replaced by numbers that
// show only which of them are equal.
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

// changedFields returns the JSON names of the fields of the spec that differ.
func changedFields(old, updated *corev1.PodSpec) []string {
	var names []string
	a, b := reflect.ValueOf(*old), reflect.ValueOf(*updated)
	for i := range a.NumField() {
		if !equality.Semantic.DeepEqual(a.Field(i).Interface(), b.Field(i).Interface()) {
			names = append(names, "spec."+jsonName(a.Type().Field(i)))
		}
	}
	return names
}

// masks maps each value to a number of its own.
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

// spec returns a copy of spec with the values replaced that may be secrets.
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
