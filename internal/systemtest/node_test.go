package systemtest

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"

	"lanyard.dev/internal/bootstraptoken"
	"lanyard.dev/internal/pki"
	"lanyard.dev/lanyardtest"
)

// nodeClient is what a node has that has joined: a client certificate of the authority's CA.
func nodeClient(t testing.TB, a *lanyardtest.Authority, name string) *kubernetes.Clientset {
	t.Helper()
	client := clientFor(t, nodeConfig(t, a.DataDir(), a.Config(), name))
	t.Cleanup(client.CoreV1().RESTClient().(*rest.RESTClient).Client.CloseIdleConnections)
	return client
}

// nodeConfig is the configuration with a node's certificate, of the CA in the data directory, as its only credential.
func nodeConfig(t testing.TB, dataDir string, config *rest.Config, name string) *rest.Config {
	t.Helper()
	now := time.Now()
	ca, err := pki.EnsureAuthority(filepath.Join(dataDir, "ca.crt"), filepath.Join(dataDir, "ca.key"), "", now)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := ca.NewClient("system:node:"+name, []string{"system:nodes"}, now)
	if err != nil {
		t.Fatal(err)
	}
	config = rest.AnonymousClientConfig(config)
	config.CertData, config.KeyData = pair.CertPEM, pair.KeyPEM
	return config
}

// machine is a node that has registered, with one pod bound to it.
type machine struct {
	*kubernetes.Clientset
	name string
	pod  *corev1.Pod
}

// newMachine registers a node and runs a pod on it, with an account, a secret and a config map named after the pod, and
// a token for vault besides the usual one.
func newMachine(t *testing.T, a *lanyardtest.Authority, namespace, name string) *machine {
	t.Helper()
	m := &machine{Clientset: nodeClient(t, a, name), name: name}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelHostname: name}}}
	if _, err := m.CoreV1().Nodes().Create(t.Context(), node, metav1.CreateOptions{}); err != nil {
		t.Fatalf("register %s: %v", name, err)
	}
	core := a.Client().CoreV1()
	a.CreateServiceAccount(t, namespace, "app-"+name)
	meta := metav1.ObjectMeta{Name: "app-" + name}
	if _, err := core.Secrets(namespace).Create(t.Context(), &corev1.Secret{ObjectMeta: meta}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := core.ConfigMaps(namespace).Create(t.Context(), &corev1.ConfigMap{ObjectMeta: meta}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	m.pod = createPod(t, a, namespace, appPod(name))
	bind(t, a, m.pod, name)
	return m
}

func appPod(node string) *corev1.Pod {
	name := "app-" + node
	local := corev1.LocalObjectReference{Name: name}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}}
	pod.Spec.ServiceAccountName = name
	pod.Spec.Containers = []corev1.Container{{Name: "c", Image: "x",
		EnvFrom: []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: local}}}}}
	pod.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
		Sources: []corev1.VolumeProjection{
			{Secret: &corev1.SecretProjection{LocalObjectReference: local}},
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Audience: "vault", Path: "vault"}},
		},
	}}}}
	return pod
}

func createPod(t *testing.T, a *lanyardtest.Authority, namespace string, pod *corev1.Pod) *corev1.Pod {
	t.Helper()
	made, err := a.Client().CoreV1().Pods(namespace).Create(t.Context(), pod, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func bind(t *testing.T, a *lanyardtest.Authority, pod *corev1.Pod, node string) {
	t.Helper()
	binding := &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: pod.Name}, Target: corev1.ObjectReference{Kind: "Node", Name: node}}
	if err := a.Client().CoreV1().Pods(pod.Namespace).Bind(t.Context(), binding, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// token asks for a token bound to a pod, as an agent does.
func (m *machine) token(ctx context.Context, account string, pod *corev1.Pod, audiences ...string) (string, error) {
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		Audiences:      audiences,
		BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID},
	}}
	issued, err := m.CoreV1().ServiceAccounts(pod.Namespace).CreateToken(ctx, account, request, metav1.CreateOptions{})
	if err != nil {
		return "", err
	}
	return issued.Status.Token, nil
}

func forbidden(t *testing.T, what string, err error, says string) {
	t.Helper()
	if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), says) {
		t.Errorf("%s: got %v, want forbidden: %s", what, err, says)
	}
}

