package noderestriction_test

//lint:file-ignore SA1019 deprecated fields are still decoded, so they are still checked

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/utils/ptr"

	"lanyard.dev/internal/apiserver/admission/noderestriction"
	"lanyard.dev/internal/apiserver/outage"
	"lanyard.dev/internal/nodeaccess"
	"lanyard.dev/internal/pki"
)

// write is a request of a node.
type write struct {
	who       *user.DefaultInfo
	op        admission.Operation
	resource  schema.GroupVersionResource
	sub       string
	namespace string
	name      string
	obj, old  runtime.Object
}

func (w write) attributes() admission.Attributes {
	var obj, old runtime.Object
	if w.obj != nil {
		obj = w.obj
	}
	if w.old != nil {
		old = w.old
	}
	return admission.NewAttributesRecord(obj, old, schema.GroupVersionKind{}, w.namespace, w.name, w.resource, w.sub, w.op, nil, false, w.who)
}

func one() *user.DefaultInfo {
	return &user.DefaultInfo{Name: "system:node:one", Groups: []string{"system:nodes", "system:authenticated"}}
}

func pods() schema.GroupVersionResource  { return corev1.SchemeGroupVersion.WithResource("pods") }
func nodes() schema.GroupVersionResource { return corev1.SchemeGroupVersion.WithResource("nodes") }

// plugin returns a plugin with the node "one" and three pods: "web" on it, with tokens for the API server and vault,
// "bare" on it, without tokens, and "db" on the node "two".
func plugin() *noderestriction.Plugin {
	return noderestriction.New(noderestriction.Config{
		Pod: func(_ context.Context, namespace, name string) (*corev1.Pod, error) {
			if p, ok := stored()[namespace+"/"+name]; ok {
				return p, nil
			}
			return nil, apierrors.NewNotFound(corev1.Resource("pods"), name)
		},
		Node: func(_ context.Context, name string) (*corev1.Node, error) {
			if name == "one" {
				return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "one", UID: "node-uid"}}, nil
			}
			return nil, apierrors.NewNotFound(corev1.Resource("nodes"), name)
		},
		Admits: func(user string, _, notBefore []string) error {
			if slices.Equal(notBefore, []string{"old"}) {
				return fmt.Errorf("%w: %s", nodeaccess.ErrEvicted, user)
			}
			if slices.Equal(notBefore, []string{"unknown"}) {
				return errors.New("storage watch has not progressed in time")
			}
			return nil
		},
		Authorizer: authorizer.AuthorizerFunc(audienceGranted),
		Audiences:  []string{"https://api"},
	})
}

// audienceGranted allows node one to request tokens for the audience "registry" and the account "web".
func audienceGranted(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	if a.GetUser().GetName() == "system:node:one" && a.GetVerb() == "request-serviceaccounts-token-audience" && a.GetAPIGroup() == "" &&
		a.GetResource() == "registry" && a.GetName() == "web-account" && a.GetNamespace() == "shop" && a.IsResourceRequest() {
		return authorizer.DecisionAllow, "", nil
	}
	return authorizer.DecisionNoOpinion, "", nil
}

func stored() map[string]*corev1.Pod {
	made := func(name, node string, audiences ...string) *corev1.Pod {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID(name + "-uid")}}
		p.Spec.NodeName, p.Spec.ServiceAccountName = node, name+"-account"
		for _, audience := range audiences {
			v := &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
				{DownwardAPI: &corev1.DownwardAPIProjection{}},
				{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Audience: audience}},
			}}
			p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{VolumeSource: corev1.VolumeSource{Projected: v}})
		}
		return p
	}
	return map[string]*corev1.Pod{
		"shop/web": made("web", "one", "", "vault"), "shop/bare": made("bare", "one"), "shop/db": made("db", "two", "", "vault"),
		"shop/waiting": made("waiting", "", ""),
	}
}

func mirrorPod(change ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Namespace: "shop", Name: "static", Annotations: map[string]string{corev1.MirrorPodAnnotationKey: "x"},
		OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: "one", UID: "node-uid", Controller: ptr.To(true)}},
	}}
	p.Spec.NodeName = "one"
	for _, c := range change {
		c(p)
	}
	return p
}

func with(v corev1.VolumeSource) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{VolumeSource: v}) }
}

func projecting(source corev1.VolumeProjection) func(*corev1.Pod) {
	return with(corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{source}}})
}

