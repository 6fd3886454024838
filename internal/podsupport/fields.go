package podsupport

import (
	"strings"
	"sync"
)

// A consumer implements a field. It is the import path of a package that reads the field, or one of the two constants below for a
// field that no package reads.
type consumer string

const (
	runtimeMapping consumer = "lanyard.dev/internal/node/cri"
	worker         consumer = "lanyard.dev/internal/node/pod"
	volumes        consumer = "lanyard.dev/internal/node/volume"
	apiVolumes     consumer = "lanyard.dev/internal/tokenvolume"
	scheduler      consumer = "lanyard.dev/internal/controller/scheduler"
	nodeAffinity   consumer = "k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	admission      consumer = "lanyard.dev/internal/apiserver/admission/serviceaccount"

	// noEffect is the consumer of a field that the agent accepts because it has no effect here. The note gives the reason.
	noEffect consumer = "no effect"
	// notScheduled is the consumer of a field that restricts the choice of a node, and that Lanyard's scheduler does not
	// consider. The authority warns of it.
	notScheduled consumer = "not considered by the scheduler"
)

// supported is a field that the agent accepts, with everything below it.
type supported struct {
	// path is the path of the field's JSON names from the pod, without indices. {a,b} means each of the alternatives, as in
	// a shell.
	path string
	by   consumer
	// values are the only values that are supported; nil means any.
	values []string
	// keys are the only keys of a map that are supported; nil means any.
	keys []string
	// note is for docs/pod-fields.md.
	note string
}

