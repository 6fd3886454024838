// Promise: every stored kind is created, read, updated and deleted as in Kubernetes.

package systemtest

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/yaml"

	"lanyard.dev/lanyardtest"
)

// kind is a stored resource with a manifest that Kubernetes accepts. NAMESPACE and NAME in the manifest are replaced.
type kind struct {
	group, version, resource string
	namespaced               bool
	manifest                 string
	// noCollection is set if the resource has no deletecollection.
	noCollection bool
	// asynchronous is set if a controller changes the object after a create or a delete: its version may change again, and it may
	// still be there after the delete was answered.
	asynchronous bool
}

var kinds = []kind{
	{version: "v1", resource: "namespaces", noCollection: true, asynchronous: true, manifest: `{kind: Namespace}`},
	{version: "v1", resource: "serviceaccounts", namespaced: true, manifest: `{kind: ServiceAccount, imagePullSecrets: [{name: pull}]}`},
	{version: "v1", resource: "secrets", namespaced: true, manifest: `{kind: Secret, type: Opaque, data: {key: dmFsdWU=}}`},
	{version: "v1", resource: "configmaps", namespaced: true, manifest: `{kind: ConfigMap, data: {key: value}}`},
	{version: "v1", resource: "pods", namespaced: true, manifest: `{kind: Pod, spec: {schedulerName: nobody, automountServiceAccountToken: false, containers: [{name: c, image: x}]}}`},
	{version: "v1", resource: "nodes", manifest: `{kind: Node, spec: {podCIDR: 10.0.0.0/24, podCIDRs: [10.0.0.0/24]}}`},
	{version: "v1", resource: "events", namespaced: true, manifest: `{kind: Event, involvedObject: {kind: Pod, namespace: NAMESPACE, name: p}, reason: Seen, type: Normal}`},
	{group: "events.k8s.io", version: "v1", resource: "events", namespaced: true, manifest: `{kind: Event, eventTime: "2026-01-02T03:04:05.000006Z", reportingController: example.com/c, reportingInstance: c-0, action: See, reason: Seen, type: Normal, regarding: {kind: Pod, namespace: NAMESPACE, name: p}}`},
	{group: "coordination.k8s.io", version: "v1", resource: "leases", namespaced: true, manifest: `{kind: Lease, spec: {holderIdentity: me, leaseDurationSeconds: 15}}`},
	{group: "certificates.k8s.io", version: "v1", resource: "certificatesigningrequests", manifest: `{kind: CertificateSigningRequest, spec: {signerName: example.com/any, usages: [client auth], request: ` + janesRequest + `}}`},
	{group: rbacGroup, version: "v1", resource: "roles", namespaced: true, manifest: `{kind: Role, rules: [{apiGroups: [""], resources: [pods], verbs: [get]}]}`},
	{group: rbacGroup, version: "v1", resource: "rolebindings", namespaced: true, manifest: `{kind: RoleBinding, roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}, subjects: [{kind: ServiceAccount, name: a, namespace: NAMESPACE}]}`},
	{group: rbacGroup, version: "v1", resource: "clusterroles", manifest: `{kind: ClusterRole, rules: [{nonResourceURLs: [/nowhere], verbs: [get]}]}`},
	{group: rbacGroup, version: "v1", resource: "clusterrolebindings", manifest: `{kind: ClusterRoleBinding, roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}, subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: nobody}]}`},
}

// janesRequest is a certificate request for user jane in group dev. Its key was thrown away.
const janesRequest = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KTUlIWE1IOENBUUF3SFRFTU1Bb0dBMVVFQ2hNRFpHVjJNUTB3Q3dZRFZRUURFd1JxWVc1bE1Ga3dFd1lIS29aSQp6ajBDQVFZSUtvWkl6ajBEQVFjRFFnQUVqaktjV3ZXWVdEV1VvSENnMGhHb0Yzb3pHbFdPblhCdSs0UG1iSE40CkphaVdJdU9OWDQ3Vmc4Y0QvTHorR2h6NXFyOC94UndKc0VsRkdFaGhIcGo0cXFBQU1Bb0dDQ3FHU000OUJBTUMKQTBnQU1FVUNJUUNnSEdsd1hYNWdOMkZsT3NtSkd1aXAvRXF2QzlCVU5IRVZyNXI0MThBU2tRSWdmeG0rRDFHUAo2dkV0T3poNjdMallCK0xxRDFKYW9nTHZKeGdmdVhzdGszUT0KLS0tLS1FTkQgQ0VSVElGSUNBVEUgUkVRVUVTVC0tLS0tCg=="

const rbacGroup = "rbac.authorization.k8s.io"

func (k kind) gvr() schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: k.group, Version: k.version, Resource: k.resource}
}

func (k kind) apiVersion() string { return k.gvr().GroupVersion().String() }

