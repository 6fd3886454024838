package podvalidation

import (
	"reflect"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"lanyard.dev/internal/podsupport"
)

func TestValidateRefusesVolumes(t *testing.T) {
	const v0 = "spec.volumes[0]."
	src := func(s corev1.VolumeSource) func(*corev1.Pod) { return volume(s) }
	refuse(t, []refusal{
		{"no name", spec(func(s *corev1.PodSpec) { s.Volumes = []corev1.Volume{{}} }), v0 + "name", field.ErrorTypeRequired, ""},
		{"name not a label", spec(func(s *corev1.PodSpec) { s.Volumes = []corev1.Volume{{Name: "A"}} }), v0 + "name", field.ErrorTypeInvalid, ""},
		{"same name", both(src(corev1.VolumeSource{}), src(corev1.VolumeSource{})), "spec.volumes[1].name", field.ErrorTypeDuplicate, `"data"`},
		{"two sources", src(corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}, Secret: &corev1.SecretVolumeSource{SecretName: "s"}}), v0 + "secret", field.ErrorTypeForbidden, "may not specify more than 1 volume type"},
		{"size", src(corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: ptr.To(list("s", "-1")["s"])}}), v0 + "emptyDir.sizeLimit", field.ErrorTypeForbidden, ""},
		{"host path climbs", src(corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/a/../etc"}}), v0 + "hostPath.path", field.ErrorTypeInvalid, "must not contain '..'"},
		{"host path type", src(corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/a", Type: ptr.To[corev1.HostPathType]("x")}}), v0 + "hostPath.type", field.ErrorTypeNotSupported, ""},
		{"secret unnamed", src(corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{}}), v0 + "secret.secretName", field.ErrorTypeRequired, ""},
		{"secret mode", src(corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "s", DefaultMode: ptr.To[int32](0o1000)}}), v0 + "secret.defaultMode", field.ErrorTypeInvalid, "between 0 and 0777 (octal)"},
		{"secret item", src(corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "s", Items: []corev1.KeyToPath{{Key: "k", Path: "/abs"}}}}), v0 + "secret.items[0].path", field.ErrorTypeInvalid, "must be a relative path"},
		{"config map unnamed", src(corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{}}), v0 + "configMap.name", field.ErrorTypeRequired, ""},
		{"reserved path", src(corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "c"}, Items: []corev1.KeyToPath{{Key: "k", Path: "..data"}}}}), v0 + "configMap.items[0].path", field.ErrorTypeInvalid, "must not start with '..'"},
		{"downward without source", src(corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{Items: []corev1.DownwardAPIVolumeFile{{Path: "p"}}}}), v0 + "downwardAPI", field.ErrorTypeRequired, "one of fieldRef and resourceFieldRef"},
		{"downward field", src(corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{Items: []corev1.DownwardAPIVolumeFile{{Path: "p", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "spec.nodeName"}}}}}), v0 + "downwardAPI.fieldRef.fieldPath", field.ErrorTypeNotSupported, `"metadata.annotations"`},
		{"downward container", src(corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{Items: []corev1.DownwardAPIVolumeFile{{Path: "p", ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "limits.cpu"}}}}}), v0 + "downwardAPI.resourceFieldRef.containerName", field.ErrorTypeRequired, ""},
		{"nfs path", src(corev1.VolumeSource{NFS: &corev1.NFSVolumeSource{Server: "s", Path: "p"}}), v0 + "nfs.path", field.ErrorTypeInvalid, "must be an absolute path"},
		{"claim unnamed", src(corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{}}), v0 + "persistentVolumeClaim.claimName", field.ErrorTypeRequired, ""},
		{"csi driver", src(corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{Driver: "a_b"}}), v0 + "csi.driver", field.ErrorTypeInvalid, ""},
		{"no template", src(corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{}}), v0 + "ephemeral.volumeClaimTemplate", field.ErrorTypeRequired, ""},
		{"template without size", src(corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{VolumeClaimTemplate: &corev1.PersistentVolumeClaimTemplate{}}}), v0 + "ephemeral.volumeClaimTemplate.spec.resources[storage]", field.ErrorTypeRequired, ""},
		{"claim made by the pod", both(src(corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{}}), spec(func(s *corev1.PodSpec) {
			s.Volumes = append(s.Volumes, corev1.Volume{Name: "b", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "web-data"}}})
		})), "spec.volumes[1].persistentVolumeClaim.claimName", field.ErrorTypeInvalid, "must not reference a PVC that gets created"},
		{"image", src(corev1.VolumeSource{Image: &corev1.ImageVolumeSource{}}), v0 + "image.reference", field.ErrorTypeRequired, ""},
		{"git repository", src(corev1.VolumeSource{GitRepo: &corev1.GitRepoVolumeSource{Directory: "../x"}}), v0 + "gitRepo.directory", field.ErrorTypeInvalid, ""},
		{"iscsi name", src(corev1.VolumeSource{ISCSI: &corev1.ISCSIVolumeSource{TargetPortal: "p", IQN: "x"}}), v0 + "iscsi.iqn", field.ErrorTypeInvalid, "starting with iqn, eui, or naa"},
		{"fibre channel", src(corev1.VolumeSource{FC: &corev1.FCVolumeSource{}}), v0 + "fc.targetWWNs", field.ErrorTypeRequired, ""},
		{"azure disk", src(corev1.VolumeSource{AzureDisk: &corev1.AzureDiskVolumeSource{DiskName: "d", DataDiskURI: "ftp://x"}}), v0 + "azureDisk.diskURI", field.ErrorTypeNotSupported, ""},
		{"flex option", src(corev1.VolumeSource{FlexVolume: &corev1.FlexVolumeSource{Driver: "d", Options: map[string]string{"k8s.io/a": ""}}}), v0 + "flexVolume.options[k8s.io/a]", field.ErrorTypeInvalid, "reserved"},
		{"quobyte", src(corev1.VolumeSource{Quobyte: &corev1.QuobyteVolumeSource{Registry: "a", Volume: "v"}}), v0 + "quobyte.registry", field.ErrorTypeInvalid, "host:port"},
	})
}

