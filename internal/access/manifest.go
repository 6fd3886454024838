package access

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"lanyard.dev/internal/rbac"
	"lanyard.dev/internal/rbac/objects"
)

const (
	// maxBytes is the default of Manifests.MaxBytes. The policy of a cluster with 100,000 bindings is smaller.
	maxBytes = 256 << 20
	// maxDepth is the limit for the nesting of lists.
	maxDepth = 4
)

// Manifests collects policy objects from files. If several files define an object, the one that was read last is used. Objects
// that a server would refuse are ignored, with a note.
type Manifests struct {
	// Namespace is the namespace of namespaced objects that name none.
	Namespace string
	// MaxBytes is the limit for all files together.
	MaxBytes int64

	clusterRoles        map[string]*rbacv1.ClusterRole
	roles               map[rbac.Ref]*rbacv1.Role
	roleBindings        map[rbac.Ref]*rbacv1.RoleBinding
	clusterRoleBindings map[string]*rbacv1.ClusterRoleBinding
	// accounts holds the names of service accounts, by namespace.
	accounts map[string][]string

	read             int64
	origin           map[rbac.Ref]string
	ignored          map[string]int
	withoutNamespace int
	generated        int
	defaulted        int
	skipped          []string
	refused          []string
	notes            []string
}

// NewManifests returns an empty collection.
func NewManifests(namespace string) *Manifests {
	return &Manifests{
		Namespace: namespace, MaxBytes: maxBytes, origin: map[rbac.Ref]string{}, ignored: map[string]int{},
		clusterRoles: map[string]*rbacv1.ClusterRole{}, roles: map[rbac.Ref]*rbacv1.Role{},
		roleBindings: map[rbac.Ref]*rbacv1.RoleBinding{}, clusterRoleBindings: map[string]*rbacv1.ClusterRoleBinding{},
		accounts: map[string][]string{},
	}
}

// errTooMuch reports that the files contain more than MaxBytes.
var errTooMuch = errors.New("too much to read")

// found is an object in a file.
type found struct {
	kind metav1.TypeMeta
	raw  []byte
}

// Read adds the objects of a file: YAML or JSON with any number of documents. After an error, which names the file and the
// document, nothing of the file is added.
func (m *Manifests) Read(file string, in io.Reader) error {
	objects, err := m.scan(file, in)
	if err != nil {
		return err
	}
	for _, o := range objects {
		m.add(file, o)
	}
	return nil
}

// ReadOneOfMany adds the objects of a file in a directory that the user named. If the file contains no manifests, as for
// example the values or a template of a chart, it is skipped with a note.
func (m *Manifests) ReadOneOfMany(file string, in io.Reader) error {
	text, err := io.ReadAll(io.LimitReader(in, m.MaxBytes-m.read+1))
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	err = m.Read(file, bytes.NewReader(text))
	if err == nil || errors.Is(err, errTooMuch) {
		return err
	}
	reason := strings.TrimPrefix(err.Error(), file+": ")
	if bytes.Contains(text, []byte(rbacv1.GroupName)) {
		reason += "; it mentions " + rbacv1.GroupName + ", so render it first if it is a template"
	}
	m.Skip(file, reason)
	return nil
}

// Skip adds a note that a file was skipped.
func (m *Manifests) Skip(file, reason string) {
	m.skipped = append(m.skipped, fmt.Sprintf("%s (%s)", file, reason))
}

// scan returns the objects of a file.
func (m *Manifests) scan(file string, in io.Reader) (objects []found, err error) {
	// One more byte than the limit is read, to detect that the limit is exceeded.
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
			return nil, fmt.Errorf("%s: %w: more than %d KiB in all", file, errTooMuch, m.MaxBytes>>10)
		case errors.Is(err, io.EOF):
			return objects, nil
		case err == nil:
			objects, err = appendDocument(objects, document)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: document %d: %w", file, number, err)
		}
	}
}

// yamlDocuments returns a function that returns the next document as JSON; nil for an empty document.
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

func appendDocument(objects []found, document []byte) ([]found, error) {
	document = bytes.TrimSpace(document)
	if len(document) == 0 || string(document) == "null" {
		return objects, nil
	}
	return appendObject(objects, document, metav1.TypeMeta{}, 0)
}

// appendObject appends an object, or the objects of a list. kind is the kind of an object that has none.
func appendObject(objects []found, raw []byte, kind metav1.TypeMeta, depth int) ([]found, error) {
	var head struct {
		metav1.TypeMeta
		Items []json.RawMessage `json:"items"`
	}
	if err := json.Unmarshal(raw, &head); err != nil {
		return nil, fmt.Errorf("not an object of the Kubernetes API: %w", oneLine(err))
	}
	if head.Kind == "" {
		head.TypeMeta = kind
	}
	if head.Kind == "" {
		return nil, errors.New("not an object of the Kubernetes API: no kind")
	}
	item, isList := strings.CutSuffix(head.Kind, "List")
	switch {
	case !isList:
		return append(objects, found{head.TypeMeta, raw}), nil
	case depth >= maxDepth:
		return nil, fmt.Errorf("lists are nested more than %d deep", maxDepth)
	}
	kind = metav1.TypeMeta{APIVersion: head.APIVersion, Kind: item}
	if item == "" { // an item of a plain List has its own kind
		kind = metav1.TypeMeta{}
	}
	for i, item := range head.Items {
		var err error
		if objects, err = appendObject(objects, item, kind, depth+1); err != nil {
			return nil, fmt.Errorf("items[%d]: %w", i, err)
		}
	}
	return objects, nil
}

