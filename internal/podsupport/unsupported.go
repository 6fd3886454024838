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

// notSupported is why a field is refused that is not in the table.
const notSupported = "not supported by the agent"

// Unsupported returns an error for each field of the pod that a Lanyard node does not implement. The agent must not run a pod
// with such a field: it never ignores a field. A field of a newer API is unsupported until it is declared.
func Unsupported(pod *corev1.Pod) field.ErrorList {
	var errs field.ErrorList
	walk(pod, func(path *field.Path, row *supported, value reflect.Value) {
		errs = append(errs, row.check(path, value)...)
	})
	errs = append(errs, checkPropagation(pod)...)
	errs = append(errs, checkSizes(pod)...)
	return append(errs, checkAnnotations(pod)...)
}

// Warnings returns a warning for each field of a new pod that has no effect: those for which the agent will refuse the pod, and
// those that the scheduler does not consider. The pod of a process and a kubelet's static pod run on no agent, and the
// scheduler does not place a pod that names its node or another scheduler.
func Warnings(pod *corev1.Pod) []string {
	if podannotation.IsProcess(pod) {
		return nil
	}
	var all []string
	if _, static := pod.Annotations[corev1.MirrorPodAnnotationKey]; !static {
		for _, err := range Unsupported(pod) {
			all = append(all, fmt.Sprintf("%s: the Lanyard agent will refuse to run this pod: %s", err.Field, err.Detail))
		}
	}
	if pod.Spec.NodeName != "" || pod.Spec.SchedulerName != corev1.DefaultSchedulerName {
		return all
	}
	walk(pod, func(path *field.Path, row *supported, _ reflect.Value) {
		if row != nil && row.by == notScheduled {
			all = append(all, path.String()+": the Lanyard scheduler does not consider it")
		}
	})
	return all
}

// visit is called for a field that is set, with its row of the table and its value. The row is nil if the table has none.
type visit func(path *field.Path, row *supported, value reflect.Value)

// walk visits the fields of the pod's spec that are set and are in the table. Of the other fields that are set, it visits only
// the topmost.
func walk(pod *corev1.Pod, visit visit) {
	walkValue(field.NewPath("spec"), "spec", reflect.ValueOf(pod.Spec), visit)
}

// walkValue walks what is below a field; name is the field's path in the table.
func walkValue(path *field.Path, name string, v reflect.Value, visit visit) {
	switch v.Kind() {
	case reflect.Pointer:
		walkValue(path, name, v.Elem(), visit)
	case reflect.Slice:
		for i := range v.Len() {
			walkValue(path.Index(i), name, v.Index(i), visit)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if !isUnset(v.Field(i)) {
				walkField(path, name, v.Type().Field(i), v.Field(i), visit)
			}
		}
	}
}

func walkField(path *field.Path, name string, f reflect.StructField, value reflect.Value, visit visit) {
	if f.Anonymous {
		walkValue(path, name, value, visit)
		return
	}
	child := jsonName(f)
	path, name = path.Child(child), name+"."+child
	if row, ok := declared().fields[name]; ok {
		visit(path, &row, value)
		return
	}
	if declared().above[name] {
		walkValue(path, name, value, visit)
		return
	}
	visit(path, nil, value)
}

func jsonName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return name
}

// isUnset reports whether a field has no effect: it is zero, or empty.
func isUnset(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Slice, reflect.Map:
		return v.Len() == 0
	}
	return v.IsZero()
}

// check returns the errors of a field that is set; row is nil for a field that is not in the table.
func (row *supported) check(path *field.Path, v reflect.Value) field.ErrorList {
	switch {
	case row == nil:
		return field.ErrorList{field.Forbidden(path, notSupported)}
	case row.values != nil:
		if text := fmt.Sprint(reflect.Indirect(v).Interface()); !slices.Contains(row.values, text) {
			return field.ErrorList{field.Forbidden(path, fmt.Sprintf("the agent does not support %q", text))}
		}
	case row.keys != nil:
		return checkKeys(path, v, row.keys)
	}
	return nil
}

func checkKeys(path *field.Path, v reflect.Value, supported []string) field.ErrorList {
	set := map[string]bool{}
	for _, key := range v.MapKeys() {
		set[key.String()] = true
	}
	var errs field.ErrorList
	for _, key := range slices.Sorted(maps.Keys(set)) {
		if !slices.Contains(supported, key) {
			errs = append(errs, field.Forbidden(path.Key(key), notSupported))
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
					errs = append(errs, field.Forbidden(path.Index(i).Child("volumeMounts").Index(j).Child("mountPropagation"),
						"Bidirectional mount propagation is available only to privileged containers"))
				}
			}
		}
	}
	check(field.NewPath("spec", "initContainers"), pod.Spec.InitContainers)
	check(field.NewPath("spec", "containers"), pod.Spec.Containers)
	return errs
}

// checkSizes refuses the size limit of a volume on disk: only the mount of a volume in memory enforces a limit.
func checkSizes(pod *corev1.Pod) field.ErrorList {
	var errs field.ErrorList
	for i, v := range pod.Spec.Volumes {
		if v.EmptyDir != nil && v.EmptyDir.SizeLimit != nil && v.EmptyDir.Medium != corev1.StorageMediumMemory {
			errs = append(errs, field.Forbidden(field.NewPath("spec", "volumes").Index(i).Child("emptyDir", "sizeLimit"), "the agent supports it with medium Memory only"))
		}
	}
	return errs
}

// checkAnnotations refuses an invalid annotation about the action after the renewal of a token.
func checkAnnotations(pod *corev1.Pod) field.ErrorList {
	text, ok := pod.Annotations[podannotation.OnRenew]
	if !ok {
		return nil
	}
	if _, err := podannotation.ParseNotice(text); err != nil {
		return field.ErrorList{field.Forbidden(field.NewPath("metadata", "annotations").Key(podannotation.OnRenew), err.Error())}
	}
	return nil
}