func createPod(change ...func(*corev1.Pod)) write {
	return write{op: admission.Create, resource: pods(), namespace: "shop", obj: mirrorPod(change...)}
}

func deletePod(name string) write {
	return write{op: admission.Delete, resource: pods(), namespace: "shop", name: name}
}

func statusOf(name string, change ...func(*corev1.Pod)) write {
	old := stored()["shop/"+name]
	updated := old.DeepCopy()
	for _, c := range change {
		c(updated)
	}
	return write{op: admission.Update, resource: pods(), sub: "status", namespace: "shop", name: name, obj: updated, old: old}
}

func evict(name string) write {
	return write{op: admission.Create, resource: pods(), sub: "eviction", namespace: "shop", name: name, obj: &policyv1.Eviction{}}
}

func node(name string, change ...func(*corev1.Node)) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"kubernetes.io/hostname": name, "team": "a"}}}
	n.Spec.Taints = []corev1.Taint{{Key: "dedicated", Effect: corev1.TaintEffectNoSchedule}}
	for _, c := range change {
		c(n)
	}
	return n
}

func label(key string) func(*corev1.Node) { return func(n *corev1.Node) { n.Labels[key] = "x" } }

func register(name string, change ...func(*corev1.Node)) write {
	return write{op: admission.Create, resource: nodes(), name: name, obj: node(name, change...)}
}

func update(name string, change ...func(*corev1.Node)) write {
	return write{op: admission.Update, resource: nodes(), name: name, obj: node(name, change...), old: node(name)}
}

func leaseIn(op admission.Operation, namespace, name string) write {
	w := write{op: op, resource: coordinationv1.SchemeGroupVersion.WithResource("leases"), namespace: namespace, name: name}
	w.obj = &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	if op == admission.Create {
		w.name = ""
	}
	return w
}

func tokenFor(pod string, change ...func(*authenticationv1.TokenRequest)) write {
	r := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod, UID: types.UID(pod + "-uid")},
	}}
	for _, c := range change {
		c(r)
	}
	accounts := corev1.SchemeGroupVersion.WithResource("serviceaccounts")
	return write{op: admission.Create, resource: accounts, sub: "token", namespace: "shop", name: pod + "-account", obj: r}
}

func audiences(a ...string) func(*authenticationv1.TokenRequest) {
	return func(r *authenticationv1.TokenRequest) { r.Spec.Audiences = a }
}

// certificateFor requests a certificate for a name.
func certificateFor(t *testing.T, signer, name string) write {
	t.Helper()
	_, request, err := pki.NewRequest(name, []string{"system:nodes"})
	if err != nil {
		t.Fatal(err)
	}
	r := &certificatesv1.CertificateSigningRequest{Spec: certificatesv1.CertificateSigningRequestSpec{Request: request, SignerName: signer}}
	return write{op: admission.Create, resource: certificatesv1.SchemeGroupVersion.WithResource("certificatesigningrequests"), obj: r}
}

func garbled(w write) write {
	w.obj.(*certificatesv1.CertificateSigningRequest).Spec.Request = []byte("x")
	return w
}

func (w write) as(who *user.DefaultInfo) write { w.who = who; return w }
func (w write) named(name string) write        { w.name = name; return w }

