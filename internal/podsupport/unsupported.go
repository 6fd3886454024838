package podsupport

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"lanyard.dev/internal/podannotation"
)

// Unsupported returns an error for each field of the pod that the agent does not carry out. A pod with such a field must not
// be run: no field is ignored. A field that has no rule, for instance one of a newer API, is unsupported.
func Unsupported(pod *corev1.Pod) field.ErrorList {
	errs := walk(field.NewPath("spec"), reflect.ValueOf(pod.Spec))
	errs = append(errs, checkRestartPolicies(pod)...)
	errs = append(errs, checkPropagation(pod)...)
	errs = append(errs, checkSizes(pod)...)
	return append(errs, checkAnnotations(pod)...)
}

// Warnings returns the same as Unsupported, worded for whoever creates the pod. A pod that no Lanyard agent will run, since it
// stands for a process or is a kubelet's own static pod, has none.
func Warnings(pod *corev1.Pod) []string {
	if _, static := pod.Annotations[corev1.MirrorPodAnnotationKey]; static || podannotation.IsProcess(pod) {
		return nil
	}
	var all []string
	for _, err := range Unsupported(pod) {
		all = append(all, fmt.Sprintf("%s: the Lanyard agent will refuse to run this pod: %s", err.Field, err.Detail))
	}
	return all
}

// unsupported is the error of a field that is set, or set to this value, in vain.
func unsupported(path *field.Path, why string) *field.Error {
	return field.Forbidden(path, why)
}

// walk visits every field that is set, down to those of which a rule says that any value will do.
func walk(path *field.Path, v reflect.Value) field.ErrorList {
	switch v.Kind() {
	case reflect.Pointer:
		return walk(path, v.Elem())
	case reflect.Slice:
		var errs field.ErrorList
		for i := range v.Len() {
			errs = append(errs, walk(path.Index(i), v.Index(i))...)
		}
		return errs
	case reflect.Struct:
		return walkStruct(path, v)
	}
	return nil
}

func walkStruct(path *field.Path, v reflect.Value) field.ErrorList {
	var errs field.ErrorList
	for i := range v.NumField() {
		if unset(v.Field(i)) {
			continue
		}
		f := v.Type().Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous {
			errs = append(errs, walk(path, v.Field(i))...)
			continue
		}
		errs = append(errs, judge(path.Child(name), v.Type().Name()+"."+name, v.Field(i))...)
	}
	return errs
}

// unset says whether a field asks for nothing.
func unset(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Slice, reflect.Map:
		return v.Len() == 0
	}
	return v.IsZero()
}

// judge applies the rule of one field that is set.
func judge(path *field.Path, name string, v reflect.Value) field.ErrorList {
	if slices.Contains(taken, name) {
		return nil
	}
	if slices.Contains(entered, name) {
		return walk(path, v)
	}
	if allowed, ok := values[name]; ok {
		for v.Kind() == reflect.Pointer {
			v = v.Elem()
		}
		if text := fmt.Sprint(v.Interface()); !slices.Contains(allowed, text) {
			return field.ErrorList{unsupported(path, fmt.Sprintf("the agent does not support %q", text))}
		}
		return nil
	}
	if limited, ok := keys[name]; ok {
		return onlyKeys(path, v, limited)
	}
	return field.ErrorList{unsupported(path, "not supported by the agent")}
}

func onlyKeys(path *field.Path, v reflect.Value, allowed []string) field.ErrorList {
	var errs field.ErrorList
	set := map[string]bool{}
	for _, key := range v.MapKeys() {
		set[key.String()] = true
	}
	for _, key := range slices.Sorted(maps.Keys(set)) {
		if !slices.Contains(allowed, key) {
			errs = append(errs, unsupported(path.Key(key), "not supported by the agent"))
		}
	}
	return errs
}

// checkRestartPolicies allows a container's own policy where it makes a sidecar, and nowhere else.
func checkRestartPolicies(pod *corev1.Pod) field.ErrorList {
	var errs field.ErrorList
	for i, c := range pod.Spec.Containers {
		if c.RestartPolicy != nil {
			errs = append(errs, unsupported(field.NewPath("spec", "containers").Index(i).Child("restartPolicy"), "not supported by the agent"))
		}
	}
	for i, c := range pod.Spec.InitContainers {
		if c.RestartPolicy != nil && *c.RestartPolicy != corev1.ContainerRestartPolicyAlways {
			errs = append(errs, unsupported(field.NewPath("spec", "initContainers").Index(i).Child("restartPolicy"), "the agent supports no other than Always"))
		}
	}
	return errs
}

// checkPropagation refuses mounts that would reach the host from a container that is not privileged.
func checkPropagation(pod *corev1.Pod) field.ErrorList {
	var errs field.ErrorList
	check := func(path *field.Path, all []corev1.Container) {
		for i, c := range all {
			privileged := c.SecurityContext != nil && ptr.Deref(c.SecurityContext.Privileged, false)
			for j, m := range c.VolumeMounts {
				if m.MountPropagation != nil && *m.MountPropagation == corev1.MountPropagationBidirectional && !privileged {
					errs = append(errs, unsupported(path.Index(i).Child("volumeMounts").Index(j).Child("mountPropagation"),
						"Bidirectional mount propagation is available only to privileged containers"))
				}
			}
		}
	}
	check(field.NewPath("spec", "initContainers"), pod.Spec.InitContainers)
	check(field.NewPath("spec", "containers"), pod.Spec.Containers)
	return errs
}

// checkSizes allows a size where a mount enforces it: in memory.
func checkSizes(pod *corev1.Pod) field.ErrorList {
	var errs field.ErrorList
	for i, v := range pod.Spec.Volumes {
		if v.EmptyDir != nil && v.EmptyDir.SizeLimit != nil && v.EmptyDir.Medium != corev1.StorageMediumMemory {
			errs = append(errs, unsupported(field.NewPath("spec", "volumes").Index(i).Child("emptyDir", "sizeLimit"), "the agent supports it with medium Memory only"))
		}
	}
	return errs
}

func checkAnnotations(pod *corev1.Pod) field.ErrorList {
	text, ok := pod.Annotations[podannotation.OnRenew]
	if !ok {
		return nil
	}
	if _, err := podannotation.ParseNotice(text); err != nil {
		return field.ErrorList{unsupported(field.NewPath("metadata", "annotations").Key(podannotation.OnRenew), err.Error())}
	}
	return nil
}
