package apiserver_test

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"

	"lanyard.dev/internal/apiserver"
	"lanyard.dev/internal/apiserver/api"
	"lanyard.dev/internal/apiserver/registry"
)

// claims is a resource of a group that the server does not have. Its Go types are in k8s.io/api, and OpenAPI is
// generated for them.
var claims = schema.GroupResource{Group: "sample.example.com", Resource: "claims"}

type claim = *corev1.PersistentVolumeClaim

// sample is the table of the group. It serves the same objects in two versions.
func sample() api.Group {
	entry := api.Resource{
		Name: claims.Resource, Singular: "claim", ShortNames: []string{"cl"}, Categories: []string{"all"}, Namespaced: true, Mirrored: true,
		Kind: &corev1.PersistentVolumeClaim{}, List: &corev1.PersistentVolumeClaimList{},
		Columns: []metav1.TableColumnDefinition{{Name: "Name", Type: "string", Format: "name"}, {Name: "Volume", Type: "string"}},
		Stored: api.Objects[claim]{
			Strategy: registry.Strategy[claim]{Check: func(c claim) field.ErrorList {
				if c.Spec.VolumeName == "forbidden" {
					return field.ErrorList{field.Forbidden(field.NewPath("spec", "volumeName"), "by the sample")}
				}
				return nil
			}},
			Default: func(c claim) { c.Spec.VolumeName = cmp.Or(c.Spec.VolumeName, "any") },
			Row:     func(c claim, _ time.Time) []any { return []any{c.Name, c.Spec.VolumeName} },
			Fields: func(c claim) fields.Set {
				return fields.Set{"metadata.name": c.Name, "metadata.namespace": c.Namespace, "spec.volumeName": c.Spec.VolumeName}
			},
		},
	}
	older := entry
	older.Mirrored, older.Stored = false, api.SameObjects[claim]{Of: claims}
	return api.Group{Name: claims.Group, Versions: []api.Version{
		{Name: "v1", Resources: []api.Resource{entry}}, {Name: "v1beta1", Resources: []api.Resource{older}},
	}}
}

// known remembers which objects a feed has delivered.
type known struct {
	mu    sync.Mutex
	names map[string]bool
}

func (k *known) Set(obj runtime.Object) { k.note(obj, true) }

func (k *known) Delete(obj runtime.Object) { k.note(obj, false) }

func (k *known) note(obj runtime.Object, there bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.names[obj.(metav1.Object).GetName()] = there
}

func (k *known) has(name string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.names[name]
}

// sampled is a server with the sample in its tables.
type sampled struct {
	*running
	feed    *known
	clients dynamic.Interface
}

func startSample(t *testing.T) *sampled {
	t.Helper()
	s := &sampled{feed: &known{names: map[string]bool{}}}
	alone := func(o *apiserver.Options) { o.Etcd.SoleWriter = true }
	s.running = newSite(t).startBy(t, alone, func(o apiserver.Options) (*apiserver.Server, error) {
		server, err := apiserver.NewWith(o, append(api.All(), sample()))
		if err == nil {
			server.Listen(claims, s.feed)
		}
		return server, err
	})
	var err error
	if s.clients, err = dynamic.NewForConfig(s.admin); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *sampled) in(namespace, version string) dynamic.ResourceInterface {
	return s.clients.Resource(claims.WithVersion(version)).Namespace(namespace)
}

func newClaim(version, name, volume string) *unstructured.Unstructured {
	spec := map[string]any{}
	if volume != "" {
		spec["volumeName"] = volume
	}
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": claims.Group + "/" + version, "kind": "PersistentVolumeClaim", "metadata": map[string]any{"name": name}, "spec": spec,
	}}
}

func volumeOf(t *testing.T, c *unstructured.Unstructured) string {
	t.Helper()
	volume, _, err := unstructured.NestedString(c.Object, "spec", "volumeName")
	if err != nil {
		t.Fatal(err)
	}
	return volume
}

// TestOneTableEntryIsEnough adds a kind by a table entry alone, and finds it in every part of the API.
func TestOneTableEntryIsEnough(t *testing.T) {
	t.Parallel()
	s := startSample(t)
	t.Run("discovered in both versions", s.discovered)
	t.Run("defaulted, checked and served in both versions", s.served)
	t.Run("delivered before the write returns", s.delivered)
	t.Run("selected by fields", s.selected)
	t.Run("listed with its columns", s.listed)
	t.Run("applied, and described by OpenAPI", s.described)
	t.Run("emptied with its namespace", s.emptied)
}

func (s *sampled) discovered(t *testing.T) {
	client := kubernetes.NewForConfigOrDie(s.admin).Discovery()
	groups, resources, err := client.ServerGroupsAndResources()
	if err != nil {
		t.Fatal(err)
	}
	at := slices.IndexFunc(groups, func(g *metav1.APIGroup) bool { return g.Name == claims.Group })
	if at < 0 || len(groups[at].Versions) != 2 || groups[at].PreferredVersion.Version != "v1" {
		t.Errorf("groups: %v", groups)
	}
	for _, version := range []string{"v1", "v1beta1"} {
		at := slices.IndexFunc(resources, func(l *metav1.APIResourceList) bool { return l.GroupVersion == claims.Group+"/"+version })
		if at < 0 || len(resources[at].APIResources) != 1 {
			t.Fatalf("%s: %v", version, resources)
		}
		got := resources[at].APIResources[0]
		if got.Name != "claims" || got.SingularName != "claim" || got.Kind != "PersistentVolumeClaim" || !got.Namespaced ||
			!slices.Equal(got.ShortNames, []string{"cl"}) || !slices.Equal(got.Categories, []string{"all"}) || len(got.Verbs) != 8 {
			t.Errorf("%s: %+v", version, got)
		}
	}
}