func TestValidate(t *testing.T) {
	t.Parallel()
	const (
		noLabels = `node "one" is not allowed to set the following labels: `
		aud      = `not found in pod spec volume, system:node:one is not authorized to request tokens for this audience`
	)
	nobody := &user.DefaultInfo{Name: "system:node:", Groups: []string{"system:nodes"}}
	person := &user.DefaultInfo{Name: "ann", Groups: []string{"system:authenticated"}}
	const (
		clients, serving, people = "kubernetes.io/kube-apiserver-client-kubelet", "kubernetes.io/kubelet-serving", "kubernetes.io/kube-apiserver-client"

		ownName = "can only create a node CSR with CN=system:node:one"
	)
	evicted := one()
	evicted.Extra = map[string][]string{nodeaccess.ExtraNotBefore: {"old"}}
	claim := ptr.To("claim")
	for _, test := range []struct {
		why  string
		do   write
		want string // the text of the refusal; empty if there is none
	}{
		{"a person makes any pod", createPod(func(p *corev1.Pod) { p.Annotations = nil }).as(person), ""},
		{"a node without a name", createPod().as(nobody), `could not determine node from user "system:node:"`},
		{"something else", write{op: admission.Create, resource: corev1.SchemeGroupVersion.WithResource("events"), namespace: "shop", obj: &corev1.Event{}}, ""},

		{"a mirror pod", createPod(), ""},
		{"a pod that is no mirror", createPod(func(p *corev1.Pod) { p.Annotations = nil }), `pod does not have "kubernetes.io/config.mirror" annotation, node "one" can only create mirror pods`},
		{"a mirror pod of another node", createPod(func(p *corev1.Pod) { p.Spec.NodeName = "two" }), `node "one" can only create pods with spec.nodeName set to itself`},
		{"a mirror pod of no node", createPod(func(p *corev1.Pod) { p.Spec.NodeName = "" }), `node "one" can only create pods with spec.nodeName set to itself`},
		{"a mirror pod of no owner", createPod(func(p *corev1.Pod) { p.OwnerReferences = nil }), `node "one" can only create pods with an owner reference set to itself`},
		{"a mirror pod of two owners", createPod(func(p *corev1.Pod) { p.OwnerReferences = append(p.OwnerReferences, p.OwnerReferences[0]) }), `node "one" can only create pods with a single owner reference set to itself`},
		{"a mirror pod of another owner", createPod(func(p *corev1.Pod) { p.OwnerReferences[0].Name = "two" }), `node "one" can only create pods with an owner reference set to itself`},
		{"a mirror pod of another kind of owner", createPod(func(p *corev1.Pod) { p.OwnerReferences[0].Kind = "Pod" }), `node "one" can only create pods with an owner reference set to itself`},
		{"a mirror pod without controller", createPod(func(p *corev1.Pod) { p.OwnerReferences[0].Controller = nil }), `node "one" can only create pods with a controller owner reference set to itself`},
		{"a mirror pod that blocks", createPod(func(p *corev1.Pod) { p.OwnerReferences[0].BlockOwnerDeletion = ptr.To(true) }), `node "one" must not set blockOwnerDeletion on an owner reference`},
		{"a mirror pod of an older node", createPod(func(p *corev1.Pod) { p.OwnerReferences[0].UID = "old" }), `node one UID mismatch: expected old got node-uid`},
		{"a mirror pod with an account", createPod(func(p *corev1.Pod) { p.Spec.ServiceAccountName = "web" }), `node "one" can not create pods that reference a service account`},
		{"a mirror pod with a secret", createPod(with(corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "k"}})), `node "one" can not create pods that reference secrets`},
		{"a mirror pod with a pull secret", createPod(func(p *corev1.Pod) { p.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "k"}} }), `node "one" can not create pods that reference secrets`},
		{"a mirror pod with a config map", createPod(with(corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "c"}}})), `node "one" can not create pods that reference configmaps`},
		{"a mirror pod with a token", createPod(projecting(corev1.VolumeProjection{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{}})), `node "one" can not create pods that reference a service account`},
		{"a mirror pod with a trust bundle", createPod(projecting(corev1.VolumeProjection{ClusterTrustBundle: &corev1.ClusterTrustBundleProjection{}})), `node "one" can not create pods that reference clustertrustbundles`},
		{"a mirror pod with a certificate", createPod(projecting(corev1.VolumeProjection{PodCertificate: &corev1.PodCertificateProjection{}})), `node "one" can not create pods that reference podcertificates`},
		{"a mirror pod with a volume claim", createPod(with(corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{}})), `node "one" can not create pods that reference persistentvolumeclaims`},
		{"a mirror pod with a resource claim", createPod(func(p *corev1.Pod) { p.Spec.ResourceClaims = []corev1.PodResourceClaim{{Name: "c"}} }), `node "one" can not create pods that reference resourceclaims`},
		{"another kind as pod", write{op: admission.Create, resource: pods(), namespace: "shop", obj: &corev1.Node{}}, "unexpected type *v1.Node"},

		{"deletes its pod", deletePod("web"), ""},
		{"deletes another node's pod", deletePod("db"), `node "one" can only delete pods with spec.nodeName set to itself`},
		{"deletes a pod without a node", deletePod("waiting"), `node "one" can only delete pods with spec.nodeName set to itself`},
		{"deletes no pod", deletePod("none"), `pods "none" not found`},
		{"changes its pod", write{op: admission.Update, resource: pods(), namespace: "shop", name: "web", obj: stored()["shop/web"], old: stored()["shop/web"]},
			`unexpected operation "UPDATE", node "one" can only create and delete mirror pods`},
		{"binds a pod", write{op: admission.Create, resource: pods(), sub: "binding", namespace: "shop", name: "waiting", obj: &corev1.Binding{}},
			`unexpected pod subresource "binding", only 'status' and 'eviction' are allowed`},
		{"evicts its pod", evict("web"), ""},
		{"evicts another node's pod", evict("db"), `node one can only evict pods with spec.nodeName set to itself`},
		{"evicts no pod", evict("none"), `pods "none" not found`},

		{"its pod's status", statusOf("web", func(p *corev1.Pod) { p.Status.Phase = corev1.PodRunning }), ""},
		{"another node's pod's status", statusOf("db"), `node "one" can only update pod status for pods with spec.nodeName set to itself`},
		{"a status of a pod without a node", statusOf("waiting"), `node "one" can only update pod status for pods with spec.nodeName set to itself`},
		{"a status that moves the pod here", statusOf("db", func(p *corev1.Pod) { p.Spec.NodeName = "one" }), `node "one" can only update pod status for pods with spec.nodeName set to itself`},
		{"labels by way of the status", statusOf("web", func(p *corev1.Pod) { p.Labels = map[string]string{"app": "db"} }), `node "one" cannot update labels through pod status`},
		{"claims by way of the status", statusOf("web", func(p *corev1.Pod) {
			p.Status.ResourceClaimStatuses = []corev1.PodResourceClaimStatus{{Name: "c", ResourceClaimName: claim}}
		}), `node "one" cannot update resource claim statues`},
		{"deletes a status", write{op: admission.Delete, resource: pods(), sub: "status", namespace: "shop", name: "web"}, `unexpected operation "DELETE"`},

		{"registers", register("one"), ""},
		{"registers by the name in the object", register("one").named(""), ""},
		{"registers another", register("two"), `node "one" is not allowed to modify node "two"`},
		{"registers another by the name in the object", register("two").named(""), `node "one" is not allowed to modify node "two"`},
		{"registers without taints", register("one", func(n *corev1.Node) { n.Spec.Taints = nil }), ""},
		{"registers with kubelet's labels", register("one", label("topology.kubernetes.io/zone"), label("x.node.kubernetes.io/a"), label("kubelet.kubernetes.io/a"), label("example.com/a")), ""},
		{"registers with a restricted label", register("one", label("node-restriction.kubernetes.io/a")), noLabels + "node-restriction.kubernetes.io/a"},
		{"registers with a label below", register("one", label("x.node-restriction.kubernetes.io/a")), noLabels + "x.node-restriction.kubernetes.io/a"},
		{"registers with a role", register("one", label("node-role.kubernetes.io/control-plane")), noLabels + "node-role.kubernetes.io/control-plane"},
		{"registers with several", register("one", label("k8s.io/b"), label("a.k8s.io/b")), noLabels + "a.k8s.io/b, k8s.io/b"},
		{"registers with a config source", register("one", func(n *corev1.Node) { n.Spec.ConfigSource = &corev1.NodeConfigSource{} }), `node "one" is not allowed to create pods with a non-nil configSource`},
		{"its node", update("one", label("example.com/a")), ""},
		{"another node", update("two"), `node "one" is not allowed to modify node "two"`},
		{"its taints", update("one", func(n *corev1.Node) { n.Spec.Taints = nil }), `node "one" is not allowed to modify taints`},
		{"its restricted labels", update("one", label("node-restriction.kubernetes.io/a")), "is not allowed to modify labels: node-restriction.kubernetes.io/a"},
		{"its config source", update("one", func(n *corev1.Node) { n.Spec.ConfigSource = &corev1.NodeConfigSource{} }), `node "one" is not allowed to update configSource to a new non-nil configSource`},
		{"its owners", update("one", func(n *corev1.Node) { n.OwnerReferences = []metav1.OwnerReference{{Name: "x"}} }), `node "one" is not allowed to modify ownerReferences`},
		{"deletes another", write{op: admission.Delete, resource: nodes(), name: "two"}, `node "one" is not allowed to modify node "two"`},
		{"removes a restricted label", write{op: admission.Update, resource: nodes(), name: "one", obj: node("one"), old: node("one", label("node-restriction.kubernetes.io/a"))},
			"is not allowed to modify labels: node-restriction.kubernetes.io/a"},

		{"makes its lease", leaseIn(admission.Create, "kube-node-lease", "one"), ""},
		{"renews its lease", leaseIn(admission.Update, "kube-node-lease", "one"), ""},
		{"makes another's lease", leaseIn(admission.Create, "kube-node-lease", "two"), "can only access node lease with the same name as the requesting node"},
		{"renews another's lease", leaseIn(admission.Update, "kube-node-lease", "two"), "can only access node lease with the same name as the requesting node"},
		{"deletes another's lease", leaseIn(admission.Delete, "kube-node-lease", "two"), "can only access node lease with the same name as the requesting node"},
		{"a lease elsewhere", leaseIn(admission.Create, "shop", "one"), `can only access leases in the "kube-node-lease" system namespace`},

		{"a certificate", certificateFor(t, clients, "system:node:one"), ""},
		{"a certificate to serve with", certificateFor(t, serving, "system:node:one"), ""},
		{"another node's certificate", certificateFor(t, clients, "system:node:two"), ownName},
		{"another node's certificate to serve with", certificateFor(t, serving, "system:node:two"), ownName},
		{"a person's certificate as a node", certificateFor(t, clients, "ann"), ownName},
		{"a person's certificate", certificateFor(t, people, "ann"), ""},
		{"another node's certificate as a person", certificateFor(t, people, "system:node:two"), ownName},
		{"another node's certificate, of another signer", certificateFor(t, "example.com/own", "system:node:two"), ownName},
		{"another node's certificate for a machine that joins", certificateFor(t, clients, "system:node:two").as(person), ""},
		{"a garbled request", garbled(certificateFor(t, clients, "x")), "unable to parse csr: PEM block type must be CERTIFICATE REQUEST"},
		{"a garbled request of a person's", garbled(certificateFor(t, people, "x")), ""},

		{"evicted, registers", register("one").as(evicted), "the node was evicted: system:node:one"},
		{"evicted, requests a token", tokenFor("web").as(evicted), "the node was evicted: system:node:one"},
		{"evicted, writes anything", write{op: admission.Create, resource: corev1.SchemeGroupVersion.WithResource("events"), namespace: "shop", obj: &corev1.Event{}}.as(evicted), "the node was evicted: system:node:one"},

		{"a token for its pod", tokenFor("web"), ""},
		{"a token that names the API server", tokenFor("web", audiences("https://api")), ""},
		{"a token for an audience of its pod", tokenFor("web", audiences("vault")), ""},
		{"a token for an audience that is granted", tokenFor("web", audiences("registry")), ""},
		{"a token for an audience granted for another account", tokenFor("bare", audiences("registry")), `audience "registry" ` + aud},
		{"a token for another audience", tokenFor("web", audiences("bank")), `audience "bank" ` + aud},
		{"a token for a pod that wants none", tokenFor("bare"), `audience "" ` + aud},
		{"a token for an audience of another pod", tokenFor("bare", audiences("vault")), `audience "vault" ` + aud},
		{"a token for two audiences", tokenFor("web", audiences("vault", "https://api")), "node may only request 0 or 1 audiences"},
		{"a token bound to nothing", tokenFor("web", func(r *authenticationv1.TokenRequest) { r.Spec.BoundObjectRef = nil }), "node requested token not bound to a pod"},
		{"a token bound to a secret", tokenFor("web", func(r *authenticationv1.TokenRequest) { r.Spec.BoundObjectRef.Kind = "Secret" }), "node requested token not bound to a pod"},
		{"a token bound to the node", tokenFor("web", func(r *authenticationv1.TokenRequest) { r.Spec.BoundObjectRef.Kind = "Node" }), "node requested token not bound to a pod"},
		{"a token bound to another API's pod", tokenFor("web", func(r *authenticationv1.TokenRequest) { r.Spec.BoundObjectRef.APIVersion = "x/v1" }), "node requested token not bound to a pod"},
		{"a token bound to no name", tokenFor("web", func(r *authenticationv1.TokenRequest) { r.Spec.BoundObjectRef.Name = "" }), "node requested token not bound to a pod"},
		{"a token without a UID", tokenFor("web", func(r *authenticationv1.TokenRequest) { r.Spec.BoundObjectRef.UID = "" }), "node requested token with a pod binding without a uid"},
		{"a token for an older pod", tokenFor("web", func(r *authenticationv1.TokenRequest) { r.Spec.BoundObjectRef.UID = "old" }), "the UID in the bound object reference (old) does not match the UID in record. The object might have been deleted and then recreated"},
		{"a token for another node's pod", tokenFor("db"), "node requested token bound to a pod scheduled on a different node"},
		{"a token for a pod without a node", tokenFor("waiting"), "node requested token bound to a pod scheduled on a different node"},
		{"a token for another account", tokenFor("web").named("db-account"), "node requested token bound to a pod running with a different service account"},
		{"a token for no pod", tokenFor("none"), `pods "none" not found`},
		{"another kind as token", write{op: admission.Create, resource: corev1.SchemeGroupVersion.WithResource("serviceaccounts"), sub: "token", namespace: "shop", name: "web-account", obj: &corev1.Pod{}}, "unexpected type *v1.Pod"},
	} {
		t.Run(test.why, func(t *testing.T) {
			t.Parallel()
			do := test.do
			if do.who == nil {
				do.who = one()
			}
			err := plugin().Validate(t.Context(), do.attributes(), nil)
			switch {
			case test.want == "" && err != nil:
				t.Errorf("refused: %v", err)
			case test.want != "" && (err == nil || !strings.HasSuffix(err.Error(), test.want)):
				t.Errorf("got %v, want %s", err, test.want)
			case err != nil && !apierrors.IsForbidden(err) && !apierrors.IsNotFound(err):
				t.Errorf("not an API error: %v", err)
			}
		})
	}
}

