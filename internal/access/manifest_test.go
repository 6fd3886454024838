package access_test

import (
	"fmt"
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
		"older version": strings.ReplaceAll(binding+clusterRole, "io/v1", "io/v1beta1"),
		"CRLF":          strings.ReplaceAll("---\n"+binding+"\n---\n"+clusterRole+"\n", "\n", "\r\n"),
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
		"no name":       {strings.Replace(clusterRole, `"name": "r"`, "", 1), "policy.yaml: document 1: ClusterRole has no name"},
		"wrong type":    {strings.Replace(clusterRole, `["get"]`, `"get"`, 1), "policy.yaml: document 1: ClusterRole: json: cannot unmarshal string"},
		"unknown kind":  {strings.Replace(clusterRole, `"ClusterRole"`, `"ClusterRule"`, 1), `no kind "ClusterRule"`},
		"twice a key":   {"kind: Role\nkind: Role\n", "already set in map"},
		"in a list":     {`{"kind": "List", "items": [` + clusterRole + `, {}]}`, "policy.yaml: document 1: items[1]: not an object"},
		"lists in list": {deep, "lists within lists"},
		"template":      {"{{- if .Values.rbac }}\nkind: Role\n{{- end }}\n", "policy.yaml: document 1: "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := access.NewManifests("default").Read("policy.yaml", strings.NewReader(test.text))
			if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want one line with %q", err, test.want)
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
		if err := m.Read("more", strings.NewReader(text)); err == nil || !strings.HasPrefix(err.Error(), "more: more than ") {
			t.Errorf("%.20q: got %v, want an error", text, err)
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
		`{"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "b"}, "roleRef": {"kind": "ClusterRole", "name": "other"}}`
	if err := m.Read("c.json", strings.NewReader(more)); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"ClusterRole/r is in a.yaml and again in b.yaml, which counts", "1 object names no namespace and is taken to be in lab",
		"3 objects are no policy and left out: ConfigMap, Pod",
	}
	if diff := cmp.Diff(want, m.Notes()); diff != "" {
		t.Errorf("notes (-want +got):\n%s", diff)
	}
	if missing := m.Missing(); !slices.Equal(missing, []string{"other"}) || m.Count() != 2 {
		t.Errorf("missing %q, count %d", missing, m.Count())
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
	// A server overwrites written rules with those of the selected roles; a file may hold none of these.
	alone := strings.Replace(text, `part: "yes"}}`, `part: "no"}}`, 1)
	alone = strings.Replace(alone, `matchLabels: {part: "yes"}`, `matchLabels: {part: "other"}`, 1)
	for name, c := range map[string]struct {
		text, note string
		allowed    map[string]bool
	}{
		"parts in the files": {text, "ClusterRole/whole is aggregated; those rules it was written with that no selected role has do not count", map[string]bool{"pods": true, "secrets": false}},
		"parts elsewhere":    {alone, "ClusterRole/whole is aggregated from roles that no file holds; the rules it was written with count", map[string]bool{"pods": false, "secrets": true}},
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
	if _, err := m.Index(); err == nil || !strings.Contains(err.Error(), "x.yaml: ClusterRole whole: aggregationRule.clusterRoleSelectors[0]") {
		t.Errorf("got %v, want an error that names the selector", err)
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
		p.List(s)
		p.WhoCan("get", access.Target{Resource: "pods", AnyGroup: true})
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
