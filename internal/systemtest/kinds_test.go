package systemtest

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/yaml"

	"lanyard.dev/lanyardtest"
)

// kind is one stored resource with a manifest that Kubernetes accepts; NAMESPACE and NAME in it are replaced.
type kind struct {
	group, version, resource string
	namespaced               bool
	manifest                 string
	// noCollection: the resource has no deletecollection.
	noCollection bool
	// settles: a create or delete has consequences that come later, so versions and deletions are not immediate.
	settles bool
}

var kinds = []kind{
	{version: "v1", resource: "namespaces", noCollection: true, settles: true, manifest: `{kind: Namespace}`},
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

// janesRequest is a certificate request of user jane in group dev. Nobody has its key any more.
const janesRequest = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KTUlIWE1IOENBUUF3SFRFTU1Bb0dBMVVFQ2hNRFpHVjJNUTB3Q3dZRFZRUURFd1JxWVc1bE1Ga3dFd1lIS29aSQp6ajBDQVFZSUtvWkl6ajBEQVFjRFFnQUVqaktjV3ZXWVdEV1VvSENnMGhHb0Yzb3pHbFdPblhCdSs0UG1iSE40CkphaVdJdU9OWDQ3Vmc4Y0QvTHorR2h6NXFyOC94UndKc0VsRkdFaGhIcGo0cXFBQU1Bb0dDQ3FHU000OUJBTUMKQTBnQU1FVUNJUUNnSEdsd1hYNWdOMkZsT3NtSkd1aXAvRXF2QzlCVU5IRVZyNXI0MThBU2tRSWdmeG0rRDFHUAo2dkV0T3poNjdMallCK0xxRDFKYW9nTHZKeGdmdVhzdGszUT0KLS0tLS1FTkQgQ0VSVElGSUNBVEUgUkVRVUVTVC0tLS0tCg=="

const rbacGroup = "rbac.authorization.k8s.io"

func (k kind) gvr() schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: k.group, Version: k.version, Resource: k.resource}
}

func (k kind) apiVersion() string { return k.gvr().GroupVersion().String() }

func (k kind) title() string { return strings.TrimPrefix(k.group+"/"+k.resource, "/") }

// object returns the manifest under a name, marked with a label that only the objects of this test carry.
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

// path is the URL of the collection, or of an object in it.
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

// workbench is a kind at an authority, in a namespace of its own; objects of kinds without one are told by their label.
type workbench struct {
	kind
	authority *lanyardtest.Authority
	namespace string
	client    dynamic.ResourceInterface
	http      *caller
}

func (w workbench) selector() string { return "of=" + w.namespace }

func (w workbench) name(i int) string { return fmt.Sprintf("%s-%d", w.namespace, i) }

// eachKind runs a test on every stored resource, in parallel.
func eachKind(t *testing.T, test func(*testing.T, workbench)) {
	t.Parallel()
	a := authority(t)
	admin := callerFor(t, a.Config())
	for _, k := range kinds {
		t.Run(k.title(), func(t *testing.T) {
			t.Parallel()
			w := workbench{kind: k, authority: a, namespace: a.Namespace(t), http: admin}
			resource := dynamicFor(t, a.Config()).Resource(k.gvr())
			w.client = resource
			if k.namespaced {
				w.client = resource.Namespace(w.namespace)
			}
			test(t, w)
		})
	}
}

// TestEveryServedResourceIsTested holds the table above against discovery.
func TestEveryServedResourceIsTested(t *testing.T) {
	t.Parallel()
	tested := map[string]bool{}
	for _, k := range kinds {
		tested[k.title()] = true
	}
	for gv, resources := range servedResources(t, callerFor(t, authority(t).Config())) {
		for _, r := range resources {
			stored := strings.Contains(strings.Join(r.Verbs, " "), "get") && !strings.Contains(r.Name, "/")
			group, _, _ := strings.Cut(gv, "/")
			if gv == "v1" {
				group = ""
			}
			if title := strings.TrimPrefix(group+"/"+r.Name, "/"); stored && !tested[title] {
				t.Errorf("%s is served and not in the table", title)
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
