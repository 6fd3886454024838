package podvalidation

import (
	"fmt"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// allVolumes checks the pod's volumes and enters the sound ones into c.volumes, where mounts look for them.
func (c *checker) allVolumes(p *field.Path) {
	volumes, names := c.pod.Spec.Volumes, sets.New[string]()
	created := c.createdClaims()
	for i := range volumes {
		v, path := &volumes[i], p.Index(i)
		before := len(c.list)
		c.volumeSource(v, path)
		if v.Name == "" {
			c.required(path.Child("name"), "")
		} else {
			c.label(path.Child("name"), v.Name)
		}
		if names.Has(v.Name) {
			c.add(field.Duplicate(path.Child("name"), v.Name))
		}
		if len(c.list) == before {
			names.Insert(v.Name)
			c.volumes[v.Name] = &v.VolumeSource
		}
		if claim := v.PersistentVolumeClaim; claim != nil && created.Has(claim.ClaimName) {
			c.invalid(path.Child("persistentVolumeClaim", "claimName"), claim.ClaimName,
				"must not reference a PVC that gets created for an ephemeral volume")
		}
	}
}

// createdClaims names the claims that come into being with the pod's ephemeral volumes.
func (c *checker) createdClaims() sets.Set[string] {
	names := sets.New[string]()
	for i := range c.pod.Spec.Volumes {
		if v := &c.pod.Spec.Volumes[i]; v.Ephemeral != nil && c.pod.Name != "" {
			names.Insert(c.pod.Name + "-" + v.Name)
		}
	}
	return names
}

// sourceCheck is one kind of volume: its field, whether the volume at hand is of that kind, and what must hold then.
type sourceCheck struct {
	field string
	set   bool
	check func(*field.Path)
}

func (c *checker) volumeSource(v *corev1.Volume, p *field.Path) {
	found := false
	for _, source := range slices.Concat(c.commonSources(v), c.legacySources(v)) {
		if !source.set {
			continue
		}
		if found {
			c.forbidden(p.Child(source.field), "may not specify more than 1 volume type")
			continue
		}
		found = true
		source.check(p.Child(source.field))
	}
	if !found {
		c.required(p, "must specify a volume type")
	}
}

func (c *checker) commonSources(v *corev1.Volume) []sourceCheck {
	return []sourceCheck{
		{"emptyDir", v.EmptyDir != nil, func(p *field.Path) { c.emptyDir(v.EmptyDir, p) }},
		{"hostPath", v.HostPath != nil, func(p *field.Path) { c.hostPath(v.HostPath, p) }},
		{"secret", v.Secret != nil, func(p *field.Path) {
			c.text(p.Child("secretName"), v.Secret.SecretName)
			c.files(v.Secret.DefaultMode, v.Secret.DefaultUser, v.Secret.Items, p)
		}},
		{"nfs", v.NFS != nil, func(p *field.Path) { c.nfs(v.NFS, p) }},
		{"persistentVolumeClaim", v.PersistentVolumeClaim != nil, func(p *field.Path) {
			c.text(p.Child("claimName"), v.PersistentVolumeClaim.ClaimName)
		}},
		{"downwardAPI", v.DownwardAPI != nil, func(p *field.Path) {
			c.files(v.DownwardAPI.DefaultMode, v.DownwardAPI.DefaultUser, nil, p)
			c.downwardFiles(v.DownwardAPI.Items, p)
		}},
		{"configMap", v.ConfigMap != nil, func(p *field.Path) {
			c.text(p.Child("name"), v.ConfigMap.Name)
			c.files(v.ConfigMap.DefaultMode, v.ConfigMap.DefaultUser, v.ConfigMap.Items, p)
		}},
		{"projected", v.Projected != nil, func(p *field.Path) { c.projected(v.Projected, p) }},
		{"csi", v.CSI != nil, func(p *field.Path) { c.csi(v.CSI, p) }},
		{"ephemeral", v.Ephemeral != nil, func(p *field.Path) { c.ephemeral(v, p) }},
		{"image", v.Image != nil, func(p *field.Path) { c.image(v.Image, p) }},
	}
}

const maxEmptyDirMode = 0o1777

func (c *checker) emptyDir(v *corev1.EmptyDirVolumeSource, p *field.Path) {
	if v.SizeLimit != nil && v.SizeLimit.Sign() < 0 {
		c.forbidden(p.Child("sizeLimit"), "SizeLimit field must be a valid resource quantity")
	}
	if v.Mode != nil && (*v.Mode < 0 || *v.Mode > maxEmptyDirMode) {
		c.invalid(p.Child("mode"), *v.Mode, "must be a number between 0 and 01777 (octal), both inclusive")
	}
}

func (c *checker) hostPath(v *corev1.HostPathVolumeSource, p *field.Path) {
	if v.Path == "" {
		c.required(p.Child("path"), "")
		return
	}
	c.noBacksteps(p.Child("path"), v.Path)
	optionalOneOf(&c.faults, p.Child("type"), v.Type, corev1.HostPathUnset, corev1.HostPathBlockDev,
		corev1.HostPathCharDev, corev1.HostPathDirectory, corev1.HostPathDirectoryOrCreate, corev1.HostPathFile,
		corev1.HostPathFileOrCreate, corev1.HostPathSocket)
}

func (c *checker) nfs(v *corev1.NFSVolumeSource, p *field.Path) {
	c.text(p.Child("server"), v.Server)
	c.text(p.Child("path"), v.Path)
	if !path.IsAbs(v.Path) {
		c.invalid(p.Child("path"), v.Path, "must be an absolute path")
	}
}

const maxDriverName = 63

func (c *checker) csi(v *corev1.CSIVolumeSource, p *field.Path) {
	c.text(p.Child("driver"), v.Driver)
	if len(v.Driver) > maxDriverName {
		c.add(field.TooLong(p.Child("driver"), "", maxDriverName))
	}
	c.invalid(p.Child("driver"), v.Driver, validation.IsDNS1123Subdomain(strings.ToLower(v.Driver))...)
	if v.NodePublishSecretRef != nil {
		c.requiredSubdomain(p.Child("nodePublishSecretRef", "name"), v.NodePublishSecretRef.Name)
	}
}

func (c *checker) image(v *corev1.ImageVolumeSource, p *field.Path) {
	c.text(p.Child("reference"), v.Reference)
	requireOneOf(&c.faults, p.Child("pullPolicy"), v.PullPolicy,
		corev1.PullAlways, corev1.PullIfNotPresent, corev1.PullNever)
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

const modeFault = "must be a number between 0 and 0777 (octal), both inclusive"

// files checks what the volumes made of small files share: the mode, the owner, and which key becomes which file.
func (c *checker) files(mode *int32, user *int64, items []corev1.KeyToPath, p *field.Path) {
	c.fileMode(p.Child("defaultMode"), mode)
	c.user(p.Child("defaultUser"), user)
	c.items(items, p.Child("items"))
}

func (c *checker) items(items []corev1.KeyToPath, p *field.Path) {
	for i := range items {
		item, at := &items[i], p.Index(i)
		c.text(at.Child("key"), item.Key)
		c.text(at.Child("path"), item.Path)
		c.localPath(at.Child("path"), item.Path)
		c.fileMode(at.Child("mode"), item.Mode)
		c.user(at.Child("user"), item.User)
	}
}

func (c *checker) fileMode(p *field.Path, mode *int32) {
	if mode != nil && (*mode < 0 || *mode > 0o777) {
		c.invalid(p, *mode, modeFault)
	}
}

// downwardFiles reports, as Kubernetes does, without the file's index.
func (c *checker) downwardFiles(files []corev1.DownwardAPIVolumeFile, p *field.Path) {
	for i := range files {
		file := &files[i]
		c.text(p.Child("path"), file.Path)
		c.localPath(p.Child("path"), file.Path)
		switch {
		case file.FieldRef != nil:
			c.fieldRef(file.FieldRef, volumeFields, p.Child("fieldRef"))
			if file.ResourceFieldRef != nil {
				c.invalid(p, "resource", "fieldRef and resourceFieldRef can not be specified simultaneously")
			}
		case file.ResourceFieldRef != nil:
			c.resourceFieldRef(file.ResourceFieldRef, true, p.Child("resourceFieldRef"))
		default:
			c.required(p, "one of fieldRef and resourceFieldRef is required")
		}
		c.fileMode(p.Child("mode"), file.Mode)
		c.user(p.Child("user"), file.User)
	}
}

// localPath requires a relative path without backsteps that does not begin with two dots, under which a node keeps its
// own links.
func (c *checker) localPath(p *field.Path, value string) {
	c.descendingPath(p, value)
	if strings.HasPrefix(value, "..") && !strings.HasPrefix(value, "../") {
		c.invalid(p, value, "must not start with '..'")
	}
}

func (c *checker) descendingPath(p *field.Path, value string) {
	if path.IsAbs(value) {
		c.invalid(p, value, "must be a relative path")
	}
	c.noBacksteps(p, value)
}

func (c *checker) noBacksteps(p *field.Path, value string) {
	if hasBackstep(value) {
		c.invalid(p, value, "must not contain '..'")
	}
}

func hasBackstep(value string) bool {
	return slices.Contains(strings.Split(value, "/"), "..")
}
