package access_test

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	rbacv1 "k8s.io/api/rbac/v1"

	"lanyard.dev/internal/access"
)

const binding = `{"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "b"},
  "roleRef": {"kind": "ClusterRole", "name": "r"}, "subjects": [{"kind": "User", "name": "ann"}]}`

const clusterRole = `{"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "r"},
  "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]}`

func TestReadForms(t *testing.T) {
	t.Parallel()
	asList := func(kind string) string {
		return `{"apiVersion": "v1", "kind": "` + kind + `", "items": [` + binding + `, ` + clusterRole + `]}`
	}
	withoutKind := strings.Replace(clusterRole, `"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",`, "", 1)
	for name, text := range map[string]string{
		"documents":            "---\n" + binding + "\n---\n# nothing\n---\n" + clusterRole + "\n...\n",
		"JSON after JSON":      binding + "\n" + clusterRole,
		"JSON after JSON, odd": "\n " + binding + clusterRole + "\n",
		"list":                 asList("List"),
		"list of lists":        `{"kind": "List", "items": [` + asList("List") + `]}`,
		"typed list": `{"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleList", "items": [` + withoutKind + `]}` +
			"\n" + binding,
		"CRLF": strings.ReplaceAll("---\n"+binding+"\n---\n"+clusterRole+"\n", "\n", "\r\n"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if e := explain(t, policyOf(t, text), "user:ann", "get", "pods", "shop"); !e.Allowed {
				t.Errorf("not allowed: %+v", e.Misses)
			}
		})
	}
}

func TestReadRefuses(t *testing.T) {
	t.Parallel()
	deep := strings.Repeat(`{"kind": "List", "items": [`, 10) + clusterRole + strings.Repeat("]}", 10)
	for name, test := range map[string]struct{ text, want string }{
		"YAML":          {"---\n" + binding + "\n---\na: [b\n", "policy.yaml: document 2: "},
		"JSON":          {binding + "\n{\"kind\": }", "policy.yaml: document 2: invalid character"},
		"cut off":       {"{\"kind\": \"Role\"", "policy.yaml: document 1: unexpected EOF"},
		"no object":     {"- a\n- b\n", "policy.yaml: document 1: not an object of the Kubernetes API"},
		"a string":      {"hello\n", "policy.yaml: document 1: not an object of the Kubernetes API"},
		"no kind":       {"a: b\n", "policy.yaml: document 1: not an object of the Kubernetes API: no kind"},
		"twice a key":   {"kind: Role\nkind: Role\n", "already set in map"},
		"in a list":     {`{"kind": "List", "items": [` + clusterRole + `, {}]}`, "policy.yaml: document 1: items[1]: not an object"},
		"lists in list": {deep, "lists are nested more than 4 deep"},
		"aliases": {"a: &a [x,x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\n" +
			"d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e,*e]\nkind: Role\n",
			"policy.yaml: document 1: "},
		"template": {"{{- if .Values.rbac }}\nkind: Role\n{{- end }}\n", "policy.yaml: document 1: "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := access.NewManifests("default")
			err := m.Read("policy.yaml", strings.NewReader(test.text))
			if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want one line with %q", err, test.want)
			}
			if m.Count() != 0 {
				t.Errorf("%d objects of a broken file count", m.Count())
			}
			// In a directory such a file is skipped with a note.
			m = access.NewManifests("default")
			err = m.ReadOneOfMany("policy.yaml", strings.NewReader(test.text))
			note := "1 file holds no manifests and is skipped: policy.yaml (" + strings.TrimPrefix(test.want, "policy.yaml: ")
			if err != nil || len(m.Notes()) != 1 || m.Count() != 0 || strings.HasPrefix(test.want, "policy.yaml: ") && !strings.HasPrefix(m.Notes()[0], note) {
				t.Errorf("in a directory: %v, notes %q", err, m.Notes())
			}
		})
	}
}

func TestReadIsBounded(t *testing.T) {
	t.Parallel()
	one := "# a comment\n" + clusterRole + "\n"
	m := access.NewManifests("default")
	m.MaxBytes = int64(2 * len(one))
	for range 2 {
		if err := m.Read("fits", strings.NewReader(one)); err != nil {
			t.Fatal(err)
		}
	}
	for _, text := range []string{"\n", one, strings.Repeat("x", 1<<20)} {
		for _, read := range []func(string, io.Reader) error{m.Read, m.ReadOneOfMany} {
			if err := read("more", strings.NewReader(text)); err == nil || !strings.HasPrefix(err.Error(), "more: too much to read: more than ") {
				t.Errorf("%.20q: got %v, want an error", text, err)
			}
		}
	}
}

