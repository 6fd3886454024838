package access

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"

	"lanyard.dev/internal/rbac"
)

// Question asks whether a subject may do verb with a target.
type Question struct {
	Subject Subject
	Verb    string
	Target  Target
}

// Explanation is the answer to a Question, and the reasons for it.
type Explanation struct {
	Allowed bool `json:"allowed"`
	// Unknown is set, and Allowed is not, if the part of the policy that could be read does not decide the question.
	Unknown bool    `json:"unknown,omitempty"`
	Subject Subject `json:"subject"`
	Verb    string  `json:"verb"`
	Target  Target  `json:"target"`
	// WithoutRBAC is set if the API server allows the request without RBAC.
	WithoutRBAC bool `json:"withoutRBAC,omitempty"`
	// Ways are the requests that create an object of a given name.
	Ways []Way `json:"ways,omitempty"`
	// Grants are all bindings that allow the request. A decision names only one.
	Grants []Via `json:"grants,omitempty"`
	// Misses are, for a denial, the grants that come closest to allowing the request.
	Misses []Miss   `json:"nearestMisses,omitempty"`
	Notes  []string `json:"notes,omitempty"`
}

// Way is a kind of request for what the question asks, and whether it is allowed.
type Way struct {
	Text    string `json:"text"`
	Allowed bool   `json:"allowed"`
}

// Explain answers a question as an API server answers a SubjectAccessReview with the attributes of the target.
func (p *Policy) Explain(q Question) Explanation {
	req := q.Subject.request(q.Verb, &q.Target)
	out := Explanation{Subject: q.Subject, Verb: q.Verb, Target: q.Target, Allowed: p.allows(&q.Subject, req)}
	out.Ways = p.ways(&q)
	out.Notes = nameNotes(&q)
	if q.Subject.isMaster() {
		out.WithoutRBAC = true
		out.Notes = append(out.Notes, mastersNote)
	}
	out.Grants = p.grants(req)
	if out.Allowed {
		return out
	}
	out.Notes = append(out.Notes, p.similar(&q.Subject)...)
	var more int
	if out.Misses, more = p.misses(&q, req); more > 0 {
		out.Notes = append(out.Notes, fmt.Sprintf("%d more misses that are as close are not shown", more))
	}
	return out
}

const mastersNote = "the API server allows the group " + Masters + " everything, whatever the policy contains"

func (p *Policy) allows(s *Subject, req rbac.Request) bool {
	return s.isMaster() || p.index.Authorize(req).Allowed
}

// ways returns the requests that create an object of a given name. A POST has the name in its body and is authorized without
// it, so no rule with resourceNames allows it. A PATCH of server-side apply has the name in its path; if the object does not
// exist, create is authorized too, with the name.
func (p *Policy) ways(q *Question) []Way {
	if q.Verb != "create" || q.Target.Name == "" || q.Target.Subresource != "" || q.Target.Path != "" {
		return nil
	}
	post := q.Target
	post.Name = ""
	if post.Resource == "namespaces" && post.APIGroup == "" {
		post.Namespace = "" // it is the new namespace's own
	}
	allows := func(verb string, t *Target) bool { return p.allows(&q.Subject, q.Subject.request(verb, t)) }
	return []Way{
		{"POST, as kubectl create sends it, is authorized as create without the name", allows("create", &post)},
		{
			"PATCH, as kubectl apply --server-side sends it, is authorized as patch and create with the name",
			allows("patch", &q.Target) && allows("create", &q.Target),
		},
	}
}

// nameNotes returns a note if requests with the verb seldom or never name an object.
func nameNotes(q *Question) []string {
	if q.Target.Name == "" || q.Target.Subresource != "" || q.Target.Path != "" {
		return nil
	}
	switch q.Verb {
	case "list", "watch":
		return []string{fmt.Sprintf("a request to %s names an object only by the field selector metadata.name=%s", q.Verb, q.Target.Name)}
	case "deletecollection":
		return []string{"no request to deletecollection names an object"}
	}
	return nil
}

// grants returns each binding that allows the request.
func (p *Policy) grants(req rbac.Request) []Via {
	namespace := req.Namespace
	if !req.ResourceRequest {
		namespace = ""
	}
	var out []Via
	for _, g := range p.index.GrantsFor(req.User, req.Groups, namespace) {
		if rules := allowing(g.Rules, req); len(rules) > 0 {
			out = append(out, viaOf(&g, rules))
		}
	}
	return sortVias(out, compareVias)
}

