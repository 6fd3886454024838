package rbac

import rbacv1 "k8s.io/api/rbac/v1"

const (
	// maxPieces bounds the combinations of verb, group, resource and name
	// that Covers tests in one call. A rule that has more left is taken as
	// not covered: some 20 KiB of rule can spell billions.
	maxPieces = 1 << 20
	// maxUncovered bounds what Covers reports.
	maxUncovered = 256
)

// Covers reports whether a user already holds, in a namespace or cluster-wide
// where it is empty, everything the rules grant. If not, it returns what is
// missing, each rule with one verb, group, resource and name (or URL); at most
// 256 of them. This is the test that keeps users from granting what they lack.
//
// As in Kubernetes, one rule has to cover each combination, "*" is covered
// only by "*", and URLs in a ClusterRole held through a RoleBinding do count.
func (x *Index) Covers(user string, groups []string, namespace string, rules []rbacv1.PolicyRule) (bool, []rbacv1.PolicyRule) {
	c := coverage{x: x, req: Request{User: user, Groups: groups, Namespace: namespace}, left: maxPieces}
	for i := range rules {
		c.rule(&rules[i])
		if len(c.missing) >= maxUncovered {
			break
		}
	}
	return len(c.missing) == 0, c.missing
}

type coverage struct {
	x       *Index
	req     Request
	left    int
	missing []rbacv1.PolicyRule
}

func (c *coverage) rule(r *rbacv1.PolicyRule) {
	if !c.holds(resourcePiece(rbacv1.VerbAll, rbacv1.APIGroupAll, rbacv1.ResourceAll, nil)) {
		c.resources(r)
	}
	if !c.holds(urlPiece(rbacv1.VerbAll, rbacv1.NonResourceAll)) {
		c.urls(r)
	}
}

func (c *coverage) resources(r *rbacv1.PolicyRule) {
	names := make([][]string, 0, max(1, len(r.ResourceNames)))
	for i := range r.ResourceNames {
		names = append(names, r.ResourceNames[i:i+1])
	}
	if len(names) == 0 {
		names = append(names, nil)
	}
	for _, group := range r.APIGroups {
		for _, resource := range r.Resources {
			for _, verb := range r.Verbs {
				for _, name := range names {
					if !c.piece(r, resourcePiece(verb, group, resource, name)) {
						return
					}
				}
			}
		}
	}
}

func (c *coverage) urls(r *rbacv1.PolicyRule) {
	for _, url := range r.NonResourceURLs {
		for _, verb := range r.Verbs {
			if !c.piece(r, urlPiece(verb, url)) {
				return
			}
		}
	}
}

// piece tests one combination of whole and reports whether to go on.
func (c *coverage) piece(whole *rbacv1.PolicyRule, p rbacv1.PolicyRule) bool {
	if c.left--; c.left < 0 {
		c.missing = append(c.missing, *whole)
		return false
	}
	if !c.holds(p) {
		c.missing = append(c.missing, p)
	}
	return len(c.missing) < maxUncovered
}

// holds tests a rule with one verb, group, resource and at most one name. It
// reads as a request: wildcards in it match only themselves in a rule.
func (c *coverage) holds(p rbacv1.PolicyRule) bool {
	q := query{verb: p.Verbs[0], verbBit: verbBit(p.Verbs[0]), unnamed: len(p.ResourceNames) == 0}
	if len(p.NonResourceURLs) > 0 {
		q.url, q.path = true, p.NonResourceURLs[0]
	} else {
		q.group, q.target = p.APIGroups[0], parseTarget(p.Resources[0])
		q.star = q.target.sub
	}
	if !q.unnamed {
		q.name = p.ResourceNames[0]
	}
	return c.x.decide(&c.req, "", &q).Allowed ||
		c.req.Namespace != "" && c.x.decide(&c.req, c.req.Namespace, &q).Allowed
}

func resourcePiece(verb, group, resource string, name []string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{
		Verbs: []string{verb}, APIGroups: []string{group}, Resources: []string{resource}, ResourceNames: name,
	}
}

func urlPiece(verb, url string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{Verbs: []string{verb}, NonResourceURLs: []string{url}}
}