func TestNodeSeesWhatItsPodsUse(t *testing.T) {
	t.Parallel()
	a := lanyardtest.Start(t)
	namespace := a.Namespace(t)
	one, two := newMachine(t, a, namespace, "one"), newMachine(t, a, namespace, "two")
	get := func(m *machine, name string) map[string]error {
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
		forbidden(t, what+" of another node's pod", err, "no relationship found between node 'two' and this object")
	}
	if _, err := one.CoreV1().ConfigMaps(namespace).Get(t.Context(), "kube-root-ca.crt", metav1.GetOptions{}); err != nil {
		t.Errorf("the CA that every pod's token volume holds: %v", err)
	}
	_, err := one.CoreV1().Secrets(namespace).List(t.Context(), metav1.ListOptions{})
	forbidden(t, "all secrets", err, "No Object name found")
	_, err = one.CoreV1().Pods("").List(t.Context(), metav1.ListOptions{})
	forbidden(t, "all pods", err, "can only list/watch pods with spec.nodeName field selector")
	pods, err := one.CoreV1().Pods("").List(t.Context(), metav1.ListOptions{FieldSelector: "spec.nodeName=one"})
	if err != nil || len(pods.Items) != 1 || pods.Items[0].Name != "app-one" {
		t.Errorf("its pods: %v, %v", pods, err)
	}
	_, err = one.CoreV1().Nodes().Get(t.Context(), "two", metav1.GetOptions{})
	forbidden(t, "another node", err, "node 'one' cannot read 'two', only its own Node object")
	list, err := one.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{FieldSelector: "metadata.name=one"})
	if err != nil || len(list.Items) != 1 {
		t.Errorf("itself: %v", err)
	}

	// Once the pod is gone, so is what it gave, before the delete is answered.
	now := metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}
	if err := one.CoreV1().Pods(namespace).Delete(t.Context(), "app-one", now); err != nil {
		t.Errorf("deletes its pod: %v", err)
	}
	for what, err := range get(one, "app-one") {
		forbidden(t, what+" of a pod that is gone", err, "no relationship found")
	}
}