// Reasons why a grant does not allow a request.
const (
	MissVerb      = "verb"      // it grants other verbs
	MissGroup     = "apiGroup"  // it grants the resource in another API group
	MissResource  = "resource"  // it grants the resource without the subresource, or the subresource alone; or a similar path
	MissName      = "name"      // it is limited to other names
	MissNamespace = "namespace" // it applies in another namespace, or in one only
	MissRole      = "role"      // its role does not exist, or could not be read
)

const (
	// farthest is how many things a grant may lack and still be a miss.
	farthest = 2
	// maxMisses is the limit for the misses of an explanation.
	maxMisses = 50
)

// Miss is a grant of the subject that almost allows.
type Miss struct {
	// Lacks are the reasons: Miss constants.
	Lacks []string `json:"lacks"`
	// Text describes the reasons.
	Text string `json:"text"`
	Via
}

// misses returns the subject's grants that lack the fewest things, and how many further grants lack as few.
func (p *Policy) misses(q *Question, req rbac.Request) (nearest []Miss, more int) {
	var all []Miss
	for g := range p.index.Grants() {
		if q.Subject.matches(&g.Subject) {
			all = append(all, p.missesOf(&g, q, req)...)
		}
	}
	least := farthest
	for i := range all {
		least = min(least, len(all[i].Lacks))
	}
	all = slices.DeleteFunc(all, func(m Miss) bool { return len(m.Lacks) > least })
	slices.SortFunc(all, func(a, b Miss) int { return cmp.Or(compareVias(a.Via, b.Via), strings.Compare(a.Text, b.Text)) })
	all = slices.CompactFunc(all, func(a, b Miss) bool { return a.Binding == b.Binding && a.Subject == b.Subject && a.Text == b.Text })
	if len(all) > maxMisses {
		return all[:maxMisses], len(all) - maxMisses
	}
	return all, 0
}

// missesOf returns the misses of one grant. Rules that lack the same single thing are one miss; a rule that lacks more is a miss
// of its own.
func (p *Policy) missesOf(g *rbac.Grant, q *Question, req rbac.Request) []Miss {
	where := namespaceMiss(g, q)
	if g.Dangling {
		lack := append([]lack{{MissRole, fmt.Sprintf("bound to %s, %s", objectOf(g.Role), p.lacking(g.Role))}}, where...)
		return []Miss{newMiss(g, nil, lack)}
	}
	var out []Miss
	alone := map[string][]rbacv1.PolicyRule{}
	for i := range g.Rules {
		lacks, near := lacksOf(&g.Rules[i], req)
		switch {
		case !near || len(lacks)+len(where) > farthest:
		case len(lacks) == 1:
			alone[lacks[0]] = append(alone[lacks[0]], g.Rules[i])
		default:
			rules := g.Rules[i : i+1]
			out = append(out, newMiss(g, rules, append(describeLacks(lacks, rules, q), where...)))
		}
	}
	for kind, rules := range alone {
		out = append(out, newMiss(g, rules, append(describeLacks([]string{kind}, rules, q), where...)))
	}
	return out
}

// lack is a thing that a grant lacks, and its description.
type lack struct{ kind, text string }

func newMiss(g *rbac.Grant, rules []rbacv1.PolicyRule, lacks []lack) Miss {
	m := Miss{Via: viaOf(g, rules)}
	var texts []string
	for _, l := range lacks {
		m.Lacks = append(m.Lacks, l.kind)
		texts = append(texts, l.text)
	}
	m.Text = strings.Join(texts, "; ")
	return m
}

// namespaceMiss returns nothing for a grant that applies in the namespace of the question.
func namespaceMiss(g *rbac.Grant, q *Question) []lack {
	granted := g.Binding.Namespace
	switch {
	case granted == "" || q.Target.Path == "" && granted == q.Target.Namespace:
		return nil
	case q.Target.Path != "":
		return []lack{{MissNamespace, fmt.Sprintf("granted in namespace %s, and a URL is in none", granted)}}
	case q.Target.ClusterScoped:
		return []lack{{MissNamespace, fmt.Sprintf("granted in namespace %s, and %s are in none", granted, q.Target.joined())}}
	case q.Target.Namespace == "":
		return []lack{{MissNamespace, fmt.Sprintf("granted in namespace %s, requested in all namespaces", granted)}}
	}
	return []lack{{MissNamespace, fmt.Sprintf("granted in namespace %s, requested in %s", granted, q.Target.Namespace)}}
}

// every matches any verb, group, resource or path.
var every = []string{"*"}

