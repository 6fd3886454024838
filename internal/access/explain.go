package access

import (
	"fmt"

	"lanyard.dev/internal/rbac"
)

// Question is whether a subject may do something.
type Question struct {
	Subject Subject
	Verb    string
	Target  Target
}

// Explanation is the answer to a Question, and the reasons for it.
type Explanation struct {
	Allowed bool    `json:"allowed"`
	Subject Subject `json:"subject"`
	Verb    string  `json:"verb"`
	Target  Target  `json:"target"`
	// Unasked is set where the API server allows without asking the policy.
	Unasked bool `json:"withoutRBAC,omitempty"`
	// Grants are all bindings that allow, not only the one a decision names.
	Grants []Via `json:"grants,omitempty"`
	// Misses say, for a denial, what is closest to allowing.
	Misses []Miss   `json:"nearestMisses,omitempty"`
	Notes  []string `json:"notes,omitempty"`
}

// Explain answers a question.
func (p *Policy) Explain(q Question) Explanation {
	out := Explanation{Subject: q.Subject, Verb: q.Verb, Target: q.Target}
	requests := p.requests(&q.Subject, q.Verb, &q.Target)
	out.Notes = q.Target.groupNotes(requests)
	for _, req := range requests {
		out.Allowed = out.Allowed || p.index.Authorize(req).Allowed
	}
	if q.Subject.isMaster() {
		out.Allowed, out.Unasked = true, true
		out.Notes = append(out.Notes, mastersNote)
	}
	out.Grants = p.grants(requests)
	if !out.Allowed {
		var more int
		if out.Misses, more = p.misses(&q, requests); more > 0 {
			out.Notes = append(out.Notes, fmt.Sprintf("%d more misses as near are not shown", more))
		}
	}
	return out
}

const mastersNote = "the API server allows the group " + Masters + " everything, whatever the policy says"

// grants returns each binding that allows one of the requests, which differ in
// nothing but the API group.
func (p *Policy) grants(requests []rbac.Request) []Via {
	req := requests[0]
	namespace := req.Namespace
	if !req.ResourceRequest {
		namespace = ""
	}
	var out []Via
	for _, g := range p.index.GrantsFor(req.User, req.Groups, namespace) {
		if rules := allowing(g.Rules, requests); len(rules) > 0 {
			out = append(out, viaOf(&g, rules))
		}
	}
	return sortVias(out, compareVias)
}