// TestUnknownEviction checks that a node is neither allowed nor denied if it is unknown whether it was evicted.
func TestUnknownEviction(t *testing.T) {
	t.Parallel()
	who := one()
	who.Extra = map[string][]string{nodeaccess.ExtraNotBefore: {"unknown"}}
	if err := plugin().Validate(t.Context(), register("one").as(who).attributes(), nil); !apierrors.IsServiceUnavailable(err) {
		t.Errorf("got %v, want an error that nothing can be decided now", err)
	}
}

// TestRestrictedLabels changes labels that a node may not set on a Node that already has one.
func TestRestrictedLabels(t *testing.T) {
	t.Parallel()
	const restricted = "node-restriction.kubernetes.io/zone"
	labelled := func(values ...string) *corev1.Node {
		n := node("one")
		for _, value := range values {
			n.Labels[restricted] = value
		}
		return n
	}
	for _, test := range []struct {
		name     string
		old, new *corev1.Node
		refused  bool
	}{
		{"kept", labelled("a"), labelled("a"), false},
		{"kept empty", labelled(""), labelled(""), false},
		{"never there", labelled(), labelled(), false},
		{"changed", labelled("a"), labelled("b"), true},
		{"emptied", labelled("a"), labelled(""), true},
		{"added", labelled(), labelled("a"), true},
		{"added empty", labelled(), labelled(""), true},
		{"removed", labelled("a"), labelled(), true},
	} {
		do := update("one").as(one())
		do.obj, do.old = test.new, test.old
		if err := plugin().Validate(t.Context(), do.attributes(), nil); apierrors.IsForbidden(err) != test.refused || !test.refused && err != nil {
			t.Errorf("%s: %v, want refused=%v", test.name, err, test.refused)
		}
	}
}

