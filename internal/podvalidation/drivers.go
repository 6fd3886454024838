package podvalidation

import (
	"fmt"
	"iter"
	"maps"
	"net"
	"path"
	"reflect"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// otherSource checks a source that the agent does not support (package podsupport): a claim, an image or the volume of a
// storage driver. A kubelet may run such a pod, and checks the rest. The fields that the API requires must be set, and a
// few values are checked as in Kubernetes.
func (c *checker) otherSource(v *corev1.Volume, source reflect.Value, p *field.Path) {
	c.requiredFields(source, p)
	switch s := source.Interface().(type) {
	case *corev1.NFSVolumeSource:
		if !path.IsAbs(s.Path) {
			c.invalid(p.Child("path"), s.Path, "must be an absolute path")
		}
	case *corev1.CSIVolumeSource:
		c.csi(s, p)
	case *corev1.EphemeralVolumeSource:
		c.ephemeral(v, p)
	case *corev1.ImageVolumeSource:
		c.notEmpty(p.Child("reference"), s.Reference)
		requireOneOf(&c.faults, p.Child("pullPolicy"), s.PullPolicy,
			corev1.PullAlways, corev1.PullIfNotPresent, corev1.PullNever)
	case *corev1.GitRepoVolumeSource:
		c.descendingPath(p.Child("directory"), s.Directory)
	case *corev1.ISCSIVolumeSource:
		if s.IQN != "" {
			c.iscsiName(p.Child("iqn"), s.IQN)
		}
	case *corev1.FCVolumeSource:
		c.fibreChannel(s, p)
	case *corev1.AzureDiskVolumeSource:
		c.azureDisk(s, p)
	case *corev1.QuobyteVolumeSource:
		c.quobyte(s, p)
	case *corev1.FlexVolumeSource:
		c.flexVolume(s, p)
	}
}

// requiredFields refuses a source with an empty string or an empty list in a field that the API requires. The tag of such a
// field has no omitempty.
func (c *checker) requiredFields(source reflect.Value, p *field.Path) {
	source = reflect.Indirect(source)
	for i := range source.NumField() {
		name, options, _ := strings.Cut(source.Type().Field(i).Tag.Get("json"), ",")
		value := source.Field(i)
		if kind := value.Kind(); (kind == reflect.String || kind == reflect.Slice) && value.Len() == 0 && !strings.Contains(options, "omitempty") {
			c.required(p.Child(name), "")
		}
	}
}

// setField is the JSON name of a field, and whether the field is set.
type setField struct {
	name string
	set  bool
}

// setFields yields the JSON name and the value of each field that is set in the struct that s points to. An empty list is
// not set.
func setFields(s any) iter.Seq2[string, reflect.Value] {
	return func(yield func(string, reflect.Value) bool) {
		v := reflect.ValueOf(s).Elem()
		for i := range v.NumField() {
			value := v.Field(i)
			if value.IsZero() || value.Kind() == reflect.Slice && value.Len() == 0 {
				continue
			}
			if !yield(jsonName(v.Type().Field(i)), value) {
				return
			}
		}
	}
}

func jsonName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return name
}

// Names of iSCSI nodes, by the naming format (RFC 7143).
var iscsiNames = map[string]*regexp.Regexp{
	"iqn": regexp.MustCompile(`iqn\.\d{4}-\d{2}\.([[:alnum:]-.]+)(:[^,;*&$|\s]+)$`),
	"eui": regexp.MustCompile(`^eui.[[:alnum:]]{16}$`),
	"naa": regexp.MustCompile(`^naa.[[:alnum:]]{32}$`),
}

func (c *checker) iscsiName(p *field.Path, name string) {
	form, known := iscsiNames[name[:min(3, len(name))]]
	switch {
	case !known:
		c.invalid(p, name, "must be valid format starting with iqn, eui, or naa")
	case !form.MatchString(name):
		c.invalid(p, name, "must be valid format")
	}
}

func (c *checker) fibreChannel(fc *corev1.FCVolumeSource, p *field.Path) {
	switch {
	case len(fc.TargetWWNs) == 0 && len(fc.WWIDs) == 0:
		c.required(p.Child("targetWWNs"), "must specify either targetWWNs or wwids, but not both")
	case len(fc.TargetWWNs) > 0 && len(fc.WWIDs) > 0:
		c.invalid(p.Child("targetWWNs"), fc.TargetWWNs, "targetWWNs and wwids can not be specified simultaneously")
	case len(fc.TargetWWNs) > 0 && fc.Lun == nil:
		c.required(p.Child("lun"), "lun is required if targetWWNs is specified")
	}
}