func (k kind) fullName() string { return strings.TrimPrefix(k.group+"/"+k.resource, "/") }

// object returns the manifest with this name, and with a label that only the objects of this test have.
func (k kind) object(t testing.TB, namespace, name string) *unstructured.Unstructured {
	t.Helper()
	text := strings.ReplaceAll(strings.ReplaceAll(k.manifest, "NAMESPACE", namespace), "NAME", name)
	obj := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(text), &obj.Object); err != nil {
		t.Fatal(err)
	}
	obj.SetAPIVersion(k.apiVersion())
	obj.SetName(name)
	if k.namespaced {
		obj.SetNamespace(namespace)
	}
	obj.SetLabels(map[string]string{"of": namespace})
	return obj
}

// path returns the URL path of the collection, or of an object in it.
func (k kind) path(namespace, name string) string {
	p := "/api/v1"
	if k.group != "" {
		p = "/apis/" + k.apiVersion()
	}
	if k.namespaced {
		p += "/namespaces/" + namespace
	}
	p += "/" + k.resource
	if name != "" {
		p += "/" + name
	}
	return p
}

// kindTest is a kind at an authority, with a namespace for one test. Objects of cluster-wide kinds are distinguished by their
// label.
type kindTest struct {
	kind
	authority *lanyardtest.Authority
	namespace string
	client    dynamic.ResourceInterface
	http      *caller
}

func (w kindTest) selector() string { return "of=" + w.namespace }

func (w kindTest) name(i int) string { return fmt.Sprintf("%s-%d", w.namespace, i) }

// eachKind runs a test for every stored resource, in parallel.
func eachKind(t *testing.T, test func(*testing.T, kindTest)) {
	t.Parallel()
	a := authority(t)
	admin := callerFor(t, a.Config())
	for _, k := range kinds {
		t.Run(k.fullName(), func(t *testing.T) {
			t.Parallel()
			w := kindTest{kind: k, authority: a, namespace: a.Namespace(t), http: admin}
			resource := dynamicFor(t, a.Config()).Resource(k.gvr())
			w.client = resource
			if k.namespaced {
				w.client = resource.Namespace(w.namespace)
			}
			test(t, w)
		})
	}
}

// ownTests are the resources that can be created and read, but whose objects are not what a client sent. They have tests of their own.
var ownTests = map[string]bool{
	"identity.lanyard.dev/signingkeys": true, // the server makes the key and its name; script signing_keys
}

// TestEveryServedResourceIsTested compares kinds with discovery.
func TestEveryServedResourceIsTested(t *testing.T) {
	t.Parallel()
	tested := map[string]bool{}
	for _, k := range kinds {
		tested[k.fullName()] = true
	}
	for gv, resources := range servedResources(t, callerFor(t, authority(t).Config())) {
		for _, r := range resources {
			stored := slices.Contains(r.Verbs, "get") && slices.Contains(r.Verbs, "create") && !strings.Contains(r.Name, "/")
			group, _, _ := strings.Cut(gv, "/")
			if gv == "v1" {
				group = ""
			}
			if title := strings.TrimPrefix(group+"/"+r.Name, "/"); stored && !tested[title] && !ownTests[title] {
				t.Errorf("%s is served but not in kinds", title)
			}
		}
	}
}

func TestUnknownResourceIsNotFound(t *testing.T) {
	t.Parallel()
	admin := callerFor(t, authority(t).Config())
	for _, path := range []string{"/api/v1/services", "/apis/apps/v1/deployments", "/api/v2/pods", "/apis/none.example/v1/x", "/nowhere"} {
		if got := admin.get(t, path); got.code != http.StatusNotFound {
			t.Errorf("GET %s: %s", path, got)
		}
	}
}

var dryRun = []string{metav1.DryRunAll}

// create creates the object, or fails the test.
func (w kindTest) create(t testing.TB, name string) *unstructured.Unstructured {
	t.Helper()
	made, err := w.client.Create(t.Context(), w.object(t, w.namespace, name), metav1.CreateOptions{})
	if err != nil {
		t.Fatalf("create %s: %v", name, err)
	}
	return made
}

func (w kindTest) read(t testing.TB, name string) *unstructured.Unstructured {
	t.Helper()
	found, err := w.client.Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatalf("get %s: %v", name, err)
	}
	return found
}

func (w kindTest) expectGone(t testing.TB, name string) {
	t.Helper()
	if _, err := w.client.Get(t.Context(), name, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("get %s: %v, want not found", name, err)
	}
}

// labelPatch returns a merge patch that sets the label x.
func labelPatch(value string) []byte { return []byte(`{"metadata":{"labels":{"x":"` + value + `"}}}`) }

