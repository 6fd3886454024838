// Promise: a node reads and writes what its own pods need, and nothing else.

package systemtest

import (
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"lanyard.dev/lanyardtest"
)

func TestNodeReadsWhatItsPodsUse(t *testing.T) {
	t.Parallel()
	a := lanyardtest.Start(t)
	namespace := a.Namespace(t)
	one, two := newRegisteredNode(t, a, namespace, "one"), newRegisteredNode(t, a, namespace, "two")
	get := func(m *registeredNode, name string) map[string]error {
		core, opts := m.CoreV1(), metav1.GetOptions{}
		errs := map[string]error{}
		_, errs["secret"] = core.Secrets(namespace).Get(t.Context(), name, opts)
		_, errs["config map"] = core.ConfigMaps(namespace).Get(t.Context(), name, opts)
		_, errs["account"] = core.ServiceAccounts(namespace).Get(t.Context(), name, opts)
		_, errs["pod"] = core.Pods(namespace).Get(t.Context(), name, opts)
		return errs
	}
	for what, err := range get(one, "app-one") {
		if err != nil {
			t.Errorf("its pod's %s: %v", what, err)
		}
	}
	for what, err := range get(two, "app-one") {
		wantForbidden(t, what+" of another node's pod", err, "no relationship found between node 'two' and this object")
	}
	if _, err := one.CoreV1().ConfigMaps(namespace).Get(t.Context(), "kube-root-ca.crt", metav1.GetOptions{}); err != nil {
		t.Errorf("the config map with the CA, which every pod's token volume needs: %v", err)
	}
	_, err := one.CoreV1().Secrets(namespace).List(t.Context(), metav1.ListOptions{})
	wantForbidden(t, "all secrets", err, "No Object name found")
	_, err = one.CoreV1().Pods("").List(t.Context(), metav1.ListOptions{})
	wantForbidden(t, "all pods", err, "can only list/watch pods with spec.nodeName field selector")
	pods, err := one.CoreV1().Pods("").List(t.Context(), metav1.ListOptions{FieldSelector: "spec.nodeName=one"})
	if err != nil || len(pods.Items) != 1 || pods.Items[0].Name != "app-one" {
		t.Errorf("its pods: %v, %v", pods, err)
	}
	_, err = one.CoreV1().Nodes().Get(t.Context(), "two", metav1.GetOptions{})
	wantForbidden(t, "another node", err, "node 'one' cannot read 'two', only its own Node object")
	list, err := one.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{FieldSelector: "metadata.name=one"})
	if err != nil || len(list.Items) != 1 {
		t.Errorf("itself: %v", err)
	}

	// The rights through a pod end before its deletion is answered.
	now := metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}
	if err := one.CoreV1().Pods(namespace).Delete(t.Context(), "app-one", now); err != nil {
		t.Errorf("delete its pod: %v", err)
	}
	for what, err := range get(one, "app-one") {
		wantForbidden(t, what+" of a pod that is gone", err, "no relationship found")
	}
}

