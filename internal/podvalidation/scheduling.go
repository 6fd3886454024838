package podvalidation

import (
	"fmt"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func (c *checker) scheduling(p *field.Path) {
	spec := &c.pod.Spec
	c.labels(p.Child("nodeSelector"), spec.NodeSelector)
	if spec.Affinity != nil {
		c.affinity(spec.Affinity, p.Child("affinity"))
	}
	c.tolerations(spec.Tolerations, p.Child("tolerations"))
	c.spreadConstraints(spec.TopologySpreadConstraints, p.Child("topologySpreadConstraints"))
	seen := sets.New[string]()
	for i, gate := range spec.SchedulingGates {
		path := p.Child("schedulingGates").Index(i)
		c.invalid(path, gate.Name, validation.IsQualifiedName(gate.Name)...)
		c.unique(seen, path, gate.Name)
	}
}

func (c *checker) tolerations(list []corev1.Toleration, p *field.Path) {
	for i := range list {
		if c.full() {
			return
		}
		c.toleration(&list[i], p.Index(i))
	}
}

func (c *checker) toleration(t *corev1.Toleration, p *field.Path) {
	if t.Key != "" {
		c.add(metavalidation.ValidateLabelName(t.Key, p.Child("key"))...)
	} else if t.Operator != corev1.TolerationOpExists {
		c.invalid(p.Child("operator"), t.Operator,
			"operator must be Exists when `key` is empty, which means \"match all values and all keys\"")
	}
	if t.TolerationSeconds != nil && t.Effect != corev1.TaintEffectNoExecute {
		c.invalid(p.Child("effect"), t.Effect, "effect must be 'NoExecute' when `tolerationSeconds` is set")
	}
	switch t.Operator {
	case corev1.TolerationOpEqual, "":
		if why := validation.IsValidLabelValue(t.Value); len(why) > 0 {
			c.invalid(p.Child("operator"), t.Value, strings.Join(why, ";"))
		}
	case corev1.TolerationOpExists:
		if t.Value != "" {
			c.invalid(p.Child("operator"), t.Value, "value must be empty when `operator` is 'Exists'")
		}
	case corev1.TolerationOpLt, corev1.TolerationOpGt:
		if n, err := strconv.ParseInt(t.Value, 10, 64); err != nil || strconv.FormatInt(n, 10) != t.Value {
			c.invalid(p.Child("value"), t.Value, "must be a valid decimal integer in canonical form")
		}
	default:
		c.add(field.NotSupported(p.Child("operator"), t.Operator,
			[]corev1.TolerationOperator{corev1.TolerationOpEqual, corev1.TolerationOpExists}))
	}
	if t.Effect != "" {
		oneOf(&c.faults, p.Child("effect"), t.Effect, corev1.TaintEffectNoSchedule,
			corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectNoExecute)
	}
}

func (c *checker) spreadConstraints(list []corev1.TopologySpreadConstraint, p *field.Path) {
	seen := sets.New[string]()
	for i := range list {
		if c.full() {
			return
		}
		s, path := &list[i], p.Index(i)
		c.spreadConstraint(s, path)
		c.unique(seen, path.Child("{topologyKey, whenUnsatisfiable}"),
			fmt.Sprintf("{%v, %v}", s.TopologyKey, s.WhenUnsatisfiable))
	}
}

const notPositive = "must be greater than zero"

func (c *checker) spreadConstraint(s *corev1.TopologySpreadConstraint, p *field.Path) {
	if s.MaxSkew <= 0 {
		c.invalid(p.Child("maxSkew"), s.MaxSkew, notPositive)
	}
	if s.TopologyKey == "" {
		c.required(p.Child("topologyKey"), "can not be empty")
	}
	oneOf(&c.faults, p.Child("whenUnsatisfiable"), s.WhenUnsatisfiable, corev1.DoNotSchedule, corev1.ScheduleAnyway)
	if s.MinDomains != nil {
		if *s.MinDomains <= 0 {
			c.invalid(p.Child("minDomains"), *s.MinDomains, notPositive)
		}
		if s.WhenUnsatisfiable != corev1.DoNotSchedule {
			c.invalid(p.Child("minDomains"), *s.MinDomains,
				fmt.Sprintf("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not %s", s.WhenUnsatisfiable))
		}
	}
	for _, policy := range []struct {
		name  string
		value *corev1.NodeInclusionPolicy
	}{{"nodeAffinityPolicy", s.NodeAffinityPolicy}, {"nodeTaintsPolicy", s.NodeTaintsPolicy}} {
		optionalOneOf(&c.faults, p.Child(policy.name), policy.value,
			corev1.NodeInclusionPolicyHonor, corev1.NodeInclusionPolicyIgnore)
	}
	c.matchLabelKeys(p, s.MatchLabelKeys, nil, s.LabelSelector)
	c.selector(s.LabelSelector, p.Child("labelSelector"))
}

// The fields of an affinity for requirements and for preferences.
const (
	requiredTerms  = "requiredDuringSchedulingIgnoredDuringExecution"
	preferredTerms = "preferredDuringSchedulingIgnoredDuringExecution"
)

func (c *checker) affinity(a *corev1.Affinity, p *field.Path) {
	if a.NodeAffinity != nil {
		c.nodeAffinity(a.NodeAffinity, p.Child("nodeAffinity"))
	}
	if pa := a.PodAffinity; pa != nil {
		c.podTerms(pa.RequiredDuringSchedulingIgnoredDuringExecution,
			pa.PreferredDuringSchedulingIgnoredDuringExecution, p.Child("podAffinity"))
	}
	if pa := a.PodAntiAffinity; pa != nil {
		c.podTerms(pa.RequiredDuringSchedulingIgnoredDuringExecution,
			pa.PreferredDuringSchedulingIgnoredDuringExecution, p.Child("podAntiAffinity"))
	}
}

func (c *checker) nodeAffinity(a *corev1.NodeAffinity, p *field.Path) {
	if r := a.RequiredDuringSchedulingIgnoredDuringExecution; r != nil {
		path := p.Child(requiredTerms, "nodeSelectorTerms")
		if len(r.NodeSelectorTerms) == 0 {
			c.required(path, "must have at least one node selector term")
		}
		for i := range r.NodeSelectorTerms {
			c.nodeTerm(&r.NodeSelectorTerms[i], true, path.Index(i))
		}
	}
	for i := range a.PreferredDuringSchedulingIgnoredDuringExecution {
		term, path := &a.PreferredDuringSchedulingIgnoredDuringExecution[i], p.Child(preferredTerms).Index(i)
		c.weight(path.Child("weight"), term.Weight)
		c.nodeTerm(&term.Preference, false, path.Child("preference"))
	}
}

func (c *checker) weight(p *field.Path, weight int32) {
	if weight < 1 || weight > 100 {
		c.invalid(p, weight, "must be in the range 1-100")
	}
}

// nodeTerm checks a term of a node selector. Values of labels are checked only in requirements, as in Kubernetes: a
// preference for a value that no label can have is harmless.
func (c *checker) nodeTerm(term *corev1.NodeSelectorTerm, required bool, p *field.Path) {
	for i := range term.MatchExpressions {
		c.nodeExpression(&term.MatchExpressions[i], required, p.Child("matchExpressions").Index(i))
	}
	for i := range term.MatchFields {
		c.nodeField(&term.MatchFields[i], p.Child("matchFields").Index(i))
	}
}

func (c *checker) nodeExpression(r *corev1.NodeSelectorRequirement, required bool, p *field.Path) {
	values := p.Child("values")
	switch r.Operator {
	case corev1.NodeSelectorOpIn, corev1.NodeSelectorOpNotIn:
		if len(r.Values) == 0 {
			c.required(values, "must be specified when `operator` is 'In' or 'NotIn'")
		}
	case corev1.NodeSelectorOpExists, corev1.NodeSelectorOpDoesNotExist:
		if len(r.Values) > 0 {
			c.forbidden(values, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'")
		}
	case corev1.NodeSelectorOpGt, corev1.NodeSelectorOpLt:
		if len(r.Values) != 1 {
			c.required(values, "must be specified single value when `operator` is 'Lt' or 'Gt'")
		}
	default:
		c.invalid(p.Child("operator"), r.Operator, "not a valid selector operator")
	}
	c.add(metavalidation.ValidateLabelName(r.Key, p.Child("key"))...)
	for i, value := range r.Values {
		if required {
			c.invalid(values.Index(i), value, validation.IsValidLabelValue(value)...)
		}
	}
}

// nodeField checks a requirement on a field of the node. The only such field is metadata.name.
func (c *checker) nodeField(r *corev1.NodeSelectorRequirement, p *field.Path) {
	switch r.Operator {
	case corev1.NodeSelectorOpIn, corev1.NodeSelectorOpNotIn:
		if len(r.Values) != 1 {
			c.required(p.Child("values"), "must be only one value when `operator` is 'In' or 'NotIn' for node field selector")
		}
	default:
		c.invalid(p.Child("operator"), r.Operator, "not a valid selector operator")
	}
	if r.Key != metav1.ObjectNameField {
		c.invalid(p.Child("key"), r.Key, "not a valid field selector key")
		return
	}
	for i, value := range r.Values {
		c.subdomain(p.Child("values").Index(i), value)
	}
}

func (c *checker) podTerms(required []corev1.PodAffinityTerm, preferred []corev1.WeightedPodAffinityTerm, p *field.Path) {
	for i := range required {
		c.podTerm(&required[i], p.Child(requiredTerms).Index(i))
	}
	for i := range preferred {
		path := p.Child(preferredTerms).Index(i)
		c.weight(path.Child("weight"), preferred[i].Weight)
		c.podTerm(&preferred[i].PodAffinityTerm, path.Child("podAffinityTerm"))
	}
}

func (c *checker) podTerm(term *corev1.PodAffinityTerm, p *field.Path) {
	if c.full() {
		return
	}
	c.selector(term.LabelSelector, p.Child("labelSelector"))
	c.selector(term.NamespaceSelector, p.Child("namespaceSelector"))
	for _, name := range term.Namespaces {
		c.invalid(p.Child("namespace"), name, apivalidation.ValidateNamespaceName(name, false)...)
	}
	c.matchLabelKeys(p, term.MatchLabelKeys, term.MismatchLabelKeys, term.LabelSelector)
	if term.TopologyKey == "" {
		c.required(p.Child("topologyKey"), "can not be empty")
	}
	c.add(metavalidation.ValidateLabelName(term.TopologyKey, p.Child("topologyKey"))...)
}

// matchLabelKeys checks the keys of labels whose values are taken from the pod's own labels.
func (c *checker) matchLabelKeys(p *field.Path, match, mismatch []string, s *metav1.LabelSelector) {
	c.labelKeys(match, s, p.Child("matchLabelKeys"))
	c.labelKeys(mismatch, s, p.Child("mismatchLabelKeys"))
	selected, excluded := selectorKeys(s), sets.New(mismatch...)
	for i, key := range match {
		if selected.Has(key) {
			c.invalid(p.Child("matchLabelKeys").Index(i), key, "exists in both matchLabelKeys and labelSelector")
		}
		if excluded.Has(key) {
			c.invalid(p.Child("matchLabelKeys").Index(i), key, "exists in both matchLabelKeys and mismatchLabelKeys")
		}
	}
}

func (c *checker) labelKeys(keys []string, s *metav1.LabelSelector, p *field.Path) {
	if len(keys) > 0 && s == nil {
		c.forbidden(p, "must not be specified when labelSelector is not set")
		return
	}
	for i, key := range keys {
		c.add(metavalidation.ValidateLabelName(key, p.Index(i))...)
	}
}

func selectorKeys(s *metav1.LabelSelector) sets.Set[string] {
	keys := sets.New[string]()
	if s == nil {
		return keys
	}
	for key := range s.MatchLabels {
		keys.Insert(key)
	}
	for i := range s.MatchExpressions {
		keys.Insert(s.MatchExpressions[i].Key)
	}
	return keys
}
