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
	Allowed bool `json:"allowed"`
	// Unknown is set, and Allowed is not, where the part of the policy that could be read decides nothing.
	Unknown bool    `json:"unknown,omitempty"`
	Subject Subject `json:"subject"`
	Verb    string  `json:"verb"`
	Target  Target  `json:"target"`
	// Unasked is set where the API server allows without asking the policy.
	Unasked bool `json:"withoutRBAC,omitempty"`
	// Ways are the requests by which an object of a given name is created.
	Ways []Way `json:"ways,omitempty"`
	// Grants are all bindings that allow, not only the one a decision names.
	Grants []Via `json:"grants,omitempty"`
	// Misses say, for a denial, what is closest to allowing.
	Misses []Miss   `json:"nearestMisses,omitempty"`
	Notes  []string `json:"notes,omitempty"`
}

// Way is one kind of request that does what is asked about, and whether it is allowed.
type Way struct {
	Text    string `json:"text"`
	Allowed bool   `json:"allowed"`
}

// Explain answers a question: as an API server answers a SubjectAccessReview with the attributes of the target.
func (p *Policy) Explain(q Question) Explanation {
	req := q.Subject.request(q.Verb, &q.Target)
	out := Explanation{Subject: q.Subject, Verb: q.Verb, Target: q.Target, Allowed: p.allows(&q.Subject, req)}
	out.Ways = p.ways(&q)
	out.Notes = nameNotes(&q)
	if q.Subject.isMaster() {
		out.Unasked = true
		out.Notes = append(out.Notes, mastersNote)
	}
	out.Grants = p.grants(req)
	if out.Allowed {
		return out
	}
	out.Notes = append(out.Notes, p.similar(&q.Subject)...)
	var more int
	if out.Misses, more = p.misses(&q, req); more > 0 {
		out.Notes = append(out.Notes, fmt.Sprintf("%d more misses as near are not shown", more))
	}
	return out
}

const mastersNote = "the API server allows the group " + Masters + " everything, whatever the policy says"

func (p *Policy) allows(s *Subject, req rbac.Request) bool {
	return s.isMaster() || p.index.Authorize(req).Allowed
}

// ways returns, for the creation of an object of a given name, what each request that does it is authorized by. A POST
// carries the name in its body and is authorized without it, so that no rule with resourceNames allows it. A PATCH of
// server-side apply carries it in its path; if the object does not exist, create is authorized too, with the name.
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

// nameNotes says which requests name an object where the verb is one that seldom does.
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
