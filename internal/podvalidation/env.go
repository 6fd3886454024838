package podvalidation

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func (c *checker) env(vars []corev1.EnvVar, p *field.Path) {
	for i := range vars {
		v, path := &vars[i], p.Index(i)
		if v.Name == "" {
			c.required(path.Child("name"), "")
		} else {
			c.invalid(path.Child("name"), v.Name, validation.IsRelaxedEnvVarName(v.Name)...)
		}
		if v.ValueFrom != nil {
			c.envSource(v, path.Child("valueFrom"))
		}
	}
}

// envSource checks the source of a variable. Its faults do not contain the variable's value, which may be a secret.
func (c *checker) envSource(v *corev1.EnvVar, p *field.Path) {
	from, sources := v.ValueFrom, 0
	if from.FieldRef != nil {
		sources++
		c.fieldRef(from.FieldRef, envFields, p.Child("fieldRef"))
	}
	if from.ResourceFieldRef != nil {
		sources++
		c.resourceFieldRef(from.ResourceFieldRef, false, p.Child("resourceFieldRef"))
	}
	if ref := from.ConfigMapKeyRef; ref != nil {
		sources++
		c.keyRef(ref.Name, ref.Key, p.Child("configMapKeyRef"))
	}
	if ref := from.SecretKeyRef; ref != nil {
		sources++
		c.keyRef(ref.Name, ref.Key, p.Child("secretKeyRef"))
	}
	if from.FileKeyRef != nil {
		sources++
		c.fileKeyRef(from.FileKeyRef, p.Child("fileKeyRef"))
	}
	switch {
	case sources == 0:
		c.invalid(p, "", "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`")
	case v.Value != "":
		c.invalid(p, "", "may not be specified when `value` is not empty")
	case sources > 1:
		c.invalid(p, "", "may not have more than one field specified at a time")
	}
}

func (c *checker) keyRef(name, key string, p *field.Path) {
	c.subdomain(p.Child("name"), name)
	if key == "" {
		c.required(p.Child("key"), "")
		return
	}
	c.invalid(p.Child("key"), key, validation.IsConfigMapKey(key)...)
}

// maxFileKey is the longest key, in bytes, that a node looks up in an environment file.
const maxFileKey = 128

func (c *checker) fileKeyRef(ref *corev1.FileKeySelector, p *field.Path) {
	if ref.Key == "" {
		c.required(p.Child("key"), "")
	} else {
		c.invalid(p.Child("key"), ref.Key, validation.IsRelaxedEnvVarName(ref.Key)...)
		if len(ref.Key) > maxFileKey {
			c.add(field.TooLong(p.Child("key"), "", maxFileKey))
		}
	}
	c.notEmpty(p.Child("path"), ref.Path)
	c.localPath(p.Child("path"), ref.Path)
	if ref.VolumeName == "" {
		c.required(p.Child("volumeName"), "")
		return
	}
	switch source, found := c.volumes[ref.VolumeName]; {
	case !found:
		c.add(field.NotFound(p.Child("volumeName"), ref.VolumeName))
	case source.EmptyDir == nil:
		c.invalid(p.Child("volumeName"), ref.VolumeName, "referenced volume must be of type emptyDir")
	}
}

func (c *checker) envFrom(list []corev1.EnvFromSource, p *field.Path) {
	for i := range list {
		from, path, sources := &list[i], p.Index(i), 0
		if from.Prefix != "" {
			c.invalid(path.Child("prefix"), from.Prefix, validation.IsRelaxedEnvVarName(from.Prefix)...)
		}
		if from.ConfigMapRef != nil {
			sources++
			c.requiredSubdomain(path.Child("configMapRef", "name"), from.ConfigMapRef.Name)
		}
		if from.SecretRef != nil {
			sources++
			c.requiredSubdomain(path.Child("secretRef", "name"), from.SecretRef.Name)
		}
		switch sources {
		case 0:
			c.invalid(p, "", "must specify one of: `configMapRef` or `secretRef`")
		case 2:
			c.invalid(p, "", "may not have more than one field specified at a time")
		}
	}
}