// lacksOf tests each part of the rule with the other parts replaced by wildcards. near is false if the rule has nothing in
// common with the request.
func lacksOf(r *rbacv1.PolicyRule, req rbac.Request) (lacks []string, near bool) {
	if !req.ResourceRequest {
		return lacksOfPath(r, req)
	}
	named := slices.ContainsFunc(r.Resources, func(resource string) bool { return nearResource(resource, &req) })
	for _, part := range []struct {
		lack string
		rule rbacv1.PolicyRule
	}{
		{MissResource, rbacv1.PolicyRule{Verbs: every, APIGroups: every, Resources: r.Resources}},
		{MissGroup, rbacv1.PolicyRule{Verbs: every, APIGroups: r.APIGroups, Resources: every}},
		{MissName, rbacv1.PolicyRule{Verbs: every, APIGroups: every, Resources: every, ResourceNames: r.ResourceNames}},
		{MissVerb, rbacv1.PolicyRule{Verbs: r.Verbs, APIGroups: every, Resources: every}},
	} {
		if rbac.RuleAllows(&part.rule, req) {
			continue
		}
		// A rule for another resource, or for everything in another group, has nothing in common with the request.
		if !named && (part.lack == MissResource || part.lack == MissGroup) {
			return nil, false
		}
		lacks = append(lacks, part.lack)
	}
	return lacks, true
}

func lacksOfPath(r *rbacv1.PolicyRule, req rbac.Request) (lacks []string, near bool) {
	if !rbac.RuleAllows(&rbacv1.PolicyRule{Verbs: every, NonResourceURLs: r.NonResourceURLs}, req) {
		if !slices.ContainsFunc(r.NonResourceURLs, func(url string) bool { return nearPath(url, req.Path) }) {
			return nil, false
		}
		lacks = append(lacks, MissResource)
	}
	if !rbac.RuleAllows(&rbacv1.PolicyRule{Verbs: r.Verbs, NonResourceURLs: every}, req) {
		lacks = append(lacks, MissVerb)
	}
	return lacks, true
}

// nearResource compares resources without their subresources.
func nearResource(resource string, req *rbac.Request) bool {
	granted, _, _ := strings.Cut(resource, "/")
	asked, _, _ := strings.Cut(req.Resource, "/")
	return granted == asked
}

// nearPath reports whether one path is below the other.
func nearPath(url, path string) bool {
	url = strings.TrimRight(url, "*/")
	path = strings.TrimRight(path, "*/")
	if url == "" || path == "" {
		return false
	}
	return url == path || strings.HasPrefix(url, path+"/") || strings.HasPrefix(path, url+"/")
}

func describeLacks(kinds []string, rules []rbacv1.PolicyRule, q *Question) []lack {
	var out []lack
	for _, kind := range kinds {
		out = append(out, lack{kind, describeLack(kind, rules, q)})
	}
	return out
}

// describeLack describes what the rules grant instead of what the question asks.
func describeLack(kind string, rules []rbacv1.PolicyRule, q *Question) string {
	has := func(of func(rbacv1.PolicyRule) []string) string { return listed(rules, of) }
	switch kind {
	case MissVerb:
		return fmt.Sprintf("has %s, not %s", has(func(r rbacv1.PolicyRule) []string { return r.Verbs }), q.Verb)
	case MissGroup:
		groups := has(func(r rbacv1.PolicyRule) []string {
			named := make([]string, len(r.APIGroups))
			for i, g := range r.APIGroups {
				named[i] = groupName(g)
			}
			return named
		})
		return fmt.Sprintf("has %s of API group %s, not %s", q.Target.joined(), groups, groupName(q.Target.APIGroup))
	case MissName:
		names := has(func(r rbacv1.PolicyRule) []string { return r.ResourceNames })
		if q.Target.Name == "" {
			return fmt.Sprintf("has it only by name: %s", names)
		}
		return fmt.Sprintf("has it for %s, not %s", names, q.Target.Name)
	}
	if q.Target.Path != "" {
		return fmt.Sprintf("has %s, not %s", has(func(r rbacv1.PolicyRule) []string { return r.NonResourceURLs }), q.Target.Path)
	}
	req := rbac.Request{Resource: q.Target.Resource}
	near := has(func(r rbacv1.PolicyRule) []string {
		return slices.DeleteFunc(slices.Clone(r.Resources), func(s string) bool { return !nearResource(s, &req) })
	})
	return fmt.Sprintf("has %s, not %s", near, q.Target.joined())
}

// listed returns the items, each once, and at most eight.
func listed(rules []rbacv1.PolicyRule, of func(rbacv1.PolicyRule) []string) string {
	const most = 8
	var items []string
	seen := map[string]bool{}
	for _, r := range rules {
		for _, item := range of(r) {
			if !seen[item] {
				seen[item] = true
				items = append(items, item)
			}
		}
	}
	if len(items) > most {
		items = append(items[:most:most], fmt.Sprintf("%d more", len(items)-most))
	}
	if len(items) == 0 {
		return "nothing"
	}
	return strings.Join(items, ", ")
}