func (c *checker) azureDisk(disk *corev1.AzureDiskVolumeSource, p *field.Path) {
	if disk.Kind == nil {
		return
	}
	scheme, form := "https://", "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd"
	if *disk.Kind == corev1.AzureManagedDisk {
		scheme = "/subscriptions/"
		form = "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}"
	}
	if !strings.HasPrefix(disk.DataDiskURI, scheme) {
		c.add(field.NotSupported(p.Child("diskURI"), disk.DataDiskURI, []string{form}))
	}
}

func (c *checker) quobyte(q *corev1.QuobyteVolumeSource, p *field.Path) {
	for pair := range strings.SplitSeq(q.Registry, ",") {
		if _, _, err := net.SplitHostPort(pair); err != nil && q.Registry != "" {
			c.invalid(p.Child("registry"), q.Registry, "must be a host:port pair or multiple pairs separated by commas")
			return
		}
	}
}

func (c *checker) flexVolume(f *corev1.FlexVolumeSource, p *field.Path) {
	for _, key := range slices.Sorted(maps.Keys(f.Options)) {
		namespace, _, _ := strings.Cut(key, "/")
		namespace = "." + strings.ToLower(namespace)
		if strings.HasSuffix(namespace, ".kubernetes.io") || strings.HasSuffix(namespace, ".k8s.io") {
			c.invalid(p.Child("options").Key(key), key, "kubernetes.io and k8s.io namespaces are reserved")
		}
	}
}

const maxDriverName = 63

func (c *checker) csi(v *corev1.CSIVolumeSource, p *field.Path) {
	if len(v.Driver) > maxDriverName {
		c.add(field.TooLong(p.Child("driver"), "", maxDriverName))
	}
	c.invalid(p.Child("driver"), v.Driver, validation.IsDNS1123Subdomain(strings.ToLower(v.Driver))...)
	if v.NodePublishSecretRef != nil {
		c.requiredSubdomain(p.Child("nodePublishSecretRef", "name"), v.NodePublishSecretRef.Name)
	}
}

func (c *checker) ephemeral(v *corev1.Volume, p *field.Path) {
	template := v.Ephemeral.VolumeClaimTemplate
	if template == nil {
		c.required(p.Child("volumeClaimTemplate"), "")
	} else {
		c.claimTemplate(template, p.Child("volumeClaimTemplate"))
	}
	if c.pod.Name == "" || v.Name == "" {
		return
	}
	claim := c.pod.Name + "-" + v.Name
	for _, why := range validation.IsDNS1123Subdomain(claim) {
		c.invalid(p.Child("name"), v.Name, fmt.Sprintf("PVC name %q: %v", claim, why))
	}
}

func (c *checker) claimTemplate(t *corev1.PersistentVolumeClaimTemplate, p *field.Path) {
	c.labels(p.Child("metadata", "labels"), t.Labels)
	meta := t.ObjectMeta
	for _, f := range []setField{
		{"name", meta.Name != ""},
		{"generateName", meta.GenerateName != ""},
		{"namespace", meta.Namespace != ""},
		{"finalizers", len(meta.Finalizers) > 0},
		{"ownerReferences", len(meta.OwnerReferences) > 0},
	} {
		if f.set {
			c.forbidden(p.Child("metadata", f.name), "cannot be set")
		}
	}
	c.claimSpec(&t.Spec, p.Child("spec"))
}

func (c *checker) claimSpec(spec *corev1.PersistentVolumeClaimSpec, p *field.Path) {
	if len(spec.AccessModes) == 0 {
		c.required(p.Child("accessModes"), "at least 1 access mode is required")
	}
	for _, mode := range spec.AccessModes {
		oneOf(&c.faults, p.Child("accessModes"), mode, corev1.ReadOnlyMany, corev1.ReadWriteMany,
			corev1.ReadWriteOnce, corev1.ReadWriteOncePod)
	}
	if len(spec.AccessModes) > 1 && slices.Contains(spec.AccessModes, corev1.ReadWriteOncePod) {
		c.forbidden(p.Child("accessModes"), "may not use ReadWriteOncePod with other access modes")
	}
	if size, ok := spec.Resources.Requests[corev1.ResourceStorage]; !ok {
		c.required(p.Child("resources").Key(string(corev1.ResourceStorage)), "")
	} else if size.Sign() <= 0 {
		c.invalid(p.Child("resources").Key(string(corev1.ResourceStorage)), size.String(), "must be greater than zero")
	}
	if spec.StorageClassName != nil {
		c.optionalSubdomain(p.Child("storageClassName"), *spec.StorageClassName)
	}
	optionalOneOf(&c.faults, p.Child("volumeMode"), spec.VolumeMode,
		corev1.PersistentVolumeBlock, corev1.PersistentVolumeFilesystem)
}
