package podvalidation

import (
	"math"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Validate returns the faults of a new pod, whose defaults must have been set. Messages and field paths are the same as in
// Kubernetes 1.37. Alpha features are checked as if they were enabled.
func Validate(pod *corev1.Pod) field.ErrorList {
	c := newChecker(pod)
	c.object()
	spec := field.NewPath("spec")
	if len(pod.Spec.EphemeralContainers) > 0 {
		c.forbidden(spec.Child("ephemeralContainers"), "cannot be set on create")
	}
	if pod.Spec.NodeName != "" && len(pod.Spec.SchedulingGates) > 0 {
		c.forbidden(spec.Child("nodeName"), "cannot be set until all schedulingGates have been cleared")
	}
	c.profileAnnotationsMatch(spec)
	return c.list
}

// checker validates one pod. It holds the faults found so far, and the volumes and claims of the pod to which other parts
// of the pod refer.
type checker struct {
	faults
	pod     *corev1.Pod
	volumes map[string]*corev1.VolumeSource
	claims  sets.Set[string]
}

func newChecker(pod *corev1.Pod) *checker {
	c := &checker{pod: pod, volumes: map[string]*corev1.VolumeSource{}, claims: sets.New[string]()}
	for i := range pod.Spec.ResourceClaims {
		if name := pod.Spec.ResourceClaims[i].Name; name != "" {
			c.claims.Insert(name)
		}
	}
	return c
}

// object checks the rules for a pod when it is created and after each update.
func (c *checker) object() {
	c.metadata(field.NewPath("metadata"))
	c.spec(field.NewPath("spec"))
}

func (c *checker) spec(p *field.Path) {
	spec := &c.pod.Spec
	if spec.TerminationGracePeriodSeconds == nil {
		c.required(p.Child("terminationGracePeriodSeconds"), "")
	}
	c.allVolumes(p.Child("volumes"))
	c.resourceClaims(p.Child("resourceClaims"))
	c.mainContainers(p.Child("containers"))
	c.initContainers(p.Child("initContainers"))
	c.podResources(p.Child("resources"))
	c.policies(p)
	c.references(p)
	c.hostname(p)
	c.dns(p)
	c.podSecurityContext(p.Child("securityContext"))
	c.hostNamespaces(p)
	c.scheduling(p)
	c.operatingSystem(p)
	c.evictionResponders(p.Child("evictionResponders"))
	if spec.Overhead != nil {
		c.resources(&corev1.ResourceRequirements{Limits: spec.Overhead}, c.containerResourceName, p.Child("overhead"))
	}
}

func (c *checker) policies(p *field.Path) {
	spec := &c.pod.Spec
	requireOneOf(&c.faults, p.Child("restartPolicy"), spec.RestartPolicy,
		corev1.RestartPolicyAlways, corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever)
	requireOneOf(&c.faults, p.Child("dnsPolicy"), spec.DNSPolicy,
		corev1.DNSClusterFirstWithHostNet, corev1.DNSClusterFirst, corev1.DNSDefault, corev1.DNSNone)
	if spec.PreemptionPolicy != nil {
		requireOneOf(&c.faults, p.Child("preemptionPolicy"), *spec.PreemptionPolicy,
			corev1.PreemptLowerPriority, corev1.PreemptNever)
	}
	if s := spec.ActiveDeadlineSeconds; s != nil && (*s < 1 || *s > math.MaxInt32) {
		c.invalid(p.Child("activeDeadlineSeconds"), *s, validation.InclusiveRangeError(1, math.MaxInt32))
	}
}

// references checks the names of other objects.
func (c *checker) references(p *field.Path) {
	spec := &c.pod.Spec
	if spec.ServiceAccountName != "" {
		c.invalid(p.Child("serviceAccountName"), spec.ServiceAccountName,
			apivalidation.ValidateServiceAccountName(spec.ServiceAccountName, false)...)
	}
	c.optionalSubdomain(p.Child("nodeName"), spec.NodeName)
	c.optionalSubdomain(p.Child("priorityClassName"), spec.PriorityClassName)
	if spec.RuntimeClassName != nil {
		c.subdomain(p.Child("runtimeClassName"), *spec.RuntimeClassName)
	}
	if g := spec.SchedulingGroup; g != nil {
		if g.PodGroupName == nil {
			c.required(p.Child("schedulingGroup"), "must specify one of: `podGroupName`")
		} else {
			c.subdomain(p.Child("schedulingGroup", "podGroupName"), *g.PodGroupName)
		}
	}
	for i, gate := range spec.ReadinessGates {
		t := string(gate.ConditionType)
		c.invalid(p.Child("readinessGates").Index(i).Child("conditionType"), t, validation.IsQualifiedName(t)...)
	}
}

const maxHostnameOverride = 64

func (c *checker) hostname(p *field.Path) {
	spec := &c.pod.Spec
	if spec.Hostname != "" {
		c.label(p.Child("hostname"), spec.Hostname)
	}
	if spec.Subdomain != "" {
		c.label(p.Child("subdomain"), spec.Subdomain)
	}
	if spec.HostnameOverride == nil {
		return
	}
	path := p.Child("hostnameOverride")
	if spec.SetHostnameAsFQDN != nil && *spec.SetHostnameAsFQDN {
		c.forbidden(path, "may not be specified when setHostnameAsFQDN is true")
	}
	if spec.HostNetwork {
		c.forbidden(path, "may not be specified when hostNetwork is true")
	}
	if len(*spec.HostnameOverride) > maxHostnameOverride {
		c.add(field.TooLong(path, "", maxHostnameOverride))
	}
	c.invalid(path, *spec.HostnameOverride, validation.IsDNS1123Subdomain(*spec.HostnameOverride)...)
}

// Limits of the resolver in the C libraries of Linux.
const (
	maxNameservers     = 3
	maxSearchPaths     = 32
	maxSearchListChars = 2048
)

func (c *checker) dns(p *field.Path) {
	for i, alias := range c.pod.Spec.HostAliases {
		path := p.Child("hostAliases").Index(i)
		c.add(validation.IsValidIPForLegacyField(path.Child("ip"), alias.IP, true, nil)...)
		for j, name := range alias.Hostnames {
			c.subdomain(path.Child("hostnames").Index(j), name)
		}
	}
	config, path := c.pod.Spec.DNSConfig, p.Child("dnsConfig")
	if c.pod.Spec.DNSPolicy == corev1.DNSNone {
		if config == nil {
			c.required(path, "must provide `dnsConfig` when `dnsPolicy` is None")
		} else if len(config.Nameservers) == 0 {
			c.required(path.Child("nameservers"), "must provide at least one DNS nameserver when `dnsPolicy` is None")
		}
	}
	if config != nil {
		c.dnsConfig(config, path)
	}
}

func (c *checker) dnsConfig(config *corev1.PodDNSConfig, p *field.Path) {
	servers, searches := p.Child("nameservers"), p.Child("searches")
	if len(config.Nameservers) > maxNameservers {
		c.invalid(servers, config.Nameservers, "must not have more than 3 nameservers")
	}
	for i, server := range config.Nameservers {
		c.add(validation.IsValidIPForLegacyField(servers.Index(i), server, true, nil)...)
	}
	if len(config.Searches) > maxSearchPaths {
		c.invalid(searches, config.Searches, "must not have more than 32 search paths")
	}
	if len(strings.Join(config.Searches, " ")) > maxSearchListChars {
		c.invalid(searches, config.Searches, "must not have more than 2048 characters (including spaces) in the search list")
	}
	for i, search := range config.Searches {
		if name := strings.TrimSuffix(search, "."); search != "." {
			c.invalid(searches.Index(i), name, validation.IsDNS1123SubdomainWithUnderscore(name)...)
		}
	}
	for i := range config.Options {
		if config.Options[i].Name == "" {
			c.required(p.Child("options").Index(i), "must not be empty")
		}
	}
}

const (
	maxEvictionResponders = 10
	maxResponderPriority  = 100000
)

func (c *checker) evictionResponders(p *field.Path) {
	responders := c.pod.Spec.EvictionResponders
	if len(responders) > maxEvictionResponders {
		c.add(field.TooMany(p, len(responders), maxEvictionResponders))
		return
	}
	if len(responders) > 0 && c.pod.Spec.SchedulingGroup != nil {
		c.forbidden(p, "may not be specified when `schedulingGroup` is set")
	}
	seen := sets.New[string]()
	for i := range responders {
		r, path := &responders[i], p.Index(i)
		if r.Name == "" {
			c.required(path.Child("name"), "")
		} else {
			c.add(validation.IsDomainPrefixedKey(path.Child("name"), r.Name)...)
			c.unique(seen, path, r.Name)
		}
		switch {
		case r.Priority == nil:
			c.required(path.Child("priority"), "")
		case *r.Priority < 0 || *r.Priority > maxResponderPriority:
			c.invalid(path.Child("priority"), *r.Priority, validation.InclusiveRangeError(0, maxResponderPriority))
		}
	}
}

func (c *checker) labels(p *field.Path, labels map[string]string) {
	c.add(metavalidation.ValidateLabels(labels, p)...)
}