// add adds an object, if it is policy and a server would accept it.
func (m *Manifests) add(file string, o found) {
	gv, err := schema.ParseGroupVersion(o.kind.APIVersion)
	switch {
	case err == nil && gv == corev1.SchemeGroupVersion && o.kind.Kind == "ServiceAccount":
		m.addAccount(file, o.raw)
	case err != nil || gv.Group != rbacv1.GroupName:
		m.ignored[o.kind.Kind]++
	case gv != rbacv1.SchemeGroupVersion:
		m.refuse(file, o.kind.Kind, fmt.Sprintf("no server serves %s", gv))
	default:
		m.addPolicy(file, o)
	}
}

func (m *Manifests) addPolicy(file string, o found) {
	switch o.kind.Kind {
	case "ClusterRole":
		if r, ref, ok := decode[rbacv1.ClusterRole](m, file, o.raw, rbac.ClusterRole); ok && m.accept(file, ref, objects.ValidateClusterRole(r)) {
			m.clusterRoles[r.Name] = r
		}
	case "Role":
		if r, ref, ok := decode[rbacv1.Role](m, file, o.raw, rbac.Role); ok && m.accept(file, ref, objects.ValidateRole(r)) {
			m.roles[ref] = r
		}
	case "ClusterRoleBinding":
		if b, ref, ok := decode[rbacv1.ClusterRoleBinding](m, file, o.raw, rbac.ClusterRoleBinding); ok {
			objects.SetClusterRoleBindingDefaults(b)
			faults := objects.ValidateClusterRoleBinding(b)
			if old := m.clusterRoleBindings[b.Name]; old != nil {
				faults = append(faults, objects.ValidateRoleRefUpdate(b.RoleRef, old.RoleRef)...)
			}
			if m.accept(file, ref, faults) {
				m.clusterRoleBindings[b.Name] = b
			}
		}
	case "RoleBinding":
		if b, ref, ok := decode[rbacv1.RoleBinding](m, file, o.raw, rbac.RoleBinding); ok {
			objects.SetRoleBindingDefaults(b)
			faults := objects.ValidateRoleBinding(b)
			if old := m.roleBindings[ref]; old != nil {
				faults = append(faults, objects.ValidateRoleRefUpdate(b.RoleRef, old.RoleRef)...)
			}
			if m.accept(file, ref, faults) {
				m.roleBindings[ref] = b
			}
		}
	default:
		m.refuse(file, o.kind.Kind, fmt.Sprintf("%s has no such kind", rbacv1.GroupName))
	}
}

// accept reports whether an object has no faults and is used. An object that was read before is replaced, with a note.
func (m *Manifests) accept(file string, ref rbac.Ref, faults field.ErrorList) bool {
	if len(faults) > 0 {
		m.refuse(file, objectOf(ref).String(), oneLine(faults.ToAggregate()).Error())
		return false
	}
	if before, again := m.origin[ref]; again {
		m.notes = append(m.notes, fmt.Sprintf("%s is in %s and again in %s; the latter is used", objectOf(ref), before, file))
	}
	m.origin[ref] = file
	return true
}

// refuse adds a note that an object is ignored.
func (m *Manifests) refuse(file, object, reason string) {
	m.refused = append(m.refused, fmt.Sprintf("%s in %s is ignored, because a server refuses it: %s", object, file, reason))
}

// decode decodes an object as a server does: unknown fields are left out, also those that differ only in case. ok is false,
// and there is a note, if the object cannot be decoded.
func decode[T any, P interface {
	*T
	metav1.Object
}](m *Manifests, file string, raw []byte, kind rbac.Kind) (o P, ref rbac.Ref, ok bool) {
	o = P(new(T))
	unknown, err := kjson.UnmarshalStrict(raw, o)
	if err != nil {
		m.refuse(file, kind.String(), oneLine(err).Error())
		return nil, ref, false
	}
	m.locate(o, kind == rbac.Role || kind == rbac.RoleBinding)
	o.SetResourceVersion("") // the one that was read last is used, and not the newest
	ref = rbac.Ref{Kind: kind, Namespace: o.GetNamespace(), Name: o.GetName()}
	for _, fault := range unknown {
		m.notes = append(m.notes, fmt.Sprintf("%s in %s: %s, which a server leaves out or refuses", objectOf(ref), file, oneLine(fault)))
	}
	return o, ref, true
}

// locate sets the namespace and name that a server or kubectl would set.
func (m *Manifests) locate(o metav1.Object, namespaced bool) {
	switch {
	case !namespaced:
		o.SetNamespace("")
	case o.GetNamespace() == "":
		o.SetNamespace(m.Namespace)
		m.withoutNamespace++
	}
	if o.GetName() == "" && o.GetGenerateName() != "" {
		m.generated++
		o.SetName(fmt.Sprintf("%s(generated %d)", o.GetGenerateName(), m.generated))
	}
}

func (m *Manifests) addAccount(file string, raw []byte) {
	account := &corev1.ServiceAccount{}
	if _, err := kjson.UnmarshalStrict(raw, account); err != nil {
		m.refuse(file, "ServiceAccount", oneLine(err).Error())
		return
	}
	m.locate(account, true)
	faults := apivalidation.ValidateObjectMeta(&account.ObjectMeta, true, apivalidation.ValidateServiceAccountName, field.NewPath("metadata"))
	if len(faults) > 0 {
		m.refuse(file, Object{"ServiceAccount", account.Namespace, account.Name}.String(), oneLine(faults.ToAggregate()).Error())
		return
	}
	m.accounts[account.Namespace] = append(m.accounts[account.Namespace], account.Name)
}
