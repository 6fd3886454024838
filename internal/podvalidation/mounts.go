package podvalidation

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// volumeMounts checks the mounts of a container. As in Kubernetes, faults of subPath, mountPropagation and
// recursiveReadOnly are reported without the index of the mount.
func (c *checker) volumeMounts(ctr *corev1.Container, p *field.Path) {
	deviceNames, devicePaths := sets.New[string](), sets.New[string]()
	for _, device := range ctr.VolumeDevices {
		deviceNames.Insert(device.Name)
		devicePaths.Insert(device.DevicePath)
	}
	paths := sets.New[string]()
	for i := range ctr.VolumeMounts {
		m, path := &ctr.VolumeMounts[i], p.Index(i)
		c.notEmpty(path.Child("name"), m.Name)
		volume, found := c.volumes[m.Name]
		if !found {
			c.add(field.NotFound(path.Child("name"), m.Name))
		}
		c.notEmpty(path.Child("mountPath"), m.MountPath)
		if paths.Has(m.MountPath) {
			c.invalid(path.Child("mountPath"), m.MountPath, "must be unique")
		}
		paths.Insert(m.MountPath)
		if deviceNames.Has(m.Name) {
			c.invalid(path.Child("name"), m.Name, "must not already exist in volumeDevices")
		}
		if devicePaths.Has(m.MountPath) {
			c.invalid(path.Child("mountPath"), m.MountPath, "must not already exist as a path in volumeDevices")
		}
		c.subPath(m, p, path)
		c.mountModes(m, isPrivileged(ctr), p)
		c.bindOptions(m, volume, path.Child("bindMountOptions"))
	}
}

func isPrivileged(ctr *corev1.Container) bool {
	sc := ctr.SecurityContext
	return sc != nil && sc.Privileged != nil && *sc.Privileged
}

func (c *checker) subPath(m *corev1.VolumeMount, p, mount *field.Path) {
	if m.SubPath != "" {
		c.descendingPath(p.Child("subPath"), m.SubPath)
	}
	if m.SubPathExpr == "" {
		return
	}
	if m.SubPath != "" {
		c.invalid(mount.Child("subPathExpr"), m.SubPathExpr, "subPathExpr and subPath are mutually exclusive")
	}
	c.descendingPath(p.Child("subPathExpr"), m.SubPathExpr)
}

func (c *checker) mountModes(m *corev1.VolumeMount, privileged bool, p *field.Path) {
	optionalOneOf(&c.faults, p.Child("mountPropagation"), m.MountPropagation, corev1.MountPropagationBidirectional,
		corev1.MountPropagationHostToContainer, corev1.MountPropagationNone)
	if mode := m.MountPropagation; mode != nil && *mode == corev1.MountPropagationBidirectional && !privileged {
		c.forbidden(p.Child("mountPropagation"),
			"Bidirectional mount propagation is available only to privileged containers")
	}

	path := p.Child("recursiveReadOnly")
	optionalOneOf(&c.faults, path, m.RecursiveReadOnly, corev1.RecursiveReadOnlyDisabled,
		corev1.RecursiveReadOnlyEnabled, corev1.RecursiveReadOnlyIfPossible)
	if r := m.RecursiveReadOnly; r == nil || *r != corev1.RecursiveReadOnlyEnabled && *r != corev1.RecursiveReadOnlyIfPossible {
		return
	}
	if !m.ReadOnly {
		c.forbidden(path, "may only be specified when readOnly is true")
	}
	if mode := m.MountPropagation; mode != nil && *mode != corev1.MountPropagationNone {
		c.forbidden(path, "may only be specified when mountPropagation is None or not specified")
	}
}

func (c *checker) bindOptions(m *corev1.VolumeMount, volume *corev1.VolumeSource, p *field.Path) {
	if len(m.BindMountOptions) > 0 && volume != nil && volume.Image != nil {
		c.forbidden(p, "may not be specified for image volumes")
	}
	seen := sets.New[string]()
	for i, option := range m.BindMountOptions {
		oneOf(&c.faults, p.Index(i), option, "nodev", "noexec", "nosuid")
		c.unique(seen, p.Index(i), option)
	}
}

func (c *checker) volumeDevices(ctr *corev1.Container, p *field.Path) {
	mountNames, mountPaths := sets.New[string](), sets.New[string]()
	for i := range ctr.VolumeMounts {
		mountNames.Insert(ctr.VolumeMounts[i].Name)
		mountPaths.Insert(ctr.VolumeMounts[i].MountPath)
	}
	names, paths := sets.New[string](), sets.New[string]()
	for i := range ctr.VolumeDevices {
		d, path := &ctr.VolumeDevices[i], p.Index(i)
		c.notEmpty(path.Child("name"), d.Name)
		c.notEmpty(path.Child("devicePath"), d.DevicePath)
		if names.Has(d.Name) {
			c.invalid(path.Child("name"), d.Name, "must be unique")
		}
		if paths.Has(d.DevicePath) {
			c.invalid(path.Child("devicePath"), d.DevicePath, "must be unique")
		}
		names.Insert(d.Name)
		paths.Insert(d.DevicePath)
		c.blockVolume(d.Name, path.Child("name"))
		if hasBackstep(d.DevicePath) {
			c.invalid(path.Child("devicePath"), d.DevicePath, "can not contain backsteps ('..')")
		}
		if mountNames.Has(d.Name) {
			c.invalid(path.Child("name"), d.Name, "must not already exist in volumeMounts")
		}
		if mountPaths.Has(d.DevicePath) {
			c.invalid(path.Child("devicePath"), d.DevicePath, "must not already exist as a path in volumeMounts")
		}
	}
}

// blockVolume requires that the pod has a volume of that name that can be a block device.
func (c *checker) blockVolume(name string, p *field.Path) {
	switch volume, found := c.volumes[name]; {
	case !found:
		c.add(field.NotFound(p, name))
	case volume.PersistentVolumeClaim == nil && volume.Ephemeral == nil:
		c.invalid(p, name, "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode")
	}
}