func TestValidateRefusesProjections(t *testing.T) {
	const p0 = "spec.volumes[0].projected"
	const s0 = p0 + ".sources[0]."
	bundle := func(b corev1.ClusterTrustBundleProjection) func(*corev1.Pod) {
		b.Path = "ca.pem"
		return projected(corev1.VolumeProjection{ClusterTrustBundle: &b})
	}
	certificate := func(edit func(*corev1.PodCertificateProjection)) func(*corev1.Pod) {
		pc := &corev1.PodCertificateProjection{SignerName: "acme.example/pods", KeyType: "ED25519", CredentialBundlePath: "tls.pem"}
		edit(pc)
		return projected(corev1.VolumeProjection{PodCertificate: pc})
	}
	secret := corev1.VolumeProjection{Secret: &corev1.SecretProjection{
		LocalObjectReference: corev1.LocalObjectReference{Name: "s"}, Items: []corev1.KeyToPath{{Key: "k", Path: "f"}}}}
	refuse(t, []refusal{
		{"token too short", projected(token("t", ptr.To[int64](599))), s0 + "serviceAccountToken.expirationSeconds", field.ErrorTypeInvalid, "may not specify a duration less than 10 minutes"},
		{"token too long", projected(token("t", ptr.To[int64](1<<32+1))), s0 + "serviceAccountToken.expirationSeconds", field.ErrorTypeInvalid, "larger than 2^32 seconds"},
		{"token nowhere", projected(token("", nil)), p0 + ".path", field.ErrorTypeRequired, ""},
		{"token outside", projected(token("../t", nil)), p0 + ".path", field.ErrorTypeInvalid, "must not contain '..'"},
		{"token without account", both(projected(token("t", nil)), spec(func(s *corev1.PodSpec) { s.ServiceAccountName = "" })), s0 + "serviceAccountToken", field.ErrorTypeForbidden, "serviceAccountName is not set"},
		{"two sources", projected(corev1.VolumeProjection{Secret: secret.Secret, ServiceAccountToken: token("t", nil).ServiceAccountToken}), p0 + ".sources[0]", field.ErrorTypeForbidden, "more than 1 volume type per source"},
		{"same file", projected(secret, secret), p0, field.ErrorTypeInvalid, "conflicting duplicate paths"},
		{"secret unnamed", projected(corev1.VolumeProjection{Secret: &corev1.SecretProjection{}}), s0 + "secret.name", field.ErrorTypeRequired, ""},
		{"mode", volume(corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{DefaultMode: ptr.To[int32](-1)}}), p0 + ".defaultMode", field.ErrorTypeInvalid, ""},
		{"bundle of nothing", bundle(corev1.ClusterTrustBundleProjection{}), s0 + "clusterTrustBundle", field.ErrorTypeRequired, "either name or signerName"},
		{"bundle of both", bundle(corev1.ClusterTrustBundleProjection{Name: ptr.To("a"), SignerName: ptr.To("a.b/c")}), s0 + "clusterTrustBundle", field.ErrorTypeInvalid, "only one of name and signerName"},
		{"bundle with selector", bundle(corev1.ClusterTrustBundleProjection{Name: ptr.To("a"), LabelSelector: &metav1.LabelSelector{}}), s0 + "clusterTrustBundle.labelSelector", field.ErrorTypeInvalid, "must be unset"},
		{"bundle signer", bundle(corev1.ClusterTrustBundleProjection{SignerName: ptr.To("a")}), s0 + "clusterTrustBundle.signerName", field.ErrorTypeInvalid, "fully qualified domain and path"},
		{"certificate key", certificate(func(p *corev1.PodCertificateProjection) { p.KeyType = "RSA1024" }), s0 + "podCertificate.keyType", field.ErrorTypeNotSupported, `"RSA3072"`},
		{"certificate nowhere", certificate(func(p *corev1.PodCertificateProjection) { p.CredentialBundlePath = "" }), s0 + "podCertificate", field.ErrorTypeRequired, "specify at least one of"},
		{"certificate too short", certificate(func(p *corev1.PodCertificateProjection) { p.MaxExpirationSeconds = ptr.To[int32](10) }), s0 + "podCertificate.maxExpirationSeconds", field.ErrorTypeInvalid, "must be >= 3600"},
		{"certificate of Kubernetes too long", certificate(func(p *corev1.PodCertificateProjection) {
			p.SignerName, p.MaxExpirationSeconds = "kubernetes.io/x", ptr.To[int32](86401)
		}), s0 + "podCertificate.maxExpirationSeconds", field.ErrorTypeInvalid, "must be <= 86400"},
	})
}

