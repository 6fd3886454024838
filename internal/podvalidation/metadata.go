package podvalidation

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"lanyard.dev/internal/podannotation"
)

func (c *checker) metadata(p *field.Path) {
	c.add(apivalidation.ValidateObjectMeta(&c.pod.ObjectMeta, true, apivalidation.NameIsDNSSubdomain, p)...)
	c.finalizers(p.Child("finalizers"))
	c.annotations(p.Child("annotations"))
}

func (c *checker) finalizers(p *field.Path) {
	for i, name := range c.pod.Finalizers {
		switch name {
		case string(corev1.FinalizerKubernetes), metav1.FinalizerOrphanDependents, metav1.FinalizerDeleteDependents:
			continue
		}
		if !strings.Contains(name, "/") {
			c.invalid(p.Index(i), name, "name is neither a standard finalizer name nor is it fully qualified")
		}
	}
}

func (c *checker) annotations(p *field.Path) {
	annotations := c.pod.Annotations
	if value, mirror := annotations[corev1.MirrorPodAnnotationKey]; mirror && c.pod.Spec.NodeName == "" {
		c.invalid(p.Key(corev1.MirrorPodAnnotationKey), value, "must set spec.nodeName if mirror pod annotation is set")
	}
	if value := annotations[corev1.TolerationsAnnotationKey]; value != "" {
		c.tolerationsAnnotation(value, p)
	}
	if value, ok := annotations[corev1.PodDeletionCost]; ok && !isDeletionCost(value) {
		c.invalid(p.Key(corev1.PodDeletionCost), value, "must be a 32bit integer")
	}
	if value, ok := annotations[podannotation.Lease]; ok && podannotation.IsProcess(c.pod) {
		if _, err := podannotation.ParseLease(value); err != nil {
			c.invalid(p.Key(podannotation.Lease), value, err.Error())
		}
	}
	for _, key := range slices.Sorted(maps.Keys(annotations)) {
		value := annotations[key]
		switch name, isAppArmor := strings.CutPrefix(key, corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix); {
		case isAppArmor:
			c.appArmorAnnotation(name, value, p.Key(key))
		case key == corev1.SeccompPodAnnotationKey, strings.HasPrefix(key, corev1.SeccompContainerAnnotationKeyPrefix):
			c.seccompAnnotation(value, p.Child(key))
		}
	}
}

func (c *checker) tolerationsAnnotation(value string, p *field.Path) {
	var list []corev1.Toleration
	if err := json.Unmarshal([]byte(value), &list); err != nil {
		c.invalid(p, corev1.TolerationsAnnotationKey, err.Error())
		return
	}
	c.tolerations(list, p.Child(corev1.TolerationsAnnotationKey))
}

// isDeletionCost reports whether value is a 32-bit integer without a plus sign and leading zeros.
func isDeletionCost(value string) bool {
	cost, err := strconv.ParseInt(value, 10, 32)
	return err == nil && strconv.FormatInt(cost, 10) == value
}

func (c *checker) seccompAnnotation(value string, p *field.Path) {
	switch value {
	case corev1.SeccompProfileRuntimeDefault, corev1.DeprecatedSeccompProfileDockerDefault, corev1.SeccompProfileNameUnconfined:
		return
	}
	file, local := strings.CutPrefix(value, corev1.SeccompLocalhostProfileNamePrefix)
	if !local {
		c.invalid(p, value, "must be a valid seccomp profile")
		return
	}
	c.descendingPath(p, file)
}

func (c *checker) appArmorAnnotation(container, value string, p *field.Path) {
	if !c.hasContainer(container) {
		c.invalid(p, container, "container not found")
	}
	switch value {
	case "", corev1.DeprecatedAppArmorBetaProfileRuntimeDefault, corev1.DeprecatedAppArmorBetaProfileNameUnconfined:
		return
	}
	if !strings.HasPrefix(value, corev1.DeprecatedAppArmorBetaProfileNamePrefix) {
		c.invalid(p, value, fmt.Sprintf("invalid AppArmor profile name: %q", value))
	}
}

func (c *checker) hasContainer(name string) bool {
	named := func(x corev1.Container) bool { return x.Name == name }
	return slices.ContainsFunc(c.pod.Spec.Containers, named) || slices.ContainsFunc(c.pod.Spec.InitContainers, named)
}

// profileAnnotationsMatch refuses a pod whose deprecated seccomp and AppArmor annotations contradict its fields.
func (c *checker) profileAnnotationsMatch(p *field.Path) {
	spec := &c.pod.Spec
	var podAppArmor *corev1.AppArmorProfile
	if sc := spec.SecurityContext; sc != nil {
		podAppArmor = sc.AppArmorProfile
		c.seccompMatches(corev1.SeccompPodAnnotationKey, sc.SeccompProfile, p.Child("securityContext", "seccompProfile"))
	}
	windows := spec.OS != nil && spec.OS.Name == corev1.Windows
	c.eachContainer(p, func(ctr *corev1.Container, path *field.Path) {
		path = path.Child("securityContext")
		appArmor := podAppArmor
		if sc := ctr.SecurityContext; sc != nil {
			c.seccompMatches(corev1.SeccompContainerAnnotationKeyPrefix+ctr.Name, sc.SeccompProfile, path.Child("seccompProfile"))
			if sc.AppArmorProfile != nil {
				appArmor = sc.AppArmorProfile
			}
		}
		if appArmor != nil && !windows {
			key := corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix + ctr.Name
			c.profileMatches("apparmor", key, string(appArmor.Type), appArmor.LocalhostProfile, path.Child("appArmorProfile"))
		}
	})
}

func (c *checker) seccompMatches(key string, profile *corev1.SeccompProfile, p *field.Path) {
	if profile != nil {
		c.profileMatches("seccomp", key, string(profile.Type), profile.LocalhostProfile, p)
	}
}

// profileMatches compares an annotation with a profile field, if the annotation is set. kind is "seccomp" or "apparmor";
// both have the same three types.
func (c *checker) profileMatches(kind, key, profileType string, file *string, p *field.Path) {
	value, set := c.pod.Annotations[key]
	if !set {
		return
	}
	ok := true
	switch profileType {
	case string(corev1.SeccompProfileTypeUnconfined):
		ok = value == corev1.SeccompProfileNameUnconfined
	case string(corev1.SeccompProfileTypeRuntimeDefault):
		ok = value == corev1.SeccompProfileRuntimeDefault ||
			kind == "seccomp" && value == corev1.DeprecatedSeccompProfileDockerDefault
	case string(corev1.SeccompProfileTypeLocalhost):
		var name string
		if name, ok = strings.CutPrefix(value, corev1.SeccompLocalhostProfileNamePrefix); ok && (file == nil || *file != name) {
			c.forbidden(p.Child("localhostProfile"), kind+" profile in annotation and field must match")
		}
	}
	if !ok {
		c.forbidden(p.Child("type"), kind+" type in annotation and field must match")
	}
}