func TestNodeGetsTokensForItsPodsOnly(t *testing.T) {
	t.Parallel()
	a := lanyardtest.Start(t)
	namespace := a.Namespace(t)
	one, two := newMachine(t, a, namespace, "one"), newMachine(t, a, namespace, "two")
	a.CreateServiceAccount(t, namespace, "other")

	text, err := one.token(t.Context(), "app-one", one.pod)
	if err != nil {
		t.Fatal(err)
	}
	config := rest.AnonymousClientConfig(a.Config())
	config.BearerToken = text
	review, err := clientFor(t, config).AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	extra := review.Status.UserInfo.Extra
	if names := extra["authentication.kubernetes.io/node-name"]; len(names) != 1 || names[0] != "one" {
		t.Errorf("the token says %v", extra)
	}
	if _, err := one.token(t.Context(), "app-one", one.pod, "vault"); err != nil {
		t.Errorf("a token for an audience of its pod: %v", err)
	}

	_, err = two.token(t.Context(), "app-one", one.pod)
	forbidden(t, "for another node's pod", err, "no relationship found between node 'two' and this object")
	_, err = two.token(t.Context(), "app-two", one.pod)
	forbidden(t, "for its account, bound to another node's pod", err, "node requested token bound to a pod scheduled on a different node")
	_, err = one.token(t.Context(), "other", one.pod)
	forbidden(t, "for an account of no pod", err, "no relationship found")
	_, err = one.token(t.Context(), "app-one", one.pod, "bank")
	forbidden(t, "for another audience", err, `audience "bank" not found in pod spec volume, system:node:one is not authorized to request tokens for this audience`)
	_, err = one.token(t.Context(), "app-one", one.pod, "vault", "bank")
	forbidden(t, "for two audiences", err, "node may only request 0 or 1 audiences")
	stale := one.pod.DeepCopy()
	stale.UID = types.UID("00000000-0000-0000-0000-000000000000")
	_, err = one.token(t.Context(), "app-one", stale)
	forbidden(t, "for an older pod", err, "does not match the UID in record")
	_, err = one.CoreV1().ServiceAccounts(namespace).CreateToken(t.Context(), "app-one", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	forbidden(t, "bound to nothing", err, "node requested token not bound to a pod")

	grantAudience(t, a, "bank")
	if _, err := one.token(t.Context(), "app-one", one.pod, "bank"); err != nil {
		t.Errorf("for an audience that nodes were granted: %v", err)
	}
}

// grantAudience lets every node have tokens for an audience that no pod asks for.
func grantAudience(t *testing.T, a *lanyardtest.Authority, audience string) {
	t.Helper()
	meta := metav1.ObjectMeta{Name: "audience-" + audience}
	rules := []rbacv1.PolicyRule{{Verbs: []string{"request-serviceaccounts-token-audience"}, APIGroups: []string{""}, Resources: []string{audience}}}
	if _, err := a.Client().RbacV1().ClusterRoles().Create(t.Context(), &rbacv1.ClusterRole{ObjectMeta: meta, Rules: rules}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: meta, RoleRef: rbacv1.RoleRef{APIGroup: rbacGroup, Kind: "ClusterRole", Name: meta.Name},
		Subjects: []rbacv1.Subject{{APIGroup: rbacGroup, Kind: "Group", Name: "system:nodes"}},
	}
	if _, err := a.Client().RbacV1().ClusterRoleBindings().Create(t.Context(), binding, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func TestNodeWritesWhatIsItsOwn(t *testing.T) {
	t.Parallel()
	a := lanyardtest.Start(t)
	namespace := a.Namespace(t)
	one, two := newMachine(t, a, namespace, "one"), newMachine(t, a, namespace, "two")
	core, merge := one.CoreV1(), types.StrategicMergePatchType

	_, err := core.Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "three"}}, metav1.CreateOptions{})
	forbidden(t, "registers another", err, `node "one" is not allowed to modify node "three"`)
	_, err = core.Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{GenerateName: "n-"}}, metav1.CreateOptions{})
	forbidden(t, "registers under any name", err, `node "one" is not allowed to modify node`)
	_, err = core.Nodes().Patch(t.Context(), "one", merge, []byte(`{"metadata":{"labels":{"node-restriction.kubernetes.io/tier":"a"}}}`), metav1.PatchOptions{})
	forbidden(t, "a restricted label", err, "is not allowed to modify labels: node-restriction.kubernetes.io/tier")
	_, err = core.Nodes().Patch(t.Context(), "one", merge, []byte(`{"spec":{"taints":[{"key":"a","effect":"NoSchedule"}]}}`), metav1.PatchOptions{})
	forbidden(t, "its taints", err, `node "one" is not allowed to modify taints`)
	if _, err := core.Nodes().Patch(t.Context(), "one", merge, []byte(`{"metadata":{"labels":{"example.com/rack":"4"}}}`), metav1.PatchOptions{}); err != nil {
		t.Errorf("another label: %v", err)
	}
	status := []byte(`{"status":{"phase":"Running"}}`)
	if _, err := core.Nodes().PatchStatus(t.Context(), "one", []byte(`{"status":{"nodeInfo":{"kubeletVersion":"v1"}}}`)); err != nil {
		t.Errorf("its status: %v", err)
	}
	_, err = core.Nodes().PatchStatus(t.Context(), "two", status)
	forbidden(t, "another's status", err, `node "one" is not allowed to modify node "two"`)

	if _, err := core.Pods(namespace).Patch(t.Context(), one.pod.Name, merge, status, metav1.PatchOptions{}, "status"); err != nil {
		t.Errorf("its pod's status: %v", err)
	}
	_, err = core.Pods(namespace).Patch(t.Context(), two.pod.Name, merge, status, metav1.PatchOptions{}, "status")
	forbidden(t, "another's pod's status", err, `node "one" can only update pod status for pods with spec.nodeName set to itself`)
	err = core.Pods(namespace).Delete(t.Context(), two.pod.Name, metav1.DeleteOptions{})
	forbidden(t, "deletes another's pod", err, `node "one" can only delete pods with spec.nodeName set to itself`)
	err = core.Pods(namespace).DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{})
	forbidden(t, "deletes all pods", err, `cannot deletecollection resource "pods"`)
	waiting := createPod(t, a, namespace, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "waiting"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "x"}}}})
	err = core.Pods(namespace).Bind(t.Context(), &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: waiting.Name}, Target: corev1.ObjectReference{Kind: "Node", Name: "one"}}, metav1.CreateOptions{})
	forbidden(t, "binds a pod to itself", err, `cannot create resource "pods/binding"`)

	lease := func(namespace, name string) error {
		_, err := one.CoordinationV1().Leases(namespace).Create(t.Context(), &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
		return err
	}
	if err := lease("kube-node-lease", "one"); err != nil {
		t.Errorf("its lease: %v", err)
	}
	forbidden(t, "another's lease", lease("kube-node-lease", "two"), "can only access node lease with the same name as the requesting node")
	forbidden(t, "a lease elsewhere", lease(namespace, "one"), `can only access leases in the "kube-node-lease" system namespace`)
}

