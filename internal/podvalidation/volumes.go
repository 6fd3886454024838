package podvalidation

import (
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// allVolumes checks the volumes of the pod, and adds those without faults to c.volumes, where mounts look them up.
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

// createdClaims returns the names of the claims that are created for the pod's ephemeral volumes.
func (c *checker) createdClaims() sets.Set[string] {
	names := sets.New[string]()
	for i := range c.pod.Spec.Volumes {
		if v := &c.pod.Spec.Volumes[i]; v.Ephemeral != nil && c.pod.Name != "" {
			names.Insert(c.pod.Name + "-" + v.Name)
		}
	}
	return names
}

// volumeSource requires that a volume has exactly one source, and checks it.
func (c *checker) volumeSource(v *corev1.Volume, p *field.Path) {
	found := false
	for name, source := range setFields(&v.VolumeSource) {
		if found {
			c.forbidden(p.Child(name), "may not specify more than 1 volume type")
			continue
		}
		found = true
		if !c.supportedSource(source.Interface(), p.Child(name)) {
			c.otherSource(v, source, p.Child(name))
		}
	}
	if !found {
		c.required(p, "must specify a volume type")
	}
}

// supportedSource checks a source that the agent supports (package podsupport). It returns false if the agent does not.
func (c *checker) supportedSource(source any, p *field.Path) bool {
	switch s := source.(type) {
	case *corev1.EmptyDirVolumeSource:
		c.emptyDir(s, p)
	case *corev1.HostPathVolumeSource:
		c.hostPath(s, p)
	case *corev1.SecretVolumeSource:
		c.notEmpty(p.Child("secretName"), s.SecretName)
		c.files(s.DefaultMode, s.DefaultUser, s.Items, p)
	case *corev1.DownwardAPIVolumeSource:
		c.files(s.DefaultMode, s.DefaultUser, nil, p)
		c.downwardFiles(s.Items, p)
	case *corev1.ConfigMapVolumeSource:
		c.notEmpty(p.Child("name"), s.Name)
		c.files(s.DefaultMode, s.DefaultUser, s.Items, p)
	case *corev1.ProjectedVolumeSource:
		c.projected(s, p)
	default:
		return false
	}
	return true
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

const modeFault = "must be a number between 0 and 0777 (octal), both inclusive"

// files checks the fields that all volumes of API objects have: the mode, the owner, and which key becomes which file.
func (c *checker) files(mode *int32, user *int64, items []corev1.KeyToPath, p *field.Path) {
	c.fileMode(p.Child("defaultMode"), mode)
	c.user(p.Child("defaultUser"), user)
	c.items(items, p.Child("items"))
}

func (c *checker) items(items []corev1.KeyToPath, p *field.Path) {
	for i := range items {
		item, at := &items[i], p.Index(i)
		c.notEmpty(at.Child("key"), item.Key)
		c.notEmpty(at.Child("path"), item.Path)
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

// downwardFiles checks the files of a downward API volume. As in Kubernetes, faults are reported without the index of the
// file.
func (c *checker) downwardFiles(files []corev1.DownwardAPIVolumeFile, p *field.Path) {
	for i := range files {
		file := &files[i]
		c.notEmpty(p.Child("path"), file.Path)
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

// localPath requires a relative path without "..", that does not begin with two dots. A node keeps its own links under such
// names.
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