func TestNotesOfFiles(t *testing.T) {
	t.Parallel()
	m := access.NewManifests("lab")
	for _, file := range []string{"a.yaml", "b.yaml"} {
		if err := m.Read(file, strings.NewReader(clusterRole)); err != nil {
			t.Fatal(err)
		}
	}
	more := `{"kind": "Pod"} {"kind": "ConfigMap"} {"kind": "Pod", "apiVersion": "v1"} ` +
		`{"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "b"}, "roleRef": {"kind": "ClusterRole", "name": "other"}}` +
		`{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "web"}}`
	if err := m.Read("c.json", strings.NewReader(more)); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"ClusterRole/r is in a.yaml and again in b.yaml; the latter is used", "2 objects name no namespace and are assumed to be in lab",
		"3 objects are not policy and are ignored: ConfigMap, Pod",
	}
	if diff := cmp.Diff(want, m.Notes()); diff != "" {
		t.Errorf("notes (-want +got):\n%s", diff)
	}
	if m.Count() != 2 {
		t.Errorf("count %d", m.Count())
	}
}

// TestInvalidObjectsAreIgnored reads bindings that a server refuses, each for another reason, and a role that allows
// everything.
func TestInvalidObjectsAreIgnored(t *testing.T) {
	t.Parallel()
	const all = `{"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "all"},
  "rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]}`
	bound := func(head, meta, ref, subject string) string {
		return all + `{"apiVersion": "rbac.authorization.k8s.io/` + head + `", "metadata": ` + meta + `, "roleRef": ` + ref + `, "subjects": [` + subject + `]}`
	}
	const (
		ref  = `{"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "all"}`
		user = `{"kind": "User", "name": "ann"}`
		web  = `{"kind": "ServiceAccount", "name": "web"}`
		crb  = `v1", "kind": "ClusterRoleBinding`
		rb   = `v1", "kind": "RoleBinding`
		b    = `{"name": "b"}`
	)
	for name, test := range map[string]struct {
		text string
		want string // empty for what a server takes
	}{
		"user":                  {bound(crb, b, ref, user), ""},
		"group left out":        {bound(crb, b, `{"kind": "ClusterRole", "name": "all"}`, user), ""},
		"generated name":        {bound(crb, `{"generateName": "b-"}`, ref, user), ""},
		"account at home":       {bound(rb, b, ref, web), ""},
		"account without home":  {bound(crb, b, ref, web), "ClusterRoleBinding/b in x.json is ignored, because a server refuses it: subjects[0].namespace: Required value"},
		"account of RBAC":       {bound(crb, b, ref, `{"kind": "ServiceAccount", "name": "web", "namespace": "shop", "apiGroup": "rbac.authorization.k8s.io"}`), "subjects[0].apiGroup: Unsupported value"},
		"user of the core":      {bound(crb, b, ref, `{"kind": "User", "name": "ann", "apiGroup": "v1"}`), `subjects[0].apiGroup: Unsupported value: "v1"`},
		"role of another group": {bound(crb, b, strings.Replace(ref, "rbac.authorization", "rbac", 1), user), "roleRef.apiGroup: Unsupported value"},
		"cluster to role":       {bound(crb, b, strings.Replace(ref, "ClusterRole", "Role", 1), user), `roleRef.kind: Unsupported value: "Role"`},
		"one bad subject":       {bound(crb, b, ref, user+`, {"kind": "Robot", "name": "x"}`), `subjects[1].kind: Unsupported value: "Robot"`},
		"no name":               {bound(crb, `{}`, ref, user), "metadata.name: Required value"},
		"wrong type":            {bound(crb, b, ref, `"ann"`), "json: cannot unmarshal string"},
		"unknown kind":          {bound(`v1", "kind": "ClusterBinding`, b, ref, user), "ClusterBinding in x.json is ignored"},
		"older version":         {bound(`v1beta1", "kind": "ClusterRoleBinding`, b, ref, user), "no server serves rbac.authorization.k8s.io/v1beta1"},
		"letters":               {bound(crb, b, ref, `{"Kind": "User", "name": "ann"}`), `unknown field "subjects[0].Kind"`},
		"role without verbs":    {strings.Replace(bound(crb, b, ref, user), `"verbs"`, `"verb"`, 1), "rules[0].verbs: Required value"},
		"role with a bad URL":   {strings.Replace(bound(crb, b, ref, user), `"verbs"`, `"nonResourceURLs": ["/x"], "verbs"`, 1), "rules cannot apply to both"},
		"role ref changed": {bound(crb, b, strings.Replace(ref, `"all"`, `"none"`, 1), user) + bound(crb, b, ref, user),
			"roleRef: Invalid value"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := access.NewManifests("shop")
			if err := m.Read("x.json", strings.NewReader(test.text)); err != nil {
				t.Fatal(err)
			}
			index, err := m.Index()
			if err != nil {
				t.Fatal(err)
			}
			p := access.New(index)
			allowed := false
			for _, who := range []string{"user:ann", "sa:shop/web"} {
				allowed = allowed || explain(t, p, who, "get", "pods", "shop").Allowed
			}
			if notes := strings.Join(m.Notes(), "\n"); allowed != (test.want == "") || !strings.Contains(notes, test.want) || test.want == "" && strings.Contains(notes, "refuses") {
				t.Errorf("allowed=%v with notes %q, want %q", allowed, notes, test.want)
			}
		})
	}
}