// TestUndecided uses an authorizer and evictions that cannot decide now.
func TestUndecided(t *testing.T) {
	t.Parallel()
	undecided := outage.New(errors.New("stale"))
	unsure := plugin()
	unsure.Authorizer = authorizer.AuthorizerFunc(func(context.Context, authorizer.Attributes) (authorizer.Decision, string, error) {
		return authorizer.DecisionNoOpinion, "", undecided
	})
	do := tokenFor("web", audiences("registry")).as(one())
	if err := unsure.Validate(t.Context(), do.attributes(), nil); !errors.Is(err, undecided) || apierrors.IsForbidden(err) {
		t.Errorf("an audience: %v, want %v", err, undecided)
	}
	behind := errors.New("behind")
	unsure.Admits = func(string, []string, []string) error { return behind }
	if err := unsure.Validate(t.Context(), do.attributes(), nil); outage.Of(err) == nil || !errors.Is(err, behind) {
		t.Errorf("evictions: %v, want an outage", err)
	}
}

// TestDeleteUsesTheOldObject checks that the object is used that the store is about to delete, if the store passes it.
func TestDeleteUsesTheOldObject(t *testing.T) {
	t.Parallel()
	do := deletePod("web").as(one())
	do.old = stored()["shop/db"]
	if err := plugin().Validate(t.Context(), do.attributes(), nil); !apierrors.IsForbidden(err) {
		t.Errorf("got %v", err)
	}
}
