package podvalidation

import (
	"maps"
	"net"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// legacySources are the in-tree drivers. Most of them no node mounts any more, so little but what is required is
// checked.
func (c *checker) legacySources(v *corev1.Volume) []sourceCheck {
	return slices.Concat(c.legacyDisks(v), c.legacyShares(v))
}

func (c *checker) legacyDisks(v *corev1.Volume) []sourceCheck {
	return []sourceCheck{
		{"gcePersistentDisk", v.GCEPersistentDisk != nil, func(p *field.Path) {
			c.text(p.Child("pdName"), v.GCEPersistentDisk.PDName)
			c.byteRange(p.Child("partition"), v.GCEPersistentDisk.Partition, 0)
		}},
		{"awsElasticBlockStore", v.AWSElasticBlockStore != nil, func(p *field.Path) {
			c.text(p.Child("volumeID"), v.AWSElasticBlockStore.VolumeID)
			c.byteRange(p.Child("partition"), v.AWSElasticBlockStore.Partition, 0)
		}},
		{"iscsi", v.ISCSI != nil, func(p *field.Path) { c.iscsi(v, p) }},
		{"rbd", v.RBD != nil, func(p *field.Path) {
			c.monitors(p.Child("monitors"), v.RBD.CephMonitors)
			c.text(p.Child("image"), v.RBD.RBDImage)
		}},
		{"cinder", v.Cinder != nil, func(p *field.Path) {
			c.text(p.Child("volumeID"), v.Cinder.VolumeID)
			c.secretRef(v.Cinder.SecretRef, p)
		}},
		{"fc", v.FC != nil, func(p *field.Path) { c.fibreChannel(v.FC, p) }},
		{"azureDisk", v.AzureDisk != nil, func(p *field.Path) { c.azureDisk(v.AzureDisk, p) }},
		{"vsphereVolume", v.VsphereVolume != nil, func(p *field.Path) { c.text(p.Child("volumePath"), v.VsphereVolume.VolumePath) }},
		{"photonPersistentDisk", v.PhotonPersistentDisk != nil, func(p *field.Path) { c.text(p.Child("pdID"), v.PhotonPersistentDisk.PdID) }},
		{"portworxVolume", v.PortworxVolume != nil, func(p *field.Path) { c.text(p.Child("volumeID"), v.PortworxVolume.VolumeID) }},
		{"scaleIO", v.ScaleIO != nil, func(p *field.Path) {
			c.text(p.Child("gateway"), v.ScaleIO.Gateway)
			c.text(p.Child("system"), v.ScaleIO.System)
			c.text(p.Child("volumeName"), v.ScaleIO.VolumeName)
		}},
		{"storageos", v.StorageOS != nil, func(p *field.Path) {
			c.text(p.Child("volumeName"), v.StorageOS.VolumeName)
			c.secretRef(v.StorageOS.SecretRef, p)
		}},
	}
}

func (c *checker) legacyShares(v *corev1.Volume) []sourceCheck {
	return []sourceCheck{
		{"gitRepo", v.GitRepo != nil, func(p *field.Path) {
			c.text(p.Child("repository"), v.GitRepo.Repository)
			c.descendingPath(p.Child("directory"), v.GitRepo.Directory)
		}},
		{"glusterfs", v.Glusterfs != nil, func(p *field.Path) {
			c.text(p.Child("endpoints"), v.Glusterfs.EndpointsName)
			c.text(p.Child("path"), v.Glusterfs.Path)
		}},
		{"flocker", v.Flocker != nil, func(p *field.Path) { c.flocker(v.Flocker, p) }},
		{"cephfs", v.CephFS != nil, func(p *field.Path) { c.monitors(p.Child("monitors"), v.CephFS.Monitors) }},
		{"quobyte", v.Quobyte != nil, func(p *field.Path) { c.quobyte(v.Quobyte, p) }},
		{"flexVolume", v.FlexVolume != nil, func(p *field.Path) { c.flexVolume(v.FlexVolume, p) }},
		{"azureFile", v.AzureFile != nil, func(p *field.Path) {
			c.text(p.Child("secretName"), v.AzureFile.SecretName)
			c.text(p.Child("shareName"), v.AzureFile.ShareName)
		}},
	}
}

func (c *checker) byteRange(p *field.Path, value, lowest int32) {
	if value < lowest || value > 255 {
		c.invalid(p, value, validation.InclusiveRangeError(int(lowest), 255))
	}
}

func (c *checker) monitors(p *field.Path, list []string) {
	if len(list) == 0 {
		c.required(p, "")
	}
}

func (c *checker) secretRef(ref *corev1.LocalObjectReference, p *field.Path) {
	if ref != nil {
		c.text(p.Child("secretRef", "name"), ref.Name)
	}
}

// Qualified names of iSCSI nodes, by their three schemes (RFC 7143).
var iscsiNames = map[string]*regexp.Regexp{
	"iqn": regexp.MustCompile(`iqn\.\d{4}-\d{2}\.([[:alnum:]-.]+)(:[^,;*&$|\s]+)$`),
	"eui": regexp.MustCompile(`^eui.[[:alnum:]]{16}$`),
	"naa": regexp.MustCompile(`^naa.[[:alnum:]]{32}$`),
}

// maxPortalName is what fits into the name of a device for a volume with an initiator of its own.
const maxPortalName = 64

func (c *checker) iscsi(v *corev1.Volume, p *field.Path) {
	s := v.ISCSI
	c.text(p.Child("targetPortal"), s.TargetPortal)
	if s.IQN == "" {
		c.required(p.Child("iqn"), "")
	} else {
		c.iscsiName(p.Child("iqn"), s.IQN)
	}
	c.byteRange(p.Child("lun"), s.Lun, 0)
	if (s.DiscoveryCHAPAuth || s.SessionCHAPAuth) && s.SecretRef == nil {
		c.required(p.Child("secretRef"), "")
	}
	if s.InitiatorName == nil {
		return
	}
	c.iscsiName(p.Child("initiatorname"), *s.InitiatorName)
	if len(v.Name)+1+len(s.TargetPortal) > maxPortalName {
		c.invalid(p.Child("name"), v.Name, "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.")
	}
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
	}
	if len(fc.TargetWWNs) == 0 {
		return
	}
	if fc.Lun == nil {
		c.required(p.Child("lun"), "lun is required if targetWWNs is specified")
		return
	}
	c.byteRange(p.Child("lun"), *fc.Lun, 0)
}

