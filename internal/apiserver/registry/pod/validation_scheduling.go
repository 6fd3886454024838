package pod

import (
	"fmt"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
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
		c.once(seen, path, gate.Name)
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
		c.once(seen, path.Child("{topologyKey, whenUnsatisfiable}"),
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