func TestLintOfFiles(t *testing.T) {
	t.Parallel()
	m := access.NewManifests("shop")
	text := clusterRole + strings.NewReplacer(`"pods"`, `"pod"`, `"get"`, `"gett"`, `"r"`, `"typo"`).Replace(clusterRole) +
		`{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "web"}}` +
		`{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "Wbe"}}` +
		`{"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "b"}, "roleRef": {"kind": "ClusterRole", "name": "r"},
		"subjects": [{"kind": "ServiceAccount", "name": "wbe"}, {"kind": "ServiceAccount", "name": "web"}, {"kind": "ServiceAccount", "name": "other", "namespace": "elsewhere"}]}`
	if err := m.Read("x.json", strings.NewReader(text)); err != nil {
		t.Fatal(err)
	}
	want := []string{
		`ClusterRole/typo in x.json: rules[0]: resource "pod": did you mean "pods"?`,
		`ClusterRole/typo in x.json: rules[0]: verb "gett": did you mean "get"?`,
		"RoleBinding/shop/b in x.json: subjects[0]: no file contains the service account shop/wbe: did you mean shop/web?",
	}
	if diff := cmp.Diff(want, m.Lint(access.Builtin())); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if notes := m.Notes(); !strings.HasPrefix(notes[0], "ServiceAccount/shop/Wbe in x.json is ignored, because a server refuses it: metadata.name: Invalid value") {
		t.Errorf("notes %q", notes)
	}
	index, err := m.Index()
	if err != nil {
		t.Fatal(err)
	}
	for who, want := range map[string][]string{
		"sa:shop/web": nil, "sa:lab/default": nil, "user:zoe": nil, "group:devs": nil,
		"sa:shop/wbe": {"no file contains the service account shop/wbe: did you mean shop/web?"},
		"sa:lab/x":    {"no file contains the service account lab/x"},
	} {
		s := subject(t, who)
		if diff := cmp.Diff(want, m.SubjectNotes(access.New(index), &s)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", who, diff)
		}
	}
}

