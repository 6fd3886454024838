package podvalidation

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	resourcehelper "k8s.io/component-helpers/resource"
)

// resources checks requests and limits. name checks the name of each resource.
func (c *checker) resources(r *corev1.ResourceRequirements, name func(corev1.ResourceName, *field.Path), p *field.Path) {
	limits, requests := p.Child("limits"), p.Child("requests")
	hugePages, compute := false, false
	visit := func(list corev1.ResourceList, path *field.Path, each func(corev1.ResourceName, resource.Quantity)) {
		for _, key := range slices.Sorted(maps.Keys(list)) {
			name(key, path.Key(string(key)))
			c.quantity(key, list[key], path.Key(string(key)))
			hugePages = hugePages || isHugePage(key)
			compute = compute || isCompute(key)
			each(key, list[key])
		}
	}
	visit(r.Limits, limits, func(corev1.ResourceName, resource.Quantity) {})
	visit(r.Requests, requests, func(key corev1.ResourceName, request resource.Quantity) {
		c.withinLimit(key, request, r.Limits, limits, requests)
	})
	if hugePages && !compute {
		c.forbidden(p, "HugePages require cpu or memory")
	}
	c.claimRefs(r.Claims, p.Child("claims"))
}

func (c *checker) withinLimit(name corev1.ResourceName, request resource.Quantity, list corev1.ResourceList, limits, requests *field.Path) {
	limit, limited := list[name]
	overcommit := isNative(name) && !isHugePage(name)
	switch {
	case !limited && !overcommit:
		c.required(limits, "Limit must be set for non overcommitable resources")
	case !limited:
	case !overcommit && request.Cmp(limit) != 0:
		c.invalid(requests, request.String(), fmt.Sprintf("must be equal to %s limit of %s", name, limit.String()))
	case request.Cmp(limit) > 0:
		c.invalid(requests, request.String(), fmt.Sprintf("must be less than or equal to %s limit of %s", name, limit.String()))
	}
}

func (c *checker) quantity(name corev1.ResourceName, q resource.Quantity, p *field.Path) {
	if q.Sign() < 0 {
		c.invalid(p, q.String(), "must be greater than or equal to 0")
	}
	if isExtended(name) && q.MilliValue()%1000 != 0 {
		c.invalid(p, q.String(), "must be an integer")
	}
	if isHugePage(name) && !wholePages(name, q) {
		c.invalid(p, q.String(), fmt.Sprintf("%s is not positive integer multiple of %s", q.String(), name))
	}
}

// wholePages reports whether q is a positive multiple of the page size in the name of the resource.
func wholePages(name corev1.ResourceName, q resource.Quantity) bool {
	size, err := resource.ParseQuantity(strings.TrimPrefix(string(name), corev1.ResourceHugePagesPrefix))
	if err != nil || size.Sign() <= 0 || size.MilliValue()%1000 != 0 || size.Value() == 0 {
		return false
	}
	return q.Value()%size.Value() == 0
}

// isNative reports whether a resource is one of Kubernetes' own, and not one of a device vendor.
func isNative(name corev1.ResourceName) bool {
	return !strings.Contains(string(name), "/") || strings.Contains(string(name), corev1.ResourceDefaultNamespacePrefix)
}

func isExtended(name corev1.ResourceName) bool {
	if isNative(name) || strings.HasPrefix(string(name), corev1.DefaultResourceRequestsPrefix) {
		return false
	}
	return len(validation.IsQualifiedName(corev1.DefaultResourceRequestsPrefix+string(name))) == 0
}

func (c *checker) containerResourceName(name corev1.ResourceName, p *field.Path) {
	if why := validation.IsQualifiedName(string(name)); len(why) > 0 {
		c.invalid(p, name, why...)
		return
	}
	if !strings.Contains(string(name), "/") {
		if !isHugePage(name) && !isStandardResource(name) {
			c.invalid(p, name, "must be a standard resource type or fully qualified")
		}
		if !isHugePage(name) && !isCompute(name) && name != corev1.ResourceEphemeralStorage {
			c.invalid(p, name, "must be a standard resource for containers")
		}
		return
	}
	if !isNative(name) && !isExtended(name) {
		c.invalid(p, name, "doesn't follow extended resource name standard")
	}
}

// isStandardResource reports whether the name belongs to a resource of containers or of quotas.
func isStandardResource(name corev1.ResourceName) bool {
	switch name {
	case corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage, corev1.ResourceStorage,
		corev1.ResourceRequestsCPU, corev1.ResourceRequestsMemory, corev1.ResourceRequestsEphemeralStorage,
		corev1.ResourceLimitsCPU, corev1.ResourceLimitsMemory, corev1.ResourceLimitsEphemeralStorage,
		corev1.ResourceRequestsStorage, corev1.ResourcePods, corev1.ResourceQuotas, corev1.ResourceServices,
		corev1.ResourceReplicationControllers, corev1.ResourceSecrets, corev1.ResourceConfigMaps,
		corev1.ResourcePersistentVolumeClaims, corev1.ResourceServicesNodePorts, corev1.ResourceServicesLoadBalancers:
		return true
	}
	return strings.HasPrefix(string(name), corev1.ResourceRequestsHugePagesPrefix)
}

func (c *checker) podResourceName(name corev1.ResourceName, p *field.Path) {
	if !resourcehelper.IsSupportedPodLevelResource(name) {
		c.add(field.NotSupported(p, name, sets.List(resourcehelper.SupportedPodLevelResources())))
	}
}

