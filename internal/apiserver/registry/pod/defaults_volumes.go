package pod

import (
	"reflect"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

const (
	tokenExpirationSeconds       = 3600
	certificateExpirationSeconds = 86400
)

func defaultVolume(v *corev1.VolumeSource) {
	if reflect.ValueOf(v).Elem().IsZero() {
		v.EmptyDir = &corev1.EmptyDirVolumeSource{}
		return
	}
	if v.HostPath != nil && v.HostPath.Type == nil {
		v.HostPath.Type = ptr.To(corev1.HostPathUnset)
	}
	if v.Secret != nil {
		defaultMode(&v.Secret.DefaultMode, corev1.SecretVolumeSourceDefaultMode)
	}
	if v.ConfigMap != nil {
		defaultMode(&v.ConfigMap.DefaultMode, corev1.ConfigMapVolumeSourceDefaultMode)
	}
	if v.DownwardAPI != nil {
		defaultMode(&v.DownwardAPI.DefaultMode, corev1.DownwardAPIVolumeSourceDefaultMode)
		defaultDownwardFiles(v.DownwardAPI.Items)
	}
	if v.Projected != nil {
		defaultProjected(v.Projected)
	}
	if v.Ephemeral != nil && v.Ephemeral.VolumeClaimTemplate != nil {
		defaultClaim(&v.Ephemeral.VolumeClaimTemplate.Spec)
	}
	if v.Image != nil && v.Image.PullPolicy == "" {
		v.Image.PullPolicy = pullPolicyFor(v.Image.Reference)
	}
	defaultLegacyVolume(v)
}

func defaultMode(mode **int32, value int32) {
	if *mode == nil {
		*mode = ptr.To(value)
	}
}

func defaultDownwardFiles(files []corev1.DownwardAPIVolumeFile) {
	for i := range files {
		defaultFieldRef(files[i].FieldRef)
	}
}

func defaultProjected(p *corev1.ProjectedVolumeSource) {
	defaultMode(&p.DefaultMode, corev1.ProjectedVolumeSourceDefaultMode)
	for i := range p.Sources {
		source := &p.Sources[i]
		if source.DownwardAPI != nil {
			defaultDownwardFiles(source.DownwardAPI.Items)
		}
		if t := source.ServiceAccountToken; t != nil && t.ExpirationSeconds == nil {
			t.ExpirationSeconds = ptr.To[int64](tokenExpirationSeconds)
		}
		if c := source.PodCertificate; c != nil && c.MaxExpirationSeconds == nil {
			c.MaxExpirationSeconds = ptr.To[int32](certificateExpirationSeconds)
		}
	}
}

func defaultClaim(spec *corev1.PersistentVolumeClaimSpec) {
	if spec.VolumeMode == nil {
		spec.VolumeMode = ptr.To(corev1.PersistentVolumeFilesystem)
	}
	roundUp(spec.Resources.Limits)
	roundUp(spec.Resources.Requests)
}

// defaultLegacyVolume is for the in-tree storage drivers, most of which no node mounts any more.
func defaultLegacyVolume(v *corev1.VolumeSource) {
	if v.ISCSI != nil {
		orDefault(&v.ISCSI.ISCSIInterface, "default")
	}
	if v.RBD != nil {
		orDefault(&v.RBD.RBDPool, "rbd")
		orDefault(&v.RBD.RadosUser, "admin")
		orDefault(&v.RBD.Keyring, "/etc/ceph/keyring")
	}
	if v.ScaleIO != nil {
		orDefault(&v.ScaleIO.StorageMode, "ThinProvisioned")
		orDefault(&v.ScaleIO.FSType, "xfs")
	}
	if v.AzureDisk != nil {
		defaultAzureDisk(v.AzureDisk)
	}
}

func defaultAzureDisk(disk *corev1.AzureDiskVolumeSource) {
	if disk.CachingMode == nil {
		disk.CachingMode = ptr.To(corev1.AzureDataDiskCachingReadWrite)
	}
	if disk.Kind == nil {
		disk.Kind = ptr.To(corev1.AzureSharedBlobDisk)
	}
	if disk.FSType == nil {
		disk.FSType = ptr.To("ext4")
	}
	if disk.ReadOnly == nil {
		disk.ReadOnly = ptr.To(false)
	}
}