func TestValidateRefusesMounts(t *testing.T) {
	const m = "spec.containers[0].volumeMounts"
	device := func(name, path string) func(*corev1.Pod) {
		return main(func(c *corev1.Container) { c.VolumeDevices = []corev1.VolumeDevice{{Name: name, DevicePath: path}} })
	}
	refuse(t, []refusal{
		{"no such volume", mount(corev1.VolumeMount{Name: "x", MountPath: "/d"}), m + "[0].name", field.ErrorTypeNotFound, `"x"`},
		{"volume is unsound", both(mount(corev1.VolumeMount{Name: "bad", MountPath: "/d"}), spec(func(s *corev1.PodSpec) {
			s.Volumes = append(s.Volumes, corev1.Volume{Name: "bad", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{}}})
		})), m + "[0].name", field.ErrorTypeNotFound, ""},
		{"no path", mount(corev1.VolumeMount{Name: "data"}), m + "[0].mountPath", field.ErrorTypeRequired, ""},
		{"same path", both(mount(corev1.VolumeMount{Name: "data", MountPath: "/d"}), main(func(c *corev1.Container) { c.VolumeMounts = append(c.VolumeMounts, c.VolumeMounts[0]) })), m + "[1].mountPath", field.ErrorTypeInvalid, "must be unique"},
		{"sub-path climbs", mount(corev1.VolumeMount{Name: "data", MountPath: "/d", SubPath: "a/../.."}), m + ".subPath", field.ErrorTypeInvalid, "must not contain '..'"},
		{"absolute sub-path", mount(corev1.VolumeMount{Name: "data", MountPath: "/d", SubPath: "/a"}), m + ".subPath", field.ErrorTypeInvalid, "must be a relative path"},
		{"both sub-paths", mount(corev1.VolumeMount{Name: "data", MountPath: "/d", SubPath: "a", SubPathExpr: "b"}), m + "[0].subPathExpr", field.ErrorTypeInvalid, "mutually exclusive"},
		{"propagation", mount(corev1.VolumeMount{Name: "data", MountPath: "/d", MountPropagation: ptr.To[corev1.MountPropagationMode]("x")}), m + ".mountPropagation", field.ErrorTypeNotSupported, ""},
		{"propagation without privilege", mount(corev1.VolumeMount{Name: "data", MountPath: "/d", MountPropagation: ptr.To(corev1.MountPropagationBidirectional)}), m + ".mountPropagation", field.ErrorTypeForbidden, "only to privileged containers"},
		{"recursive but writable", mount(corev1.VolumeMount{Name: "data", MountPath: "/d", RecursiveReadOnly: ptr.To(corev1.RecursiveReadOnlyEnabled)}), m + ".recursiveReadOnly", field.ErrorTypeForbidden, "when readOnly is true"},
		{"recursive value", mount(corev1.VolumeMount{Name: "data", MountPath: "/d", RecursiveReadOnly: ptr.To[corev1.RecursiveReadOnlyMode]("x")}), m + ".recursiveReadOnly", field.ErrorTypeNotSupported, ""},
		{"bind option", mount(corev1.VolumeMount{Name: "data", MountPath: "/d", BindMountOptions: []string{"suid"}}), m + "[0].bindMountOptions[0]", field.ErrorTypeNotSupported, `"noexec"`},
		{"device of a directory", both(volume(corev1.VolumeSource{}), device("data", "/dev/x")), "spec.containers[0].volumeDevices[0].name", field.ErrorTypeInvalid, "for block mode"},
		{"device unknown", device("x", "/dev/x"), "spec.containers[0].volumeDevices[0].name", field.ErrorTypeNotFound, ""},
	})
}