// table declares every field that a pod may have. A field is refused if neither it, nor a field above it, nor one below it is
// in the table.
var table = []supported{
	{path: "spec.{restartPolicy,terminationGracePeriodSeconds,activeDeadlineSeconds}", by: worker},
	{path: "spec.{hostNetwork,hostPID,hostIPC,shareProcessNamespace}", by: runtimeMapping},
	{path: "spec.hostUsers", by: runtimeMapping, values: []string{"true"}},
	{path: "spec.{hostname,dnsConfig}", by: runtimeMapping},
	{path: "spec.dnsPolicy", by: runtimeMapping, note: "there is no cluster DNS, so `ClusterFirst` is `Default`"},
	{path: "spec.setHostnameAsFQDN", by: noEffect, values: []string{"false"}, note: "it is the default"},
	{path: "spec.{hostAliases,imagePullSecrets}", by: worker},
	{path: "spec.os.name", by: noEffect, values: []string{"linux"}, note: "nodes run Linux"},
	{path: "spec.enableServiceLinks", by: noEffect, note: "there are no Services"},
	{path: "spec.serviceAccountName", by: apiVolumes},
	{path: "spec.{serviceAccount,automountServiceAccountToken}", by: admission},
	{path: "spec.{nodeName,schedulerName,tolerations,schedulingGates}", by: scheduler},
	{path: "spec.nodeSelector", by: nodeAffinity},
	{path: "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution", by: nodeAffinity},
	{path: "spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution", by: notScheduled},
	{path: "spec.affinity.{podAffinity,podAntiAffinity}", by: notScheduled},
	{path: "spec.{topologySpreadConstraints,priorityClassName,schedulingGroup}", by: notScheduled},
	{path: "spec.{priority,preemptionPolicy}", by: noEffect, note: "no pod is preempted"},

	{path: "spec.securityContext.{runAsUser,runAsGroup,runAsNonRoot,fsGroup,supplementalGroups,supplementalGroupsPolicy}", by: runtimeMapping},
	{path: "spec.securityContext.{seLinuxOptions,appArmorProfile}", by: runtimeMapping},
	{path: "spec.securityContext.seccompProfile.type", by: runtimeMapping, values: []string{"RuntimeDefault", "Unconfined"}},
	{path: "spec.securityContext.fsGroupChangePolicy", by: noEffect, note: "each pod gets new volumes"},

	{path: "spec.{initContainers,containers}.{name,image,imagePullPolicy,command,args,workingDir,ports,stdin,stdinOnce,tty}", by: runtimeMapping},
	{path: "spec.initContainers.restartPolicy", by: runtimeMapping, values: []string{"Always"}, note: "it makes a sidecar"},
	{path: "spec.{initContainers,containers}.resources.{limits,requests}", by: runtimeMapping, keys: []string{"cpu", "memory"}},
	{path: "spec.{initContainers,containers}.resizePolicy", by: noEffect, note: "no container is ever resized"},
	{path: "spec.{initContainers,containers}.{terminationMessagePath,terminationMessagePolicy}", by: worker},
	{path: "spec.{initContainers,containers}.{envFrom,env.name,env.value}", by: worker},
	{path: "spec.{initContainers,containers}.env.valueFrom.{fieldRef,configMapKeyRef,secretKeyRef}", by: worker},
	{path: "spec.{initContainers,containers}.env.valueFrom.resourceFieldRef.{containerName,divisor}", by: apiVolumes},
	{path: "spec.{initContainers,containers}.env.valueFrom.resourceFieldRef.resource", by: apiVolumes, values: resources},
	{path: "spec.{initContainers,containers}.volumeMounts.{name,mountPath,readOnly}", by: worker},
	{path: "spec.{initContainers,containers}.volumeMounts.mountPropagation", by: worker, note: "`Bidirectional` for privileged containers only"},
	{path: "spec.{initContainers,containers}.volumeMounts.recursiveReadOnly", by: noEffect, values: []string{"Disabled", "IfPossible"}, note: "mounts are not read-only recursively"},
	{path: "spec.{initContainers,containers}.securityContext.{runAsUser,runAsGroup,runAsNonRoot,privileged,allowPrivilegeEscalation,capabilities,readOnlyRootFilesystem}", by: runtimeMapping},
	{path: "spec.{initContainers,containers}.securityContext.{seLinuxOptions,appArmorProfile}", by: runtimeMapping},
	{path: "spec.{initContainers,containers}.securityContext.seccompProfile.type", by: runtimeMapping, values: []string{"RuntimeDefault", "Unconfined"}},
	{path: "spec.{initContainers,containers}.securityContext.procMount", by: runtimeMapping, values: []string{"Default"}},

	{path: "spec.volumes.{name,hostPath}", by: volumes},
	{path: "spec.volumes.emptyDir.medium", by: volumes, values: []string{"Memory"}},
	{path: "spec.volumes.emptyDir.sizeLimit", by: volumes, note: "with medium `Memory` only"},
	{path: "spec.volumes.secret.{secretName,optional,defaultMode}", by: apiVolumes},
	{path: "spec.volumes.configMap.{name,optional,defaultMode}", by: apiVolumes},
	{path: "spec.volumes.{secret,configMap}.items.{key,path,mode}", by: apiVolumes},
	{path: "spec.volumes.downwardAPI.{defaultMode,items.path,items.mode,items.fieldRef,items.resourceFieldRef.containerName,items.resourceFieldRef.divisor}", by: apiVolumes},
	{path: "spec.volumes.downwardAPI.items.resourceFieldRef.resource", by: apiVolumes, values: resources},
	{path: "spec.volumes.projected.defaultMode", by: apiVolumes},
	{path: "spec.volumes.projected.sources.{secret,configMap}.{name,optional,items.key,items.path,items.mode}", by: apiVolumes},
	{path: "spec.volumes.projected.sources.downwardAPI.items.{path,mode,fieldRef,resourceFieldRef.containerName,resourceFieldRef.divisor}", by: apiVolumes},
	{path: "spec.volumes.projected.sources.downwardAPI.items.resourceFieldRef.resource", by: apiVolumes, values: resources},
	{path: "spec.volumes.projected.sources.serviceAccountToken.{audience,expirationSeconds,path}", by: apiVolumes},
}

var resources = []string{"limits.cpu", "limits.memory", "requests.cpu", "requests.memory"}

// index is the table by the path of each field.
type index struct {
	fields map[string]supported
	// above are the paths of the fields that have a field of the table below them.
	above map[string]bool
}

var declared = sync.OnceValue(func() index {
	all := index{fields: map[string]supported{}, above: map[string]bool{}}
	for _, row := range table {
		for _, path := range expand(row.path) {
			all.fields[path] = row
			for i, char := range path {
				if char == '.' {
					all.above[path[:i]] = true
				}
			}
		}
	}
	return all
})

// expand returns the paths that a path with alternatives describes.
func expand(path string) []string {
	before, rest, found := strings.Cut(path, "{")
	if !found {
		return []string{path}
	}
	inner, after, _ := strings.Cut(rest, "}")
	var all []string
	for alternative := range strings.SplitSeq(inner, ",") {
		for _, tail := range expand(after) {
			all = append(all, before+alternative+tail)
		}
	}
	return all
}