func TestNodeGetsTokensForItsPodsOnly(t *testing.T) {
	t.Parallel()
	a := lanyardtest.Start(t)
	namespace := a.Namespace(t)
	one, two := newRegisteredNode(t, a, namespace, "one"), newRegisteredNode(t, a, namespace, "two")
	a.CreateServiceAccount(t, namespace, "other")

	text, err := one.token(t.Context(), "app-one", one.pod)
	if err != nil {
		t.Fatal(err)
	}
	user, err := identify(t, bearing(a.Config(), text))
	if err != nil {
		t.Fatal(err)
	}
	extra := user.Extra
	if names := extra["authentication.kubernetes.io/node-name"]; len(names) != 1 || names[0] != "one" {
		t.Errorf("the token has the claims %v", extra)
	}
	if _, err := one.token(t.Context(), "app-one", one.pod, "vault"); err != nil {
		t.Errorf("a token for an audience of its pod: %v", err)
	}

	_, err = two.token(t.Context(), "app-one", one.pod)
	wantForbidden(t, "for another node's pod", err, "no relationship found between node 'two' and this object")
	_, err = two.token(t.Context(), "app-two", one.pod)
	wantForbidden(t, "for its account, bound to another node's pod", err, "node requested token bound to a pod scheduled on a different node")
	_, err = one.token(t.Context(), "other", one.pod)
	wantForbidden(t, "for an account of no pod", err, "no relationship found")
	_, err = one.token(t.Context(), "app-one", one.pod, "bank")
	wantForbidden(t, "for another audience", err, `audience "bank" not found in pod spec volume, system:node:one is not authorized to request tokens for this audience`)
	_, err = one.token(t.Context(), "app-one", one.pod, "vault", "bank")
	wantForbidden(t, "for two audiences", err, "node may only request 0 or 1 audiences")
	stale := one.pod.DeepCopy()
	stale.UID = types.UID("00000000-0000-0000-0000-000000000000")
	_, err = one.token(t.Context(), "app-one", stale)
	wantForbidden(t, "for an older pod", err, "does not match the UID in record")
	_, err = one.CoreV1().ServiceAccounts(namespace).CreateToken(t.Context(), "app-one", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	wantForbidden(t, "bound to nothing", err, "node requested token not bound to a pod")

	bindClusterRole(t, a.Client(), "audience-bank", rbacv1.Subject{APIGroup: rbacGroup, Kind: "Group", Name: "system:nodes"},
		rbacRule("", "bank", "request-serviceaccounts-token-audience"))
	if _, err := one.token(t.Context(), "app-one", one.pod, "bank"); err != nil {
		t.Errorf("for an audience that nodes were granted: %v", err)
	}
}

func TestNodeWritesItsOwnObjects(t *testing.T) {
	t.Parallel()
	a := lanyardtest.Start(t)
	namespace := a.Namespace(t)
	one, two := newRegisteredNode(t, a, namespace, "one"), newRegisteredNode(t, a, namespace, "two")
	core, merge := one.CoreV1(), types.StrategicMergePatchType

	_, err := core.Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "three"}}, metav1.CreateOptions{})
	wantForbidden(t, "register another node", err, `node "one" is not allowed to modify node "three"`)
	_, err = core.Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{GenerateName: "n-"}}, metav1.CreateOptions{})
	wantForbidden(t, "register with a generated name", err, `node "one" is not allowed to modify node`)
	_, err = core.Nodes().Patch(t.Context(), "one", merge, []byte(`{"metadata":{"labels":{"node-restriction.kubernetes.io/tier":"a"}}}`), metav1.PatchOptions{})
	wantForbidden(t, "a restricted label", err, "is not allowed to modify labels: node-restriction.kubernetes.io/tier")
	_, err = core.Nodes().Patch(t.Context(), "one", merge, []byte(`{"spec":{"taints":[{"key":"a","effect":"NoSchedule"}]}}`), metav1.PatchOptions{})
	wantForbidden(t, "its taints", err, `node "one" is not allowed to modify taints`)
	if _, err := core.Nodes().Patch(t.Context(), "one", merge, []byte(`{"metadata":{"labels":{"example.com/rack":"4"}}}`), metav1.PatchOptions{}); err != nil {
		t.Errorf("another label: %v", err)
	}
	status := []byte(`{"status":{"phase":"Running"}}`)
	if _, err := core.Nodes().PatchStatus(t.Context(), "one", []byte(`{"status":{"nodeInfo":{"kubeletVersion":"v1"}}}`)); err != nil {
		t.Errorf("its status: %v", err)
	}
	_, err = core.Nodes().PatchStatus(t.Context(), "two", status)
	wantForbidden(t, "another node's status", err, `node "one" is not allowed to modify node "two"`)

	if _, err := core.Pods(namespace).Patch(t.Context(), one.pod.Name, merge, status, metav1.PatchOptions{}, "status"); err != nil {
		t.Errorf("its pod's status: %v", err)
	}
	_, err = core.Pods(namespace).Patch(t.Context(), two.pod.Name, merge, status, metav1.PatchOptions{}, "status")
	wantForbidden(t, "the status of another node's pod", err, `node "one" can only update pod status for pods with spec.nodeName set to itself`)
	err = core.Pods(namespace).Delete(t.Context(), two.pod.Name, metav1.DeleteOptions{})
	wantForbidden(t, "delete another node's pod", err, `node "one" can only delete pods with spec.nodeName set to itself`)
	err = core.Pods(namespace).DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{})
	wantForbidden(t, "delete all pods", err, `cannot deletecollection resource "pods"`)
	waiting := createPod(t, a, namespace, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "waiting"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "x"}}}})
	err = core.Pods(namespace).Bind(t.Context(), &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: waiting.Name}, Target: corev1.ObjectReference{Kind: "Node", Name: "one"}}, metav1.CreateOptions{})
	wantForbidden(t, "bind a pod to itself", err, `cannot create resource "pods/binding"`)

	lease := func(namespace, name string) error {
		_, err := one.CoordinationV1().Leases(namespace).Create(t.Context(), &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
		return err
	}
	if err := lease("kube-node-lease", "one"); err != nil {
		t.Errorf("its lease: %v", err)
	}
	wantForbidden(t, "another node's lease", lease("kube-node-lease", "two"), "can only access node lease with the same name as the requesting node")
	wantForbidden(t, "a lease in another namespace", lease(namespace, "one"), `can only access leases in the "kube-node-lease" system namespace`)
}

func TestMirrorPodsGiveANodeNoAccess(t *testing.T) {
	t.Parallel()
	a := lanyardtest.Start(t)
	namespace := a.Namespace(t)
	one := newRegisteredNode(t, a, namespace, "one")
	registered, err := one.CoreV1().Nodes().Get(t.Context(), "one", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Client().CoreV1().Secrets(namespace).Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "coveted"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	show := func(change func(*corev1.Pod)) error {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
			GenerateName: "static-", Annotations: map[string]string{corev1.MirrorPodAnnotationKey: "hash"},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: "one", UID: registered.UID, Controller: ptr.To(true)}},
		}}
		pod.Spec.NodeName, pod.Spec.Containers = "one", []corev1.Container{{Name: "c", Image: "x"}}
		change(pod)
		_, err := one.CoreV1().Pods(namespace).Create(t.Context(), pod, metav1.CreateOptions{})
		return err
	}
	if err := show(func(*corev1.Pod) {}); err != nil {
		t.Errorf("a mirror pod: %v", err)
	}
	wantForbidden(t, "a pod that is not a mirror pod", show(func(p *corev1.Pod) { p.Annotations = nil }), `node "one" can only create mirror pods`)
	wantForbidden(t, "on another node", show(func(p *corev1.Pod) { p.Spec.NodeName = "two" }), "can only create pods with spec.nodeName set to itself")
	wantForbidden(t, "with an account", show(func(p *corev1.Pod) { p.Spec.ServiceAccountName = "app-one" }), "a mirror pod may not reference service accounts")
	wantForbidden(t, "with a config map", show(func(p *corev1.Pod) {
		p.Spec.Containers[0].EnvFrom = []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "x"}}}}
	}), "can not create pods that reference configmaps")
	wantForbidden(t, "with a secret", show(func(p *corev1.Pod) { p.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "coveted"}} }), "a mirror pod may not reference secrets")
	_, err = one.CoreV1().Secrets(namespace).Get(t.Context(), "coveted", metav1.GetOptions{})
	wantForbidden(t, "the secret that the mirror pod named", err, "no relationship found")
}
