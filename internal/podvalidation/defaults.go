package podvalidation

import (
	"reflect"
	"strings"

	"github.com/distribution/reference"
	corev1 "k8s.io/api/core/v1"
	resourcehelper "k8s.io/component-helpers/resource"
	"k8s.io/utils/ptr"
)

// SetDefaults sets each field of a pod that is empty to the default of Kubernetes 1.37. It is idempotent. Defaults that
// depend on other objects, such as the service account, the priority or tolerations, are set by admission.
func SetDefaults(pod *corev1.Pod) {
	spec := &pod.Spec
	mirrorServiceAccount(spec)
	defaultSpec(spec)
	for i := range spec.Volumes {
		defaultVolume(&spec.Volumes[i].VolumeSource)
	}
	for _, list := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range list {
			defaultContainer(&list[i])
			requestsFromLimits(&list[i].Resources)
			if spec.HostNetwork {
				defaultHostPorts(list[i].Ports)
			}
		}
	}
	for i := range spec.EphemeralContainers {
		defaultContainer((*corev1.Container)(&spec.EphemeralContainers[i].EphemeralContainerCommon))
	}
	roundUp(spec.Overhead)
	defaultPodResources(pod)
}

// mirrorServiceAccount sets the deprecated field serviceAccount to the value of serviceAccountName. If only the deprecated
// field is set, its value is used for both.
func mirrorServiceAccount(spec *corev1.PodSpec) {
	if spec.ServiceAccountName == "" {
		spec.ServiceAccountName = spec.DeprecatedServiceAccount
	}
	spec.DeprecatedServiceAccount = spec.ServiceAccountName
}

func defaultSpec(spec *corev1.PodSpec) {
	orDefault(&spec.RestartPolicy, corev1.RestartPolicyAlways)
	orDefault(&spec.DNSPolicy, corev1.DNSClusterFirst)
	orDefault(&spec.SchedulerName, corev1.DefaultSchedulerName)
	if spec.TerminationGracePeriodSeconds == nil {
		spec.TerminationGracePeriodSeconds = ptr.To[int64](corev1.DefaultTerminationGracePeriodSeconds)
	}
	if spec.SecurityContext == nil {
		spec.SecurityContext = &corev1.PodSecurityContext{}
	}
	if spec.EnableServiceLinks == nil {
		spec.EnableServiceLinks = ptr.To(corev1.DefaultEnableServiceLinks)
	}
}

// orDefault sets *field to value if *field is zero.
func orDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func defaultContainer(c *corev1.Container) {
	if c.ImagePullPolicy == "" {
		c.ImagePullPolicy = pullPolicyFor(c.Image)
	}
	orDefault(&c.TerminationMessagePath, corev1.TerminationMessagePathDefault)
	orDefault(&c.TerminationMessagePolicy, corev1.TerminationMessageReadFile)
	for i := range c.Ports {
		orDefault(&c.Ports[i].Protocol, corev1.ProtocolTCP)
	}
	for i := range c.Env {
		defaultEnvSource(c.Env[i].ValueFrom)
	}
	for _, probe := range []*corev1.Probe{c.LivenessProbe, c.ReadinessProbe, c.StartupProbe} {
		defaultProbe(probe)
	}
	if c.Lifecycle != nil {
		for _, hook := range []*corev1.LifecycleHandler{c.Lifecycle.PostStart, c.Lifecycle.PreStop} {
			if hook != nil {
				defaultHTTPGet(hook.HTTPGet)
			}
		}
	}
	roundUp(c.Resources.Limits)
	roundUp(c.Resources.Requests)
}

// pullPolicyFor returns Always for an image whose content can change under its name, which has the tag "latest", or neither
// a tag nor a digest. It returns IfNotPresent for any other image, also for one that cannot be parsed.
func pullPolicyFor(image string) corev1.PullPolicy {
	named, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		return corev1.PullIfNotPresent
	}
	if tagged, ok := named.(reference.Tagged); ok && tagged.Tag() == "latest" || reference.IsNameOnly(named) {
		return corev1.PullAlways
	}
	return corev1.PullIfNotPresent
}

// defaultHostPorts sets the host ports of a pod in the host's network, where each container port is a host port.
func defaultHostPorts(ports []corev1.ContainerPort) {
	for i := range ports {
		orDefault(&ports[i].HostPort, ports[i].ContainerPort)
	}
}