func TestNodeShowsMirrorPodsWithoutGainingByThem(t *testing.T) {
	t.Parallel()
	a := lanyardtest.Start(t)
	namespace := a.Namespace(t)
	one := newMachine(t, a, namespace, "one")
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
	forbidden(t, "a pod that is no mirror", show(func(p *corev1.Pod) { p.Annotations = nil }), `node "one" can only create mirror pods`)
	forbidden(t, "on another node", show(func(p *corev1.Pod) { p.Spec.NodeName = "two" }), "can only create pods with spec.nodeName set to itself")
	forbidden(t, "with an account", show(func(p *corev1.Pod) { p.Spec.ServiceAccountName = "app-one" }), "a mirror pod may not reference service accounts")
	forbidden(t, "with a config map", show(func(p *corev1.Pod) {
		p.Spec.Containers[0].EnvFrom = []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "x"}}}}
	}), "can not create pods that reference configmaps")
	forbidden(t, "with a secret", show(func(p *corev1.Pod) { p.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "coveted"}} }), "a mirror pod may not reference secrets")
	_, err = one.CoreV1().Secrets(namespace).Get(t.Context(), "coveted", metav1.GetOptions{})
	forbidden(t, "the secret it tried for", err, "no relationship found")
}

func TestBootstrapToken(t *testing.T) {
	t.Parallel()
	a := lanyardtest.Start(t)
	secrets := a.Client().CoreV1().Secrets(bootstraptoken.Namespace)
	sign := func(token bootstraptoken.Token) (*authenticationv1.UserInfo, error) {
		config := rest.AnonymousClientConfig(a.Config())
		config.BearerToken = token.Reveal()
		review, err := clientFor(t, config).AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
		if err != nil {
			return nil, err
		}
		return &review.Status.UserInfo, nil
	}
	token := bootstraptoken.New()
	if _, err := sign(token); !apierrors.IsUnauthorized(err) {
		t.Errorf("before there is one: %v", err)
	}
	made, err := secrets.Create(t.Context(), bootstraptoken.NewSecret(token, bootstraptoken.Spec{Expires: time.Now().Add(time.Hour)}), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	user, err := sign(token)
	if err != nil || user.Username != "system:bootstrap:"+token.ID() || strings.Join(user.Groups, " ") != "system:bootstrappers system:authenticated" {
		t.Errorf("at once: %+v, %v", user, err)
	}
	review := &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token.Reveal()}}
	reviewed, err := a.Client().AuthenticationV1().TokenReviews().Create(t.Context(), review, metav1.CreateOptions{})
	if err != nil || !reviewed.Status.Authenticated {
		t.Errorf("a review: %+v, %v", reviewed.Status, err)
	}
	review.Spec.Audiences = []string{"vault"}
	reviewed, err = a.Client().AuthenticationV1().TokenReviews().Create(t.Context(), review, metav1.CreateOptions{})
	if err != nil || reviewed.Status.Authenticated {
		t.Errorf("a review for another audience: %+v, %v", reviewed.Status, err)
	}
	made.Data["usage-bootstrap-authentication"] = []byte("false")
	if _, err := secrets.Update(t.Context(), made, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := sign(token); !apierrors.IsUnauthorized(err) {
		t.Errorf("disabled: %v", err)
	}
	if err := secrets.Delete(t.Context(), made.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := sign(token); !apierrors.IsUnauthorized(err) {
		t.Errorf("deleted: %v", err)
	}

	expired := bootstraptoken.New()
	old, err := secrets.Create(t.Context(), bootstraptoken.NewSecret(expired, bootstraptoken.Spec{Expires: time.Now().Add(-time.Second)}), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sign(expired); !apierrors.IsUnauthorized(err) {
		t.Errorf("expired: %v", err)
	}
	eventually(t, "the expired token's secret is removed", func(ctx context.Context) bool {
		_, err := secrets.Get(ctx, old.Name, metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	})
}