// The fields of a pod that the downward API provides: as a variable (envFields), as a file (volumeFields), and all fields
// that Kubernetes knows by name (podFields).
var (
	envFields = []string{"metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName",
		"spec.serviceAccountName", "status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs"}
	volumeFields = []string{"metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"}
	podFields    = []string{"metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid",
		"spec.nodeName", "spec.restartPolicy", "spec.serviceAccountName", "spec.schedulerName", "status.phase",
		"status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs", "spec.host"}
)

func (c *checker) fieldRef(ref *corev1.ObjectFieldSelector, allowed []string, p *field.Path) {
	if ref.APIVersion == "" {
		c.required(p.Child("apiVersion"), "")
		return
	}
	if ref.FieldPath == "" {
		c.required(p.Child("fieldPath"), "")
		return
	}
	path, key, subscripted := subscript(ref.FieldPath)
	if why := unknownField(ref, path, subscripted); why != "" {
		c.invalid(p.Child("fieldPath"), ref.FieldPath, "error converting fieldPath: "+why)
		return
	}
	switch {
	case !subscripted:
		oneOf(&c.faults, p.Child("fieldPath"), currentName(path), allowed...)
	case path == "metadata.annotations":
		key = strings.ToLower(key)
		c.invalid(p, key, validation.IsQualifiedName(key)...)
	default:
		c.invalid(p, key, validation.IsQualifiedName(key)...)
	}
}

// unknownField returns why a pod of the version of ref has no such field, or "" if it has.
func unknownField(ref *corev1.ObjectFieldSelector, path string, subscripted bool) string {
	switch {
	case ref.APIVersion != "v1":
		return "unsupported pod version: " + ref.APIVersion
	case subscripted && path != "metadata.annotations" && path != "metadata.labels":
		return "field label does not support subscript: " + ref.FieldPath
	case !subscripted && !slices.Contains(podFields, path):
		return "field label not supported: " + ref.FieldPath
	}
	return ""
}

// currentName returns the present name of a field that was renamed.
func currentName(path string) string {
	if path == "spec.host" {
		return "spec.nodeName"
	}
	return path
}

// subscript splits a field path such as metadata.labels['app'] into the path and the key.
func subscript(fieldPath string) (path, key string, ok bool) {
	inner, found := strings.CutSuffix(fieldPath, "']")
	if !found {
		return fieldPath, "", false
	}
	path, key, found = strings.Cut(inner, "['")
	if !found || path == "" {
		return fieldPath, "", false
	}
	return path, key, true
}

var (
	containerResourceFields = []string{"limits.cpu", "limits.ephemeral-storage", "limits.memory",
		"requests.cpu", "requests.ephemeral-storage", "requests.memory"}
	cpuDivisors  = []string{"1m", "1"}
	byteDivisors = []string{"1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"}
)

func (c *checker) resourceFieldRef(ref *corev1.ResourceFieldSelector, needsContainer bool, p *field.Path) {
	switch {
	case needsContainer && ref.ContainerName == "":
		c.required(p.Child("containerName"), "")
	case ref.Resource == "":
		c.required(p.Child("resource"), "")
	case !isHugePageField(ref.Resource):
		oneOf(&c.faults, p.Child("resource"), ref.Resource, containerResourceFields...)
	}
	c.divisor(ref.Resource, ref.Divisor, p.Child("divisor"))
}

func isHugePageField(name string) bool {
	return strings.HasPrefix(name, "limits.hugepages-") || strings.HasPrefix(name, "requests.hugepages-")
}

func (c *checker) divisor(name string, divisor resource.Quantity, p *field.Path) {
	if divisor.IsZero() {
		return
	}
	_, kind, _ := strings.Cut(name, ".")
	label, allowed := kind, byteDivisors
	switch {
	case kind == "cpu":
		allowed = cpuDivisors
	case kind == "memory":
	case kind == "ephemeral-storage":
		label = "local ephemeral storage"
	case strings.HasPrefix(kind, corev1.ResourceHugePagesPrefix):
		label = "hugepages"
	default:
		return
	}
	if slices.Contains(allowed, divisor.String()) {
		return
	}
	list := strings.Join(allowed, ", ")
	if kind == "cpu" {
		list = "1m and 1"
	}
	c.invalid(p, name, fmt.Sprintf("only divisor's values %s are supported with the %s resource", list, label))
}
