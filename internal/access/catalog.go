package access

import (
	"cmp"
	"iter"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Catalog finds resources by the names that users write: plural, singular or short. Its resources are in this order: those that
// an API server serves, the core group first and then in the server's order; those that Kubernetes is known to have; those that
// only rules name. If a name means several resources, the first is used.
type Catalog struct {
	resources []resource
	// served is set if the catalog comes from the discovery documents of an API server.
	served bool
	// rules yields the rules of the policy; nil for none.
	rules iter.Seq[*rbacv1.PolicyRule]
}

// origin is the source from which a catalog knows a resource.
type origin uint8

const (
	byServer origin = iota // an API server serves it
	builtIn                // Kubernetes has it
	byRule                 // a rule names it
)

type resource struct {
	group, version, name string
	aliases              []string // singular and short names
	clusterScoped        bool
	subresources         []string
	from                 origin
}

// NewCatalog returns a catalog of the resources that an API server serves, followed by the resources of Builtin that it does not
// serve. groups gives the order, except that the core group comes first. lists may be in any order.
func NewCatalog(groups []*metav1.APIGroup, lists []*metav1.APIResourceList) *Catalog {
	c := Builtin()
	c.served = true
	builtin := c.resources
	c.resources = nil
	for _, list := range inOrder(groups, lists) {
		gv, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			continue
		}
		c.addServed(gv, list.APIResources)
	}
	for _, r := range builtin {
		if have := c.lookUp(r.group, r.name); have != nil {
			have.addSubresources(r.subresources...)
			continue
		}
		c.resources = append(c.resources, r)
	}
	return c
}

// inOrder sorts lists by the position of their group and version in groups.
func inOrder(groups []*metav1.APIGroup, lists []*metav1.APIResourceList) []*metav1.APIResourceList {
	place := map[string]int{}
	for _, g := range groups {
		for _, v := range append([]metav1.GroupVersionForDiscovery{g.PreferredVersion}, g.Versions...) {
			if _, again := place[v.GroupVersion]; !again {
				place[v.GroupVersion] = len(place)
			}
		}
	}
	rank := func(l *metav1.APIResourceList) int {
		if !strings.Contains(l.GroupVersion, "/") {
			return -1 // the core group
		}
		if i, ok := place[l.GroupVersion]; ok {
			return i
		}
		return len(place)
	}
	lists = slices.Clone(lists)
	slices.SortStableFunc(lists, func(a, b *metav1.APIResourceList) int {
		return cmp.Or(rank(a)-rank(b), strings.Compare(a.GroupVersion, b.GroupVersion))
	})
	return lists
}

func (c *Catalog) addServed(gv schema.GroupVersion, list []metav1.APIResource) {
	for i := range list {
		if r := &list[i]; !strings.Contains(r.Name, "/") && c.lookUp(gv.Group, r.Name) == nil {
			c.resources = append(c.resources, resource{
				group: gv.Group, version: gv.Version, name: r.Name, clusterScoped: !r.Namespaced,
				aliases: append([]string{r.SingularName, strings.ToLower(r.Kind)}, r.ShortNames...),
			})
		}
	}
	for i := range list {
		if name, sub, isSub := strings.Cut(list[i].Name, "/"); isSub {
			if r := c.lookUp(gv.Group, name); r != nil {
				r.addSubresources(sub)
			}
		}
	}
}

// Learn adds the resources, subresources and verbs that the rules of a policy name. An API server does not list all of
// them: no discovery document has nodes/metrics or the verb use.
func (c *Catalog) Learn(p *Policy) { c.rules = p.eachRule }

// anyRule reports whether match returns true for a rule of the policy.
func (c *Catalog) anyRule(match func(*rbacv1.PolicyRule) bool) bool {
	if c.rules == nil {
		return false
	}
	for r := range c.rules {
		if match(r) {
			return true
		}
	}
	return false
}