func TestAggregatedRolesInFiles(t *testing.T) {
	t.Parallel()
	const text = `
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: whole}
aggregationRule: {clusterRoleSelectors: [{matchLabels: {part: "yes"}}]}
rules: [{apiGroups: [""], resources: [secrets], verbs: [get]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: part, labels: {part: "yes"}}
rules: [{apiGroups: [""], resources: [pods], verbs: [get]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: b}
roleRef: {kind: ClusterRole, name: whole}
subjects: [{kind: User, name: ann}]
`
	// A server overwrites the rules in a manifest with the rules of the selected roles, which may be in no file.
	alone := strings.Replace(text, `part: "yes"}}`, `part: "no"}}`, 1)
	alone = strings.Replace(alone, `matchLabels: {part: "yes"}`, `matchLabels: {part: "other"}`, 1)
	for name, c := range map[string]struct {
		text, note string
		allowed    map[string]bool
	}{
		"parts in the files": {text, "ClusterRole/whole is aggregated; its written rules that no selected role has are ignored", map[string]bool{"pods": true, "secrets": false}},
		"parts elsewhere":    {alone, "ClusterRole/whole is aggregated from roles that no file contains; its written rules are used", map[string]bool{"pods": false, "secrets": true}},
	} {
		for resource, want := range c.allowed {
			if e := explain(t, policyOf(t, c.text), "user:ann", "get", resource, "shop"); e.Allowed != want {
				t.Errorf("%s: get %s is %v: %+v", name, resource, e.Allowed, e.Misses)
			}
		}
		read := access.NewManifests("default")
		if err := read.Read("x.yaml", strings.NewReader(c.text)); err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(read.Notes(), c.note) {
			t.Errorf("%s: notes %q, want %q", name, read.Notes(), c.note)
		}
	}
	m := access.NewManifests("default")
	broken := strings.Replace(text, `matchLabels: {part: "yes"}`, `matchExpressions: [{key: a, operator: Near}]`, 1)
	if err := m.Read("x.yaml", strings.NewReader(broken)); err != nil {
		t.Fatal(err)
	}
	if notes := strings.Join(m.Notes(), "\n"); m.Count() != 2 || !strings.Contains(notes, "ClusterRole/whole in x.yaml is ignored, because a server refuses it: ") ||
		!strings.Contains(notes, "aggregationRule.clusterRoleSelectors[0]") {
		t.Errorf("%d objects count, notes %q", m.Count(), notes)
	}
}

func TestDefaultsYieldToFiles(t *testing.T) {
	t.Parallel()
	m := access.NewManifests("default")
	if err := m.Read("policy", strings.NewReader(clusterRole+binding)); err != nil {
		t.Fatal(err)
	}
	other := &rbacv1.ClusterRole{}
	other.Name = "r"
	m.Default([]*rbacv1.ClusterRole{other}, []*rbacv1.ClusterRoleBinding{})
	index, err := m.Index()
	if err != nil {
		t.Fatal(err)
	}
	if e := explain(t, access.New(index), "user:ann", "get", "pods", ""); !e.Allowed {
		t.Error("the default role took the place of the one in the file")
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(shop))
	f.Add([]byte(binding + clusterRole))
	f.Add([]byte("a: &a [*a]\n---\nkind: List\nitems: [{}]"))
	f.Add([]byte(`{"kind": "List", "items": [null, [], "x"]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		m := access.NewManifests("default")
		if err := m.Read("fuzz", strings.NewReader(string(text))); err != nil {
			if !strings.HasPrefix(err.Error(), "fuzz: ") {
				t.Errorf("error does not name the file: %v", err)
			}
			return
		}
		index, err := m.Index()
		if err != nil {
			return
		}
		p := access.New(index)
		s := subject(t, "sa:default/x")
		c := access.Builtin()
		m.Lint(c)
		m.Notes()
		m.SubjectNotes(p, &s)
		c.Learn(p)
		for _, name := range []string{"pods/x", "x", "x.y/status", "deploy"} {
			if target, _, err := c.Resolve(access.Spec{Verb: "crat", Text: name}); err == nil {
				p.Explain(access.Question{Subject: s, Verb: "crat", Target: target})
			}
		}
		p.List(s, "")
		p.WhoCan("get", access.Target{Resource: "pods"})
		p.Explain(access.Question{Subject: s, Verb: "get", Target: access.Target{Resource: "pods", Namespace: "default"}})
	})
}

func BenchmarkExplainAmong100kBindings(b *testing.B) {
	b.ReportAllocs()
	var text strings.Builder
	text.WriteString(clusterRole)
	for i := range 100_000 {
		fmt.Fprintf(&text, `{"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "b%d"},
  "roleRef": {"kind": "ClusterRole", "name": "r"}, "subjects": [{"kind": "User", "name": "user-%d"}]}`, i, i)
	}
	p := policyOf(b, text.String())
	s := subject(b, "user:user-7")
	for b.Loop() {
		if p.Explain(access.Question{Subject: s, Verb: "list", Target: access.Target{Resource: "pods"}}).Allowed {
			b.Fatal("allowed")
		}
	}
}