func TestCreateUpdateAndDelete(t *testing.T) {
	eachKind(t, func(t *testing.T, w kindTest) {
		name := w.name(0)
		made := w.create(t, name)
		if created := made.GetCreationTimestamp(); made.GetUID() == "" || made.GetResourceVersion() == "" || created.IsZero() || len(made.GetManagedFields()) == 0 {
			t.Errorf("metadata is not filled in: %v", made.Object["metadata"])
		}
		if _, err := w.client.Create(t.Context(), w.object(t, w.namespace, name), metav1.CreateOptions{}); !apierrors.IsAlreadyExists(err) {
			t.Errorf("create again: %v, want already exists", err)
		}
		found := w.read(t, name)
		if found.GetUID() != made.GetUID() {
			t.Errorf("got another object: %v", found)
		}
		w.updateAndConflict(t, found)
		w.deleteWithPreconditions(t, w.read(t, name))
	})
}

// updateAndConflict sends an update with a change, one without, and two based on an old version or another UID.
func (w kindTest) updateAndConflict(t *testing.T, found *unstructured.Unstructured) {
	t.Helper()
	stale := found.DeepCopy()
	found.SetAnnotations(map[string]string{"x": "1"})
	updated, err := w.client.Update(t.Context(), found, metav1.UpdateOptions{})
	if err != nil || updated.GetResourceVersion() == stale.GetResourceVersion() {
		t.Fatalf("update: %v, %v", updated, err)
	}
	same, err := w.client.Update(t.Context(), updated, metav1.UpdateOptions{})
	if err != nil || !w.asynchronous && same.GetResourceVersion() != updated.GetResourceVersion() {
		t.Errorf("an update without a change made version %s of %s: %v", same.GetResourceVersion(), updated.GetResourceVersion(), err)
	}
	stale.SetAnnotations(map[string]string{"x": "2"})
	if _, err := w.client.Update(t.Context(), stale, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
		t.Errorf("update of an old version: %v, want a conflict", err)
	}
	stale.SetResourceVersion("")
	stale.SetUID("00000000-0000-0000-0000-000000000000")
	if _, err := w.client.Update(t.Context(), stale, metav1.UpdateOptions{}); !apierrors.IsConflict(err) && !apierrors.IsInvalid(err) {
		t.Errorf("update under another UID: %v, want a conflict", err)
	}
	if got := w.read(t, found.GetName()).GetAnnotations()["x"]; got != "1" {
		t.Errorf("after the conflicts the annotation is %q", got)
	}
}

// deleteWithPreconditions deletes the object with preconditions that fail, and then with one that holds.
func (w kindTest) deleteWithPreconditions(t *testing.T, found *unstructured.Unstructured) {
	t.Helper()
	name, uid, version := found.GetName(), found.GetUID(), found.GetResourceVersion()
	other, old := types.UID("00000000-0000-0000-0000-000000000000"), "1"
	for _, p := range []metav1.Preconditions{{UID: &other}, {ResourceVersion: &old}} {
		if err := w.client.Delete(t.Context(), name, metav1.DeleteOptions{Preconditions: &p}); !apierrors.IsConflict(err) {
			t.Errorf("delete with a precondition that fails: %v, want a conflict", err)
		}
	}
	watching := w.watch(t, metav1.ListOptions{ResourceVersion: version, FieldSelector: "metadata.name=" + name})
	if err := w.client.Delete(t.Context(), name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}}); err != nil {
		t.Fatalf("delete: %v", err)
	}
	if !w.asynchronous {
		w.expectGone(t, name)
	}
	awaitEvent(t, watching, func(e watch.Event) bool { return e.Type == watch.Deleted })
	w.expectGone(t, name)
	if err := w.client.Delete(t.Context(), name, metav1.DeleteOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("delete again: %v, want not found", err)
	}
}

func TestGenerateName(t *testing.T) {
	eachKind(t, func(t *testing.T, w kindTest) {
		obj := w.object(t, w.namespace, "")
		obj.SetGenerateName("made-")
		first, err := w.client.Create(t.Context(), obj, metav1.CreateOptions{})
		if err != nil || !strings.HasPrefix(first.GetName(), "made-") || len(first.GetName()) != len("made-")+5 {
			t.Fatalf("create: %v, %v", first, err)
		}
		second, err := w.client.Create(t.Context(), obj, metav1.CreateOptions{})
		if err != nil || second.GetName() == first.GetName() {
			t.Errorf("create again: %v, %v", second, err)
		}
	})
}

func TestInvalidNamesAreRefused(t *testing.T) {
	eachKind(t, func(t *testing.T, w kindTest) {
		for _, name := range []string{"a/b", "..", "a%b", ""} {
			_, err := w.client.Create(t.Context(), w.object(t, w.namespace, name), metav1.CreateOptions{})
			if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "metadata.name") && name != "" {
				t.Errorf("name %q: %v, want invalid", name, err)
			}
		}
		obj := w.object(t, w.namespace, w.name(0))
		obj.SetLabels(map[string]string{"a b": "c"})
		if _, err := w.client.Create(t.Context(), obj, metav1.CreateOptions{}); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "metadata.labels") {
			t.Errorf("bad label: %v, want invalid", err)
		}
	})
}

