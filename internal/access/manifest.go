package access

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	"lanyard.dev/internal/rbac"
	"lanyard.dev/internal/rbac/aggregate"
)

const (
	// maxBytes is the default of Manifests.MaxBytes: more than a cluster with
	// 100,000 bindings takes.
	maxBytes = 256 << 20
	// maxDepth bounds lists within lists.
	maxDepth = 4
)

// Manifests collects policy objects from files. Where several files define an
// object the last read counts.
type Manifests struct {
	// Namespace is that of objects which should be in one and do not say in
	// which.
	Namespace string
	// MaxBytes bounds all that is read.
	MaxBytes int64

	clusterRoles        map[string]*rbacv1.ClusterRole
	roles               map[rbac.Ref]*rbacv1.Role
	roleBindings        map[rbac.Ref]*rbacv1.RoleBinding
	clusterRoleBindings map[string]*rbacv1.ClusterRoleBinding

	read     int64
	origin   map[rbac.Ref]string
	ignored  map[string]int
	homeless int
	notes    []string
}

// NewManifests returns an empty collection.
func NewManifests(namespace string) *Manifests {
	return &Manifests{
		Namespace: namespace, MaxBytes: maxBytes, origin: map[rbac.Ref]string{}, ignored: map[string]int{},
		clusterRoles: map[string]*rbacv1.ClusterRole{}, roles: map[rbac.Ref]*rbacv1.Role{},
		roleBindings: map[rbac.Ref]*rbacv1.RoleBinding{}, clusterRoleBindings: map[string]*rbacv1.ClusterRoleBinding{},
	}
}

// Read adds the objects of a file, YAML or JSON with any number of documents.
// An error names the file, the document and what is wrong with it; what came
// before it has been added.
func (m *Manifests) Read(file string, in io.Reader) error {
	// One byte more than is allowed tells that there is more.
	limited := &io.LimitedReader{R: in, N: m.MaxBytes - m.read + 1}
	defer func() { m.read = m.MaxBytes + 1 - limited.N }()
	buffered := bufio.NewReaderSize(limited, 64<<10)
	next := yamlDocuments(buffered)
	if start, _ := buffered.Peek(512); utilyaml.IsJSONBuffer(start) {
		next = jsonDocuments(buffered)
	}
	for number := 1; ; number++ {
		document, err := next()
		switch {
		case limited.N <= 0:
			return fmt.Errorf("%s: more than %d KiB in all", file, m.MaxBytes>>10)
		case errors.Is(err, io.EOF):
			return nil
		case err == nil:
			err = m.document(file, document)
		}
		if err != nil {
			return fmt.Errorf("%s: document %d: %w", file, number, err)
		}
	}
}

// yamlDocuments returns a function that returns the next document as JSON, nil
// for an empty one.
func yamlDocuments(in *bufio.Reader) func() ([]byte, error) {
	documents := utilyaml.NewYAMLReader(in)
	return func() ([]byte, error) {
		text, err := documents.Read()
		if err != nil {
			return nil, err
		}
		document, err := yaml.YAMLToJSONStrict(text)
		if err != nil {
			return nil, oneLine(err)
		}
		return document, nil
	}
}

// jsonDocuments is yamlDocuments for a sequence of JSON values.
func jsonDocuments(in *bufio.Reader) func() ([]byte, error) {
	decoder := json.NewDecoder(in)
	return func() ([]byte, error) {
		var raw json.RawMessage
		if err := decoder.Decode(&raw); err != nil {
			return nil, err
		}
		return raw, nil
	}
}

func oneLine(err error) error {
	return errors.New(strings.Join(strings.Fields(err.Error()), " "))
}

func (m *Manifests) document(file string, document []byte) error {
	document = bytes.TrimSpace(document)
	if len(document) == 0 || string(document) == "null" {
		return nil
	}
	return m.object(file, document, metav1.TypeMeta{}, 0)
}

// object adds one object, or those of a list. kind is what it is if it does not
// say so itself.
func (m *Manifests) object(file string, raw []byte, kind metav1.TypeMeta, depth int) error {
	var head struct {
		metav1.TypeMeta
		Items []json.RawMessage `json:"items"`
	}
	if err := json.Unmarshal(raw, &head); err != nil {
		return fmt.Errorf("not an object of the Kubernetes API: %w", oneLine(err))
	}
	if head.Kind == "" {
		head.TypeMeta = kind
	}
	if head.Kind == "" {
		return errors.New("not an object of the Kubernetes API: no kind")
	}
	item, isList := strings.CutSuffix(head.Kind, "List")
	if isList && depth >= maxDepth {
		return errors.New("lists within lists within lists")
	}
	if isList {
		return m.items(file, head.Items, metav1.TypeMeta{APIVersion: head.APIVersion, Kind: item}, depth)
	}
	gv, err := schema.ParseGroupVersion(head.APIVersion)
	if err != nil || gv.Group != rbacv1.GroupName {
		m.ignored[head.Kind]++
		return nil
	}
	return m.add(file, head.Kind, raw)
}

func (m *Manifests) items(file string, items []json.RawMessage, kind metav1.TypeMeta, depth int) error {
	if kind.Kind == "" { // of a plain List: each item says what it is
		kind = metav1.TypeMeta{}
	}
	for i, item := range items {
		if err := m.object(file, item, kind, depth+1); err != nil {
			return fmt.Errorf("items[%d]: %w", i, err)
		}
	}
	return nil
}

