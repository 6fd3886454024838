package access

import "strings"

// builtin lists Kubernetes' own resources for when there is no API server to
// ask, and the subresources that rules name and no discovery document does: those a node authorizes by. A line is
// group (core is "-"), name, scope (n or c), aliases, subresources; a subresource "*" stands for any.
const builtin = `
- pods n pod,po attach,binding,ephemeralcontainers,eviction,exec,log,portforward,proxy,resize,status
- services n service,svc proxy,status
- serviceaccounts n serviceaccount,sa token
- secrets n secret
- configmaps n configmap,cm
- namespaces c namespace,ns finalize,status
- nodes c node,no checkpoint,configz,healthz,log,metrics,pods,proxy,spec,stats,status
- events n event,ev
- endpoints n ep
- persistentvolumes c persistentvolume,pv status
- persistentvolumeclaims n persistentvolumeclaim,pvc status
- replicationcontrollers n replicationcontroller,rc scale,status
- resourcequotas n resourcequota,quota status
- limitranges n limitrange,limits
- podtemplates n podtemplate
- bindings n binding
- componentstatuses c componentstatus,cs
- users c user
- groups c group
apps deployments n deployment,deploy scale,status
apps daemonsets n daemonset,ds status
apps statefulsets n statefulset,sts scale,status
apps replicasets n replicaset,rs scale,status
apps controllerrevisions n controllerrevision
batch jobs n job status
batch cronjobs n cronjob,cj status
autoscaling horizontalpodautoscalers n horizontalpodautoscaler,hpa status
policy poddisruptionbudgets n poddisruptionbudget,pdb status
networking.k8s.io ingresses n ingress,ing status
networking.k8s.io ingressclasses c ingressclass
networking.k8s.io networkpolicies n networkpolicy,netpol
networking.k8s.io servicecidrs c servicecidr status
networking.k8s.io ipaddresses c ipaddress,ip
discovery.k8s.io endpointslices n endpointslice
events.k8s.io events n event,ev
coordination.k8s.io leases n lease
rbac.authorization.k8s.io roles n role
rbac.authorization.k8s.io rolebindings n rolebinding
rbac.authorization.k8s.io clusterroles c clusterrole
rbac.authorization.k8s.io clusterrolebindings c clusterrolebinding
authentication.k8s.io uids c uid
authentication.k8s.io userextras c userextra *
authentication.k8s.io tokenreviews c tokenreview
authentication.k8s.io selfsubjectreviews c selfsubjectreview
authorization.k8s.io subjectaccessreviews c subjectaccessreview
authorization.k8s.io selfsubjectaccessreviews c selfsubjectaccessreview
authorization.k8s.io selfsubjectrulesreviews c selfsubjectrulesreview
authorization.k8s.io localsubjectaccessreviews n localsubjectaccessreview
certificates.k8s.io certificatesigningrequests c certificatesigningrequest,csr approval,nodeclient,selfnodeclient,selfnodeserver,status
certificates.k8s.io clustertrustbundles c clustertrustbundle
certificates.k8s.io podcertificaterequests n podcertificaterequest,pcr approval,status
certificates.k8s.io signers c signer
storage.k8s.io storageclasses c storageclass,sc
storage.k8s.io volumeattachments c volumeattachment status
storage.k8s.io volumeattributesclasses c volumeattributesclass,vac
storage.k8s.io csidrivers c csidriver
storage.k8s.io csinodes c csinode
storage.k8s.io csistoragecapacities n csistoragecapacity
scheduling.k8s.io priorityclasses c priorityclass,pc
node.k8s.io runtimeclasses c runtimeclass
admissionregistration.k8s.io mutatingwebhookconfigurations c mutatingwebhookconfiguration
admissionregistration.k8s.io validatingwebhookconfigurations c validatingwebhookconfiguration
admissionregistration.k8s.io validatingadmissionpolicies c validatingadmissionpolicy status
admissionregistration.k8s.io validatingadmissionpolicybindings c validatingadmissionpolicybinding
admissionregistration.k8s.io mutatingadmissionpolicies c mutatingadmissionpolicy
admissionregistration.k8s.io mutatingadmissionpolicybindings c mutatingadmissionpolicybinding
apiextensions.k8s.io customresourcedefinitions c customresourcedefinition,crd,crds status
apiregistration.k8s.io apiservices c apiservice status
flowcontrol.apiserver.k8s.io flowschemas c flowschema status
flowcontrol.apiserver.k8s.io prioritylevelconfigurations c prioritylevelconfiguration status
resource.k8s.io resourceclaims n resourceclaim binding,driver,status
resource.k8s.io resourceclaimtemplates n resourceclaimtemplate
resource.k8s.io resourceslices c resourceslice
resource.k8s.io deviceclasses c deviceclass
resource.k8s.io devicetaintrules c devicetaintrule status
storagemigration.k8s.io storageversionmigrations c storageversionmigration,svm status
`

// impersonated lists what is only ever named by impersonation in one of the constrained modes, whose verbs start with
// "impersonate:".
const impersonated = `
authentication.k8s.io users c user
authentication.k8s.io groups c group
authentication.k8s.io serviceaccounts n serviceaccount,sa
authentication.k8s.io nodes c node,no
`

// Builtin returns the catalog of Kubernetes' own resources.
func Builtin() *Catalog {
	return &Catalog{resources: parseResources(builtin, known)}
}

func parseResources(text string, from origin) []resource {
	var out []resource
	for line := range strings.Lines(strings.TrimSpace(text)) {
		fields := strings.Fields(line)
		r := resource{
			group: strings.TrimPrefix(fields[0], "-"), name: fields[1], clusterScoped: fields[2] == "c",
			aliases: strings.Split(fields[3], ","), from: from,
		}
		if len(fields) > 4 {
			r.subresources = strings.Split(fields[4], ",")
		}
		out = append(out, r)
	}
	return out
}
