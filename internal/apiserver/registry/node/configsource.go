package node

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const oneReference = "exactly one reference subfield must be non-nil"

// validateConfigSource checks a field that nothing reads any more, so that old manifests fail as they always did. The
// spec names a config map; which object that was is for the status to say.
func validateConfigSource(source *corev1.NodeConfigSource, path *field.Path) field.ErrorList {
	if source == nil {
		return nil
	}
	if source.ConfigMap == nil {
		return field.ErrorList{field.Invalid(path, source, oneReference)}
	}
	var errs field.ErrorList
	at := path.Child("configMap")
	if source.ConfigMap.UID != "" {
		errs = append(errs, field.Forbidden(at.Child("uid"), "uid must not be set in spec"))
	}
	if source.ConfigMap.ResourceVersion != "" {
		errs = append(errs, field.Forbidden(at.Child("resourceVersion"), "resourceVersion must not be set in spec"))
	}
	return append(errs, validateConfigMapRef(source.ConfigMap, at)...)
}

func validateConfigStatus(status *corev1.NodeConfigStatus, path *field.Path) field.ErrorList {
	if status == nil {
		return nil
	}
	errs := validateConfigUsed(status.Assigned, path.Child("assigned"))
	errs = append(errs, validateConfigUsed(status.Active, path.Child("active"))...)
	return append(errs, validateConfigUsed(status.LastKnownGood, path.Child("lastKnownGood"))...)
}

func validateConfigUsed(source *corev1.NodeConfigSource, path *field.Path) field.ErrorList {
	if source == nil {
		return nil
	}
	if source.ConfigMap == nil {
		return field.ErrorList{field.Invalid(path, source, oneReference)}
	}
	var errs field.ErrorList
	at := path.Child("configMap")
	if source.ConfigMap.UID == "" {
		errs = append(errs, field.Required(at.Child("uid"), "uid must be set in status"))
	}
	if source.ConfigMap.ResourceVersion == "" {
		errs = append(errs, field.Required(at.Child("resourceVersion"), "resourceVersion must be set in status"))
	}
	return append(errs, validateConfigMapRef(source.ConfigMap, at)...)
}

func validateConfigMapRef(ref *corev1.ConfigMapNodeConfigSource, path *field.Path) field.ErrorList {
	isNamespace := func(s string) []string { return validation.ValidateNamespaceName(s, false) }
	isName := func(s string) []string { return validation.NameIsDNSSubdomain(s, false) }
	errs := validateSet(path, "namespace", ref.Namespace, isNamespace)
	errs = append(errs, validateSet(path, "name", ref.Name, isName)...)
	return append(errs, validateSet(path, "kubeletConfigKey", ref.KubeletConfigKey, utilvalidation.IsConfigMapKey)...)
}

func validateSet(path *field.Path, name, value string, faults func(string) []string) field.ErrorList {
	if value == "" {
		return field.ErrorList{field.Required(path.Child(name), name+" must be set")}
	}
	var errs field.ErrorList
	for _, msg := range faults(value) {
		errs = append(errs, field.Invalid(path.Child(name), value, msg))
	}
	return errs
}