func (m *Manifests) add(file, kind string, raw []byte) error {
	switch kind {
	case "ClusterRole":
		return decode(m, file, raw, rbac.ClusterRole, func(_ rbac.Ref, o *rbacv1.ClusterRole) { m.clusterRoles[o.Name] = o })
	case "Role":
		return decode(m, file, raw, rbac.Role, func(ref rbac.Ref, o *rbacv1.Role) { m.roles[ref] = o })
	case "ClusterRoleBinding":
		return decode(m, file, raw, rbac.ClusterRoleBinding, func(_ rbac.Ref, o *rbacv1.ClusterRoleBinding) { m.clusterRoleBindings[o.Name] = o })
	case "RoleBinding":
		return decode(m, file, raw, rbac.RoleBinding, func(ref rbac.Ref, o *rbacv1.RoleBinding) { m.roleBindings[ref] = o })
	}
	return fmt.Errorf("%s has no kind %q", rbacv1.GroupName, kind)
}

// decode reads one object and files it.
func decode[T any, P interface {
	*T
	metav1.Object
}](m *Manifests, file string, raw []byte, kind rbac.Kind, put func(rbac.Ref, P),
) error {
	o := P(new(T))
	if err := json.Unmarshal(raw, o); err != nil {
		return fmt.Errorf("%s: %w", kind, oneLine(err))
	}
	if o.GetName() == "" {
		return fmt.Errorf("%s has no name", kind)
	}
	namespaced := kind == rbac.Role || kind == rbac.RoleBinding
	switch {
	case !namespaced:
		o.SetNamespace("")
	case o.GetNamespace() == "":
		o.SetNamespace(m.Namespace)
		m.homeless++
	}
	o.SetResourceVersion("") // the last one read counts, not the newest
	ref := rbac.Ref{Kind: kind, Namespace: o.GetNamespace(), Name: o.GetName()}
	if before, again := m.origin[ref]; again {
		m.notes = append(m.notes, fmt.Sprintf("%s is in %s and again in %s, which counts", objectOf(ref), before, file))
	}
	m.origin[ref] = file
	put(ref, o)
	return nil
}

// Default adds objects that count where no file defines them.
func (m *Manifests) Default(roles []*rbacv1.ClusterRole, bindings []*rbacv1.ClusterRoleBinding) {
	for _, r := range roles {
		if m.clusterRoles[r.Name] == nil {
			m.clusterRoles[r.Name] = r
		}
	}
	for _, b := range bindings {
		if m.clusterRoleBindings[b.Name] == nil {
			m.clusterRoleBindings[b.Name] = b
		}
	}
}

// Index returns the policy of all that was read. An aggregated ClusterRole has the rules of the roles it selects, as a
// server would fill them in; where no file holds any of those, it keeps the rules it was written with.
func (m *Manifests) Index() (*rbac.Index, error) {
	x := rbac.NewIndex()
	for _, r := range m.clusterRoles {
		if r.AggregationRule != nil {
			rules, err := aggregate.Rules(r, m.selected)
			if err != nil {
				return nil, fmt.Errorf("%s: ClusterRole %s: %w", m.origin[rbac.Ref{Kind: rbac.ClusterRole, Name: r.Name}], r.Name, err)
			}
			if len(rules) > 0 {
				whole := *r
				whole.Rules = rules
				r = &whole
			}
		}
		x.SetClusterRole(r)
	}
	for _, r := range m.roles {
		x.SetRole(r)
	}
	for _, b := range m.roleBindings {
		x.SetRoleBinding(b)
	}
	for _, b := range m.clusterRoleBindings {
		x.SetClusterRoleBinding(b)
	}
	return x, nil
}

// selected implements aggregate.List.
func (m *Manifests) selected(selector labels.Selector) (matched []*rbacv1.ClusterRole, err error) {
	for _, r := range m.clusterRoles {
		if selector.Matches(labels.Set(r.Labels)) {
			matched = append(matched, r)
		}
	}
	return matched, nil
}

// Missing returns the ClusterRoles that bindings refer to and no file defines.
func (m *Manifests) Missing() []string {
	missing := map[string]bool{}
	note := func(ref rbacv1.RoleRef) {
		if ref.Kind == "ClusterRole" && m.clusterRoles[ref.Name] == nil {
			missing[ref.Name] = true
		}
	}
	for _, b := range m.roleBindings {
		note(b.RoleRef)
	}
	for _, b := range m.clusterRoleBindings {
		note(b.RoleRef)
	}
	return sortedKeys(missing)
}

// Count is the number of policy objects read.
func (m *Manifests) Count() int { return len(m.origin) }

// Notes say what a reader of the answers has to know of the files.
func (m *Manifests) Notes() []string {
	notes := append([]string(nil), m.notes...)
	if m.homeless > 0 {
		notes = append(notes, counted(m.homeless, "object names no namespace and is", "objects name no namespace and are")+" taken to be in "+m.Namespace)
	}
	if len(m.ignored) > 0 {
		total := 0
		kinds := map[string]bool{}
		for kind, n := range m.ignored {
			total += n
			kinds[kind] = true
		}
		notes = append(notes, counted(total, "object is", "objects are")+" no policy and left out: "+strings.Join(sortedKeys(kinds), ", "))
	}
	return append(notes, m.aggregationNotes()...)
}

// aggregationNotes says where the rules an aggregated role was written with are not those a server would give it.
func (m *Manifests) aggregationNotes() []string {
	var notes []string
	for _, r := range m.clusterRoles {
		if r.AggregationRule == nil || len(r.Rules) == 0 {
			continue
		}
		rules, err := aggregate.Rules(r, m.selected)
		switch {
		case err != nil: // Index says so
		case len(rules) == 0:
			notes = append(notes, "ClusterRole/"+r.Name+" is aggregated from roles that no file holds; the rules it was written with count")
		case !aggregate.Equal(aggregate.Union(rules, r.Rules), rules):
			notes = append(notes, "ClusterRole/"+r.Name+" is aggregated; those rules it was written with that no selected role has do not count")
		}
	}
	slices.Sort(notes)
	return notes
}