func defaultEnvSource(from *corev1.EnvVarSource) {
	if from == nil {
		return
	}
	defaultFieldRef(from.FieldRef)
	if from.FileKeyRef != nil && from.FileKeyRef.Optional == nil {
		from.FileKeyRef.Optional = ptr.To(false)
	}
}

func defaultFieldRef(ref *corev1.ObjectFieldSelector) {
	if ref != nil {
		orDefault(&ref.APIVersion, "v1")
	}
}

func defaultProbe(p *corev1.Probe) {
	if p == nil {
		return
	}
	orDefault(&p.TimeoutSeconds, 1)
	orDefault(&p.PeriodSeconds, 10)
	orDefault(&p.SuccessThreshold, 1)
	orDefault(&p.FailureThreshold, 3)
	defaultHTTPGet(p.HTTPGet)
	if p.GRPC != nil && p.GRPC.Service == nil {
		p.GRPC.Service = ptr.To("")
	}
}

func defaultHTTPGet(get *corev1.HTTPGetAction) {
	if get == nil {
		return
	}
	orDefault(&get.Path, "/")
	orDefault(&get.Scheme, corev1.URISchemeHTTP)
}

// milliScale is the scale of the smallest quantity that the API stores.
const milliScale = -3

// roundUp rounds each quantity up to a whole number of milli-units.
func roundUp(list corev1.ResourceList) {
	for name, quantity := range list {
		quantity.RoundUp(milliScale)
		list[name] = quantity
	}
}

// requestsFromLimits sets the request of each resource that has a limit and no request.
func requestsFromLimits(r *corev1.ResourceRequirements) {
	if r.Limits != nil && r.Requests == nil {
		r.Requests = corev1.ResourceList{}
	}
	fill(r.Requests, r.Limits, func(corev1.ResourceName) bool { return true })
}

// fill copies those quantities of from into list that want accepts and that list does not have. If list is nil, from must
// be empty.
func fill(list, from corev1.ResourceList, want func(corev1.ResourceName) bool) {
	for name, quantity := range from {
		if _, set := list[name]; !set && want(name) {
			list[name] = quantity.DeepCopy()
		}
	}
}

// defaultPodResources completes spec.resources if a part of it is set: from the containers, and then from the pod's own
// limits (KEP-2837). The defaults of the containers must have been set.
func defaultPodResources(pod *corev1.Pod) {
	r := pod.Spec.Resources
	if r == nil || len(r.Requests)+len(r.Limits) == 0 {
		return
	}
	roundUp(r.Limits)
	roundUp(r.Requests)
	limits, requests := nonNil(r.Limits), nonNil(r.Requests)

	containerLimits := resourcehelper.AggregateContainerLimits(pod, resourcehelper.PodResourcesOptions{})
	fill(limits, containerLimits, isHugePage)
	if len(requests) > 0 {
		fill(limits, containerLimits, func(name corev1.ResourceName) bool {
			return isCompute(name) && everyContainerLimits(pod, name)
		})
	}
	if len(limits) > 0 {
		fill(requests, resourcehelper.AggregateContainerRequests(pod, resourcehelper.PodResourcesOptions{}), isCompute)
		fill(requests, limits, resourcehelper.IsSupportedPodLevelResource)
	}
	r.Limits, r.Requests = orNil(limits), orNil(requests)
}

func everyContainerLimits(pod *corev1.Pod, name corev1.ResourceName) bool {
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			if _, ok := list[i].Resources.Limits[name]; !ok {
				return false
			}
		}
	}
	return true
}

func nonNil(list corev1.ResourceList) corev1.ResourceList {
	if list == nil {
		return corev1.ResourceList{}
	}
	return list
}

func orNil(list corev1.ResourceList) corev1.ResourceList {
	if len(list) == 0 {
		return nil
	}
	return list
}

func isCompute(name corev1.ResourceName) bool {
	return name == corev1.ResourceCPU || name == corev1.ResourceMemory
}

func isHugePage(name corev1.ResourceName) bool {
	return strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix)
}

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

// defaultLegacyVolume sets the defaults of the in-tree storage drivers, most of which no node mounts any more.
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