func TestDryRunChangesNothing(t *testing.T) {
	eachKind(t, func(t *testing.T, w kindTest) {
		ghost, err := w.client.Create(t.Context(), w.object(t, w.namespace, w.name(0)), metav1.CreateOptions{DryRun: dryRun})
		if err != nil || ghost.GetUID() == "" {
			t.Fatalf("create: %v, %v", ghost, err)
		}
		w.expectGone(t, w.name(0))

		name := w.name(1)
		w.create(t, name)
		before := w.read(t, name)
		changed := before.DeepCopy()
		changed.SetLabels(map[string]string{"x": "1"})
		if got, err := w.client.Update(t.Context(), changed, metav1.UpdateOptions{DryRun: dryRun}); err != nil || got.GetLabels()["x"] != "1" {
			t.Errorf("update: %v, %v", got, err)
		}
		for kind, patch := range map[types.PatchType][]byte{
			types.MergePatchType: labelPatch("1"), types.StrategicMergePatchType: labelPatch("1"),
			types.JSONPatchType: []byte(`[{"op":"add","path":"/metadata/labels/x","value":"1"}]`),
		} {
			if got, err := w.client.Patch(t.Context(), name, kind, patch, metav1.PatchOptions{DryRun: dryRun}); err != nil || got.GetLabels()["x"] != "1" {
				t.Errorf("%s: %v, %v", kind, got, err)
			}
		}
		if got, err := w.client.Apply(t.Context(), name, w.applied(name, "1"), metav1.ApplyOptions{FieldManager: "m", DryRun: dryRun}); err != nil || got.GetLabels()["x"] != "1" {
			t.Errorf("apply: %v, %v", got, err)
		}
		if err := w.client.Delete(t.Context(), name, metav1.DeleteOptions{DryRun: dryRun}); err != nil {
			t.Errorf("delete: %v", err)
		}
		err = w.client.DeleteCollection(t.Context(), metav1.DeleteOptions{DryRun: dryRun}, metav1.ListOptions{LabelSelector: w.selector()})
		if err != nil != w.noCollection {
			t.Errorf("delete collection: %v", err)
		}
		if after := w.read(t, name); after.GetResourceVersion() != before.GetResourceVersion() || after.GetDeletionTimestamp() != nil {
			t.Errorf("dry runs changed the object\nfrom %v\nto %v", before, after)
		}
	})
}

func TestDeleteCollection(t *testing.T) {
	eachKind(t, func(t *testing.T, w kindTest) {
		if w.noCollection {
			err := w.client.DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: w.selector()})
			if !apierrors.IsMethodNotSupported(err) {
				t.Errorf("delete collection: %v, want not supported", err)
			}
			return
		}
		for i := range 3 {
			w.create(t, w.name(i))
		}
		keep := w.object(t, w.namespace, w.name(9))
		keep.SetLabels(map[string]string{"keep": w.namespace})
		if _, err := w.client.Create(t.Context(), keep, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := w.client.DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: w.selector()}); err != nil {
			t.Fatalf("delete collection: %v", err)
		}
		for i := range 3 {
			w.expectGone(t, w.name(i))
		}
		w.read(t, w.name(9))
	})
}

func TestFinalizersAreRespected(t *testing.T) {
	eachKind(t, func(t *testing.T, w kindTest) {
		name := w.name(0)
		obj := w.object(t, w.namespace, name)
		obj.SetFinalizers([]string{"example.com/hold"})
		if _, err := w.client.Create(t.Context(), obj, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := w.client.Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
			t.Fatalf("delete: %v", err)
		}
		held := w.read(t, name)
		if held.GetDeletionTimestamp() == nil {
			t.Error("a deleted object with a finalizer has no deletionTimestamp")
		}
		add := []byte(`{"metadata":{"finalizers":["example.com/hold","example.com/more"]}}`)
		if _, err := w.client.Patch(t.Context(), name, types.MergePatchType, add, metav1.PatchOptions{}); !apierrors.IsInvalid(err) && !apierrors.IsForbidden(err) {
			t.Errorf("adding a finalizer to a deleted object: %v, want it refused", err)
		}
		watching := w.watch(t, metav1.ListOptions{ResourceVersion: held.GetResourceVersion(), FieldSelector: "metadata.name=" + name})
		if _, err := w.client.Patch(t.Context(), name, types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{}); err != nil {
			t.Fatalf("remove the finalizer: %v", err)
		}
		awaitEvent(t, watching, func(e watch.Event) bool { return e.Type == watch.Deleted })
		w.expectGone(t, name)
	})
}