func (s *sampled) served(t *testing.T) {
	made, err := s.in("default", "v1beta1").Create(t.Context(), newClaim("v1beta1", "both", ""), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if made.GetAPIVersion() != claims.Group+"/v1beta1" || volumeOf(t, made) != "any" {
		t.Errorf("made: %v", made)
	}
	found, err := s.in("default", "v1").Get(t.Context(), "both", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if found.GetAPIVersion() != claims.Group+"/v1" || found.GetUID() != made.GetUID() || volumeOf(t, found) != "any" {
		t.Errorf("in the other version: %v", found)
	}
	_, err = s.in("default", "v1beta1").Create(t.Context(), newClaim("v1beta1", "refused", "forbidden"), metav1.CreateOptions{})
	if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "by the sample") {
		t.Errorf("a fault: %v", err)
	}
}

func (s *sampled) delivered(t *testing.T) {
	for _, version := range []string{"v1", "v1beta1"} {
		name := "delivered-" + version
		if _, err := s.in("default", version).Create(t.Context(), newClaim(version, name, ""), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		if !s.feed.has(name) {
			t.Errorf("%s: a listener does not know an object whose creation has returned", version)
		}
		if err := s.in("default", version).Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		if s.feed.has(name) {
			t.Errorf("%s: a listener does not know of a deletion that has returned", version)
		}
	}
}

func (s *sampled) selected(t *testing.T) {
	for _, volume := range []string{"red", "blue"} {
		if _, err := s.in("default", "v1").Create(t.Context(), newClaim("v1", "is-"+volume, volume), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for _, version := range []string{"v1", "v1beta1"} {
		list, err := s.in("default", version).List(t.Context(), metav1.ListOptions{FieldSelector: "spec.volumeName=red"})
		if err != nil || len(list.Items) != 1 || list.Items[0].GetName() != "is-red" {
			t.Errorf("%s: %v, %v", version, list, err)
		}
		if _, err := s.in("default", version).List(t.Context(), metav1.ListOptions{FieldSelector: "spec.size=1"}); !apierrors.IsBadRequest(err) {
			t.Errorf("%s: an unknown field: %v", version, err)
		}
	}
}

func (s *sampled) listed(t *testing.T) {
	if _, err := s.in("default", "v1").Create(t.Context(), newClaim("v1", "printed", "green"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	client := callerBy(t, s.admin, "", map[string][]string{"Accept": {"application/json;as=Table;v=v1;g=meta.k8s.io"}})
	_, text := client.ask(t, "/apis/"+claims.Group+"/v1/namespaces/default/claims?fieldSelector=metadata.name=printed", "")
	var table metav1.Table
	if err := json.Unmarshal([]byte(text), &table); err != nil {
		t.Fatal(err)
	}
	if len(table.ColumnDefinitions) != 2 || table.ColumnDefinitions[1].Name != "Volume" || len(table.Rows) != 1 ||
		!slices.Equal(table.Rows[0].Cells, []any{"printed", "green"}) {
		t.Errorf("table: %s", text)
	}
}

func (s *sampled) described(t *testing.T) {
	for _, version := range []string{"v1", "v1beta1"} {
		applied := newClaim(version, "applied", version)
		got, err := s.in("default", version).Apply(t.Context(), "applied", applied, metav1.ApplyOptions{FieldManager: "test"})
		if err != nil || volumeOf(t, got) != version {
			t.Errorf("apply in %s: %v, %v", version, got, err)
		}
		client := callerBy(t, s.admin, "", nil)
		answer, text := client.ask(t, "/openapi/v3/apis/"+claims.Group+"/"+version, "")
		path := "/apis/" + claims.Group + "/" + version + "/namespaces/{namespace}/claims/{name}"
		if answer.StatusCode != 200 || !strings.Contains(text, path) || !strings.Contains(text, "io.k8s.api.core.v1.PersistentVolumeClaimSpec") {
			t.Errorf("OpenAPI of %s: %s, %d bytes", version, answer.Status, len(text))
		}
	}
}

func (s *sampled) emptied(t *testing.T) {
	namespaces := kubernetes.NewForConfigOrDie(s.admin).CoreV1().Namespaces()
	if _, err := namespaces.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.in("shop", "v1").Create(t.Context(), newClaim("v1", "ends", ""), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := namespaces.Delete(t.Context(), "shop", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	err := wait.PollUntilContextTimeout(t.Context(), 10*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
		_, err := namespaces.Get(ctx, "shop", metav1.GetOptions{})
		return apierrors.IsNotFound(err), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if s.feed.has("ends") {
		t.Error("the namespace is gone, and one of its objects is not")
	}
}
