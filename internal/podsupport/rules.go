package podsupport

// taken are the fields of which any value will do, as TYPE.FIELD: what the agent carries out, and what concerns others,
// such as the scheduler.
var taken = []string{
	"PodSpec.restartPolicy", "PodSpec.terminationGracePeriodSeconds", "PodSpec.activeDeadlineSeconds",
	"PodSpec.dnsPolicy", "PodSpec.dnsConfig", "PodSpec.hostname", "PodSpec.hostAliases",
	"PodSpec.hostNetwork", "PodSpec.hostPID", "PodSpec.hostIPC", "PodSpec.shareProcessNamespace",
	"PodSpec.imagePullSecrets", "PodSpec.enableServiceLinks",
	"PodSpec.serviceAccountName", "PodSpec.serviceAccount", "PodSpec.automountServiceAccountToken", "PodSpec.nodeName",
	"PodSpec.nodeSelector", "PodSpec.affinity", "PodSpec.schedulerName", "PodSpec.tolerations", "PodSpec.topologySpreadConstraints",
	"PodSpec.priorityClassName", "PodSpec.priority", "PodSpec.preemptionPolicy", "PodSpec.schedulingGates", "PodSpec.schedulingGroup",

	"PodSecurityContext.runAsUser", "PodSecurityContext.runAsGroup", "PodSecurityContext.runAsNonRoot", "PodSecurityContext.seLinuxOptions",
	"PodSecurityContext.appArmorProfile", "PodSecurityContext.supplementalGroupsPolicy",
	"PodSecurityContext.supplementalGroups", "PodSecurityContext.fsGroup", "PodSecurityContext.fsGroupChangePolicy",

	"Container.name", "Container.image", "Container.command", "Container.args", "Container.workingDir", "Container.ports",
	"Container.imagePullPolicy", "Container.restartPolicy", "Container.terminationMessagePath", "Container.terminationMessagePolicy",
	"Container.stdin", "Container.stdinOnce", "Container.tty", "Container.envFrom",
	"Container.resizePolicy", // nothing is ever resized

	"EnvVar.name", "EnvVar.value", "EnvVarSource.fieldRef", "EnvVarSource.configMapKeyRef", "EnvVarSource.secretKeyRef",
	"ResourceFieldSelector.containerName", "ResourceFieldSelector.divisor",

	"SecurityContext.capabilities", "SecurityContext.privileged", "SecurityContext.runAsUser", "SecurityContext.runAsGroup",
	"SecurityContext.runAsNonRoot", "SecurityContext.readOnlyRootFilesystem", "SecurityContext.allowPrivilegeEscalation",
	"SecurityContext.seLinuxOptions", "SecurityContext.appArmorProfile",

	"VolumeMount.name", "VolumeMount.readOnly", "VolumeMount.mountPath", "VolumeMount.mountPropagation",

	"Volume.name", "VolumeSource.hostPath", "EmptyDirVolumeSource.sizeLimit",
	"SecretVolumeSource.secretName", "SecretVolumeSource.defaultMode", "SecretVolumeSource.optional",
	"ConfigMapVolumeSource.defaultMode", "ConfigMapVolumeSource.optional", "LocalObjectReference.name",
	"DownwardAPIVolumeSource.defaultMode", "ProjectedVolumeSource.defaultMode",
	"SecretProjection.optional", "ConfigMapProjection.optional",
	"ServiceAccountTokenProjection.audience", "ServiceAccountTokenProjection.expirationSeconds", "ServiceAccountTokenProjection.path",
	"KeyToPath.key", "KeyToPath.path", "KeyToPath.mode",
	"DownwardAPIVolumeFile.path", "DownwardAPIVolumeFile.fieldRef", "DownwardAPIVolumeFile.mode",
}

// entered are the fields whose own fields have rules.
var entered = []string{
	"PodSpec.containers", "PodSpec.initContainers", "PodSpec.volumes", "PodSpec.securityContext", "PodSpec.os",
	"Container.env", "Container.resources", "Container.securityContext", "Container.volumeMounts",
	"EnvVar.valueFrom", "EnvVarSource.resourceFieldRef",
	"PodSecurityContext.seccompProfile", "SecurityContext.seccompProfile",
	"VolumeSource.emptyDir", "VolumeSource.secret", "VolumeSource.configMap", "VolumeSource.downwardAPI", "VolumeSource.projected",
	"SecretVolumeSource.items", "ConfigMapVolumeSource.items", "DownwardAPIVolumeSource.items",
	"ProjectedVolumeSource.sources",
	"VolumeProjection.secret", "VolumeProjection.configMap", "VolumeProjection.downwardAPI", "VolumeProjection.serviceAccountToken",
	"SecretProjection.items", "ConfigMapProjection.items", "DownwardAPIProjection.items",
	"DownwardAPIVolumeFile.resourceFieldRef",
}

// values are the fields of which only some values will do.
var values = map[string][]string{
	"PodOS.name":                     {"linux"},
	"PodSpec.hostUsers":              {"true"},
	"PodSpec.setHostnameAsFQDN":      {"false"},
	"SecurityContext.procMount":      {"Default"},
	"SeccompProfile.type":            {"RuntimeDefault", "Unconfined"},
	"VolumeMount.recursiveReadOnly":  {"Disabled", "IfPossible"},
	"EmptyDirVolumeSource.medium":    {"Memory"},
	"ResourceFieldSelector.resource": {"limits.cpu", "limits.memory", "requests.cpu", "requests.memory"},
}

// keys are the maps in which only some keys will do.
var keys = map[string][]string{
	"ResourceRequirements.limits":   {"cpu", "memory"},
	"ResourceRequirements.requests": {"cpu", "memory"},
}