// ruledGroups returns the API groups for which a rule names a resource or one of its subresources, the core group first.
// Groups whose resources are known are left out, because a rule may list groups and resources that do not belong together;
// if no other group is left, they are returned. The wildcard is left out; if it is alone, it means the core group.
func (c *Catalog) ruledGroups(name string) []string {
	groups := map[string]bool{}
	c.anyRule(func(r *rbacv1.PolicyRule) bool {
		if slices.ContainsFunc(r.Resources, func(text string) bool { return text == name || strings.HasPrefix(text, name+"/") }) {
			for _, g := range r.APIGroups {
				groups[g] = true
			}
		}
		return false
	})
	if groups[rbacv1.APIGroupAll] {
		delete(groups, rbacv1.APIGroupAll)
		groups[""] = groups[""] || len(groups) == 0
	}
	all := sortedKeys(groups)
	if others := slices.DeleteFunc(slices.Clone(all), c.hasGroup); len(others) > 0 {
		return others
	}
	return all
}

// hasGroup reports whether the resources of an API group are known.
func (c *Catalog) hasGroup(group string) bool {
	return slices.ContainsFunc(c.resources, func(r resource) bool { return r.group == group })
}

// lookUp returns the resource of that group and name, or nil.
func (c *Catalog) lookUp(group, name string) *resource {
	for i := range c.resources {
		if r := &c.resources[i]; r.group == group && r.name == name {
			return r
		}
	}
	return nil
}

// named returns the resources with this name: first by their plural name, then by other names, then those that only rules
// name. If grouped is set, they are all of that API group.
func (c *Catalog) named(name, group string, grouped bool) []resource {
	var exact, other, only []resource
	for _, r := range c.resources {
		switch {
		case grouped && r.group != group:
		case r.name == name:
			exact = append(exact, r)
		case slices.Contains(r.aliases, name):
			other = append(other, r)
		}
	}
	for _, g := range c.ruledGroups(name) {
		if (!grouped || g == group) && c.lookUp(g, name) == nil && (len(exact) == 0 || !c.hasGroup(g)) {
			only = append(only, resource{group: g, name: name, from: byRule})
		}
	}
	return slices.Concat(exact, other, only)
}

func (r *resource) addSubresources(more ...string) {
	for _, sub := range more {
		if !slices.Contains(r.subresources, sub) {
			r.subresources = append(slices.Clip(r.subresources), sub)
		}
	}
}

// hasSubresource reports whether r is known to have a subresource, or a rule names it. Every resource has finalizers:
// Kubernetes authorizes an owner that blocks deletion by it. A resource that only rules name may have status and scale, as
// a custom resource may.
func (c *Catalog) hasSubresource(r *resource, sub string) bool {
	switch {
	case sub == "finalizers", slices.Contains(r.subresources, sub), r.anySubresource():
		return true
	case r.from == byRule && (sub == "status" || sub == "scale"):
		return true
	}
	return c.anyRule(func(rule *rbacv1.PolicyRule) bool {
		return (slices.Contains(rule.APIGroups, r.group) || slices.Contains(rule.APIGroups, rbacv1.APIGroupAll)) &&
			(slices.Contains(rule.Resources, r.name+"/"+sub) || slices.Contains(rule.Resources, "*/"+sub))
	})
}

// anySubresource reports whether any text is a subresource of r. The subresources of userextras are the keys of extras, which
// are arbitrary.
func (r *resource) anySubresource() bool { return slices.Contains(r.subresources, "*") }

// builtin lists Kubernetes' own resources, for policies in files, and the subresources that rules name but no discovery document
// names, such as the subresources of nodes that a node checks when it authorizes requests. A line is group ("-" for core), name,
// scope (n or c), aliases, subresources; the subresource "*" means any.
//
// The list does not follow from the tables of package api: a policy in files may be for any cluster, so the list also has
// resources that this server does not serve.
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

// impersonated lists the resources that exist only for constrained impersonation, whose verbs start with "impersonate:".
const impersonated = `
authentication.k8s.io users c user
authentication.k8s.io groups c group
authentication.k8s.io serviceaccounts n serviceaccount,sa
authentication.k8s.io nodes c node,no
`

// Builtin returns the catalog of Kubernetes' own resources.
func Builtin() *Catalog {
	return &Catalog{resources: parseResources(builtin, builtIn)}
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
