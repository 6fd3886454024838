package rbac_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"lanyard.dev/internal/rbac"
	"lanyard.dev/internal/rbac/rbactest"
)

// decisionCase is one entry of testdata/decisions.yaml.
type decisionCase struct {
	Quirk               string
	Roles, ClusterRoles map[string][]rbacv1.PolicyRule
	RoleBindings        map[string]bindingRow
	ClusterRoleBindings map[string]bindingRow
	Rows                []decisionRow
}

type bindingRow struct {
	Role string
	To   []string
}

type decisionRow struct {
	As                    string
	Groups                []string
	Verb, Group, Resource string
	Sub, Name, In         string
	Path                  *string
	Allow                 bool
	Reason                *string
}

func (r decisionRow) request() rbac.Request {
	req := rbac.Request{
		User: r.As, Groups: r.Groups, Verb: r.Verb, APIGroup: r.Group, Resource: r.Resource,
		Subresource: r.Sub, Name: r.Name, Namespace: r.In, ResourceRequest: r.Path == nil,
	}
	if r.Path != nil {
		req.Path = *r.Path
	}
	return req
}

func (b bindingRow) roleRef() rbacv1.RoleRef {
	kind, name, _ := strings.Cut(b.Role, "/")
	return rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: kind, Name: name}
}

func (b bindingRow) subjects() []rbacv1.Subject {
	var out []rbacv1.Subject
	for _, s := range b.To {
		kind, name, _ := strings.Cut(s, "/")
		subject := rbacv1.Subject{Kind: kind, Name: name}
		if kind == rbacv1.ServiceAccountKind {
			subject.Namespace, subject.Name, _ = strings.Cut(name, "/")
		}
		out = append(out, subject)
	}
	return out
}

func objectMeta(key string) metav1.ObjectMeta {
	ns, name, _ := strings.Cut(key, "/")
	return metav1.ObjectMeta{Namespace: ns, Name: name}
}

func (c decisionCase) policy() *rbactest.Policy {
	p := rbactest.NewPolicy()
	for key, rules := range c.Roles {
		p.Roles[key] = &rbacv1.Role{ObjectMeta: objectMeta(key), Rules: rules}
	}
	for name, rules := range c.ClusterRoles {
		p.ClusterRoles[name] = &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: rules}
	}
	for key, b := range c.RoleBindings {
		p.RoleBindings[key] = &rbacv1.RoleBinding{ObjectMeta: objectMeta(key), RoleRef: b.roleRef(), Subjects: b.subjects()}
	}
	for name, b := range c.ClusterRoleBindings {
		p.ClusterRoleBindings[name] = &rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: name}, RoleRef: b.roleRef(), Subjects: b.subjects(),
		}
	}
	return p
}

// indexOf adds the objects of a policy in the order of a map, which is random.
func indexOf(p *rbactest.Policy) *rbac.Index {
	x := rbac.NewIndex()
	for _, o := range p.RoleBindings {
		x.SetRoleBinding(o)
	}
	for _, o := range p.ClusterRoles {
		x.SetClusterRole(o)
	}
	for _, o := range p.ClusterRoleBindings {
		x.SetClusterRoleBinding(o)
	}
	for _, o := range p.Roles {
		x.SetRole(o)
	}
	return x
}

func loadDecisions(t *testing.T) []decisionCase {
	t.Helper()
	data, err := os.ReadFile("testdata/decisions.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var cases []decisionCase
	if err := yaml.UnmarshalStrict(data, &cases); err != nil {
		t.Fatal(err)
	}
	return cases
}

func TestDecisions(t *testing.T) {
	t.Parallel()
	rows := 0
	for _, c := range loadDecisions(t) {
		rows += len(c.Rows)
		p := c.policy()
		for name, x := range map[string]*rbac.Index{"plain": indexOf(p), "padded": padded(p)} {
			t.Run(c.Quirk+"/"+name, func(t *testing.T) { checkRows(t, c.Rows, p, x) })
		}
	}
	if rows < 150 {
		t.Errorf("the table has %d rows, want at least 150", rows)
	}
}

func checkRows(t *testing.T, rows []decisionRow, p *rbactest.Policy, x *rbac.Index) {
	for i, row := range rows {
		req := row.request()
		d := x.Authorize(req)
		if d.Allowed != row.Allow {
			t.Errorf("row %d: %+v: index returns %v (%s), want %v", i+1, req, d.Allowed, d.Reason(), row.Allow)
		}
		if got := p.Allows(req); got != row.Allow {
			t.Errorf("row %d: %+v: naive evaluator returns %v, want %v", i+1, req, got, row.Allow)
		}
		if row.Reason != nil && d.Reason() != *row.Reason {
			t.Errorf("row %d: reason\n got %s\nwant %s", i+1, d.Reason(), *row.Reason)
		}
	}
}

// padded grants every subject twelve further roles that match no request, and adds rules to each role, so that the same
// decisions use the tree of a wide scope and the map of a large role.
func padded(p *rbactest.Policy) *rbac.Index {
	x := rbac.NewIndex()
	for key, r := range p.Roles {
		x.SetRole(&rbacv1.Role{ObjectMeta: objectMeta(key), Rules: fatten(r.Rules)})
	}
	for _, r := range p.ClusterRoles {
		x.SetClusterRole(&rbacv1.ClusterRole{ObjectMeta: r.ObjectMeta, Rules: fatten(r.Rules)})
	}
	for i := range 12 {
		name := fmt.Sprint("~pad", i)
		x.SetClusterRole(&rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: fatten(nil)})
		for _, b := range p.RoleBindings {
			meta := metav1.ObjectMeta{Namespace: b.Namespace, Name: b.Name + name}
			x.SetRoleBinding(&rbacv1.RoleBinding{ObjectMeta: meta, RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: name}, Subjects: b.Subjects})
		}
		for _, b := range p.ClusterRoleBindings {
			meta := metav1.ObjectMeta{Name: b.Name + name}
			x.SetClusterRoleBinding(&rbacv1.ClusterRoleBinding{ObjectMeta: meta, RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: name}, Subjects: b.Subjects})
		}
	}
	for _, b := range p.RoleBindings {
		x.SetRoleBinding(b)
	}
	for _, b := range p.ClusterRoleBindings {
		x.SetClusterRoleBinding(b)
	}
	return x
}

func fatten(rules []rbacv1.PolicyRule) []rbacv1.PolicyRule {
	out := append([]rbacv1.PolicyRule(nil), rules...)
	for i := range 20 {
		out = append(out, rbacv1.PolicyRule{
			Verbs: []string{"pad"}, APIGroups: []string{"pad"}, Resources: []string{fmt.Sprint("pad", i)},
		})
	}
	return out
}
