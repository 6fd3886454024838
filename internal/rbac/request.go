package rbac

import (
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
)

// accountPrefix starts the user name of every service account:
// system:serviceaccount:NAMESPACE:NAME.
const accountPrefix = "system:serviceaccount:"

// Request is one question to an [Index]. Groups are all groups of the user,
// implicit ones such as system:authenticated included.
type Request struct {
	User   string
	Groups []string
	Verb   string

	// ResourceRequest tells which of the following applies: the resource
	// fields when true, Path when false.
	ResourceRequest bool
	APIGroup        string
	Resource        string
	Subresource     string
	// Name is empty where the request names no object: create, list, watch
	// and deletecollection at the top level.
	Name string
	// Namespace is empty for cluster-scoped requests and for those across
	// all namespaces.
	Namespace string

	Path string
}

// query is a Request brought into the form rules are tested against.
type query struct {
	verb    string
	verbBit uint32
	group   string
	target  target
	star    string // subresource that "*/sub" may match; empty for none
	name    string
	// unnamed restricts the match to rules without resourceNames. Only
	// Covers asks so: a rule for every name is not covered by one for some.
	unnamed bool
	url     bool
	path    string
}

func newQuery(r *Request) query {
	q := query{verb: r.Verb, verbBit: verbBit(r.Verb)}
	if !r.ResourceRequest {
		q.url, q.path = true, r.Path
		return q
	}
	q.group, q.name, q.star = r.APIGroup, r.Name, r.Subresource
	q.target = requestTarget(r.Resource, r.Subresource)
	return q
}

// target is a resource as rules write it, "pods" or "pods/log", split at the
// first slash so that requests need no concatenation to look it up. sub is
// empty when nothing follows the slash; resource then keeps it, which keeps
// the split reversible.
type target struct{ resource, sub string }

var anyTarget = target{resource: rbacv1.ResourceAll}

func parseTarget(s string) target {
	resource, sub, _ := strings.Cut(s, "/")
	if sub == "" {
		return target{resource: s}
	}
	return target{resource, sub}
}

// requestTarget joins what a request names apart. Access reviews may put
// "pods/log" into the resource field; Kubernetes compares the joined text, so
// both spellings are the same target.
func requestTarget(resource, sub string) target {
	switch {
	case !strings.Contains(resource, "/"):
		return target{resource, sub}
	case sub == "":
		return parseTarget(resource)
	default:
		return parseTarget(resource + "/" + sub)
	}
}