// TestSourcesAreThoseOfTheAgent compares the sources that are checked in full with those that the agent supports, and the
// required fields of every other source with Kubernetes' rules.
func TestSourcesAreThoseOfTheAgent(t *testing.T) {
	t.Parallel()
	required := map[string]string{
		"gcePersistentDisk": "pdName", "awsElasticBlockStore": "volumeID", "gitRepo": "repository", "nfs": "server path path", "iscsi": "targetPortal iqn",
		"glusterfs": "endpoints path", "persistentVolumeClaim": "claimName", "rbd": "monitors image", "flexVolume": "driver", "cinder": "volumeID",
		"cephfs": "monitors", "flocker": "", "fc": "targetWWNs", "azureFile": "secretName shareName", "vsphereVolume": "volumePath",
		"quobyte": "registry volume", "azureDisk": "diskName diskURI", "photonPersistentDisk": "pdID", "portworxVolume": "volumeID",
		"scaleIO": "gateway system", "storageos": "", "csi": "driver driver", "ephemeral": "volumeClaimTemplate", "image": "reference pullPolicy",
	}
	sources := reflect.TypeFor[corev1.VolumeSource]()
	for i := range sources.NumField() {
		name := jsonName(sources.Field(i))
		v := corev1.Volume{Name: "data"}
		source := reflect.New(sources.Field(i).Type.Elem())
		reflect.ValueOf(&v.VolumeSource).Elem().Field(i).Set(source)
		pod := minimal()
		pod.Spec.Volumes = []corev1.Volume{v}
		agentSupports := len(podsupport.Unsupported(pod)) == 0
		if supported := newChecker(pod).supportedSource(source.Interface(), nil); supported != agentSupports {
			t.Errorf("%s: checked in full is %v, and supported by the agent %v", name, supported, agentSupports)
		}
		if agentSupports {
			continue
		}
		c := newChecker(pod)
		c.volumeSource(&v, field.NewPath("v"))
		var faults []string
		for _, err := range c.list {
			faults = append(faults, strings.TrimPrefix(err.Field, "v."+name+"."))
		}
		if got := strings.Join(faults, " "); got != required[name] {
			t.Errorf("an empty %s is refused for %q, want %q", name, got, required[name])
		}
	}
	two := corev1.Volume{Name: "data", VolumeSource: corev1.VolumeSource{
		AWSElasticBlockStore: &corev1.AWSElasticBlockStoreVolumeSource{VolumeID: "v"}, NFS: &corev1.NFSVolumeSource{Path: "relative"},
	}}
	c := newChecker(minimal())
	c.volumeSource(&two, field.NewPath("v"))
	if len(c.list) != 1 || c.list[0].Field != "v.nfs" || c.list[0].Type != field.ErrorTypeForbidden {
		t.Errorf("two sources: %v", c.list)
	}
}