func (c *checker) podResources(p *field.Path) {
	r := c.pod.Spec.Resources
	if r == nil {
		return
	}
	if r.Claims != nil {
		c.forbidden(p.Child("claims"), "claims cannot be set for Resources at pod-level")
	}
	c.resources(&corev1.ResourceRequirements{Limits: r.Limits, Requests: r.Requests}, c.podResourceName, p)

	options := resourcehelper.PodResourcesOptions{}
	c.coverContainers(r.Requests, resourcehelper.AggregateContainerRequests(c.pod, options), "requests", p.Child("requests"))
	limits := resourcehelper.AggregateContainerLimits(c.pod, options)
	maps.DeleteFunc(limits, func(name corev1.ResourceName, _ resource.Quantity) bool { return !isHugePage(name) })
	c.coverContainers(r.Limits, limits, "limits", p.Child("limits"))
	for i := range c.pod.Spec.Containers {
		c.withinPodLimits(c.pod.Spec.Containers[i].Resources.Limits, r.Limits, p.Child("containers").Index(i))
	}
}

func (c *checker) coverContainers(pod, containers corev1.ResourceList, what string, p *field.Path) {
	for _, name := range slices.Sorted(maps.Keys(containers)) {
		sum := containers[name]
		if own, set := pod[name]; set && sum.Cmp(own) > 0 {
			c.invalid(p.Key(string(name)), own.String(),
				fmt.Sprintf("must be greater than or equal to aggregate container %s of %s", what, sum.String()))
		}
	}
}

func (c *checker) withinPodLimits(container, pod corev1.ResourceList, p *field.Path) {
	for _, name := range slices.Sorted(maps.Keys(container)) {
		limit := container[name]
		if own, set := pod[name]; set && limit.Cmp(own) > 0 {
			c.invalid(p.Key(string(name)).Child("limits"), limit.String(),
				fmt.Sprintf("must be less than or equal to pod limits of %s", own.String()))
		}
	}
}

// resourceClaims checks the claims of the pod.
func (c *checker) resourceClaims(p *field.Path) {
	if _, mirror := c.pod.Annotations[corev1.MirrorPodAnnotationKey]; mirror && len(c.pod.Spec.ResourceClaims) > 0 {
		c.forbidden(field.NewPath(""), "static pods do not support resource claims")
		return
	}
	seen := sets.New[string]()
	for i := range c.pod.Spec.ResourceClaims {
		claim, path := &c.pod.Spec.ResourceClaims[i], p.Index(i)
		if claim.Name == "" {
			c.required(path.Child("name"), "")
		} else {
			c.label(path.Child("name"), claim.Name)
			c.unique(seen, path.Child("name"), claim.Name)
		}
		direct, template := claim.ResourceClaimName, claim.ResourceClaimTemplateName
		switch {
		case direct == nil && template == nil:
			c.invalid(path, *claim, "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`")
		case direct != nil && template != nil:
			c.invalid(path, *claim, "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified")
		}
		if direct != nil {
			c.subdomain(path.Child("resourceClaimName"), *direct)
		}
		if template != nil {
			c.subdomain(path.Child("resourceClaimTemplateName"), *template)
		}
	}
}

// claimRefs checks the references of a container to the claims of its pod. A container uses either a whole claim or some
// requests of it.
func (c *checker) claimRefs(refs []corev1.ResourceClaim, p *field.Path) {
	whole, parts, keys := sets.New[string](), sets.New[string](), sets.New[string]()
	for i, ref := range refs {
		path := p.Index(i)
		if ref.Name == "" {
			c.required(path, "")
			continue
		}
		switch {
		case ref.Request == "":
			if whole.Has(ref.Name) || parts.Has(ref.Name) {
				c.add(field.Duplicate(path, ref.Name))
			}
			whole.Insert(ref.Name)
		case whole.Has(ref.Name):
			c.add(field.Duplicate(path, ref.Name))
		default:
			c.label(path.Child("request"), ref.Request)
			c.unique(keys, path, ref.Name+"/"+ref.Request)
			parts.Insert(ref.Name)
		}
		if !c.claims.Has(ref.Name) {
			missing := field.NotFound(path, ref.Name)
			missing.Detail = "must be one of the names in pod.spec.resourceClaims"
			if c.claims.Len() == 0 {
				missing.Detail += " which is empty"
			} else {
				missing.Detail += ": " + strings.Join(sets.List(c.claims), ", ")
			}
			c.add(missing)
		}
	}
}

// QOSClass returns the quality-of-service class that follows from the CPU and memory in the pod's spec. Resources of the pod as a
// whole replace the resources of its containers. The status is not read.
//
// Module kubectl has a function for this too. It is not used, because a module that imports lanyardtest would then need
// module kubectl.
func QOSClass(pod *corev1.Pod) corev1.PodQOSClass {
	anySet, allEqual := false, true
	for _, required := range requirements(pod) {
		for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
			request, limit := required.Requests[name], required.Limits[name]
			anySet = anySet || !request.IsZero() || !limit.IsZero()
			allEqual = allEqual && !limit.IsZero() && request.Equal(limit)
		}
	}
	switch {
	case !anySet:
		return corev1.PodQOSBestEffort
	case allEqual:
		return corev1.PodQOSGuaranteed
	}
	return corev1.PodQOSBurstable
}

func requirements(pod *corev1.Pod) []corev1.ResourceRequirements {
	if resourcehelper.IsPodLevelResourcesSet(pod) {
		return []corev1.ResourceRequirements{*pod.Spec.Resources}
	}
	var required []corev1.ResourceRequirements
	for _, containers := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for _, container := range containers {
			required = append(required, container.Resources)
		}
	}
	return required
}