func (c *checker) azureDisk(disk *corev1.AzureDiskVolumeSource, p *field.Path) {
	c.text(p.Child("diskName"), disk.DiskName)
	c.text(p.Child("diskURI"), disk.DataDiskURI)
	optionalOneOf(&c.faults, p.Child("cachingMode"), disk.CachingMode, corev1.AzureDataDiskCachingNone,
		corev1.AzureDataDiskCachingReadOnly, corev1.AzureDataDiskCachingReadWrite)
	optionalOneOf(&c.faults, p.Child("kind"), disk.Kind, corev1.AzureDedicatedBlobDisk,
		corev1.AzureManagedDisk, corev1.AzureSharedBlobDisk)
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

func (c *checker) flocker(f *corev1.FlockerVolumeSource, p *field.Path) {
	switch {
	case f.DatasetName == "" && f.DatasetUUID == "":
		c.required(p, "one of datasetName and datasetUUID is required")
	case f.DatasetName != "" && f.DatasetUUID != "":
		c.invalid(p, "resource", "datasetName and datasetUUID can not be specified simultaneously")
	}
	if strings.Contains(f.DatasetName, "/") {
		c.invalid(p.Child("datasetName"), f.DatasetName, "must not contain '/'")
	}
}

const maxQuobyteTenant = 64

func (c *checker) quobyte(q *corev1.QuobyteVolumeSource, p *field.Path) {
	const why = "must be a host:port pair or multiple pairs separated by commas"
	c.text(p.Child("volume"), q.Volume)
	if q.Registry == "" {
		c.required(p.Child("registry"), why)
		return
	}
	if len(q.Tenant) > maxQuobyteTenant {
		c.required(p.Child("tenant"), "must be a UUID and may not exceed a length of 64 characters")
		return
	}
	for pair := range strings.SplitSeq(q.Registry, ",") {
		if _, _, err := net.SplitHostPort(pair); err != nil {
			c.invalid(p.Child("registry"), q.Registry, why)
			return
		}
	}
}

func (c *checker) flexVolume(f *corev1.FlexVolumeSource, p *field.Path) {
	c.text(p.Child("driver"), f.Driver)
	for _, key := range slices.Sorted(maps.Keys(f.Options)) {
		namespace, _, _ := strings.Cut(key, "/")
		namespace = "." + strings.ToLower(namespace)
		if strings.HasSuffix(namespace, ".kubernetes.io") || strings.HasSuffix(namespace, ".k8s.io") {
			c.invalid(p.Child("options").Key(key), key, "kubernetes.io and k8s.io namespaces are reserved")
		}
	}
}
