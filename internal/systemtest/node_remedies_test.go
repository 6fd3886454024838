// Promise: the remedies against a thief that docs/security.md recommends make the stolen credentials invalid.

package systemtest

import (
	"context"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"lanyard.dev/internal/bootstraptoken"
	"lanyard.dev/internal/nodeaccess"
	"lanyard.dev/internal/pki"
	"lanyard.dev/lanyardtest"
)

// portOf returns the port of an authority, for its next start.
func portOf(t *testing.T, a *lanyardtest.Authority) int {
	t.Helper()
	u, err := url.Parse(a.URL())
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(u.Port())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// joinNode requests a certificate for a node with a bootstrap token, as a machine that joins does.
func joinNode(t *testing.T, a *lanyardtest.Authority, name string) *kubernetes.Clientset {
	t.Helper()
	token := bootstraptoken.New()
	if _, err := a.Client().CoreV1().Secrets(bootstraptoken.Namespace).Create(t.Context(), bootstraptoken.NewSecret(token, bootstraptoken.Spec{}), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	key, request, err := pki.NewRequest(nodeaccess.User(name), []string{nodeaccess.Group})
	if err != nil {
		t.Fatal(err)
	}
	asked := requestCertificate(t, clientFor(t, bearing(a.Config(), token.Reveal())), request, certificatesv1.KubeAPIServerClientKubeletSignerName,
		[]certificatesv1.KeyUsage{certificatesv1.UsageClientAuth, certificatesv1.UsageDigitalSignature})
	client := clientFor(t, withCertificate(a.Config(), awaitCertificate(t, a.Client(), asked), key))
	t.Cleanup(client.CoreV1().RESTClient().(*rest.RESTClient).Client.CloseIdleConnections)
	return client
}

// nodeActions are the requests that a thief sends with a node's certificate.
func nodeActions(ctx context.Context, node kubernetes.Interface, pod *corev1.Pod, name string) map[string]func() error {
	core := node.CoreV1()
	return map[string]func() error{
		"register": func() error {
			_, err := core.Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
			return err
		},
		"request a token": func() error {
			_, err := podToken(ctx, node, pod.Spec.ServiceAccountName, pod)
			return err
		},
		"read a secret": func() error {
			_, err := core.Secrets(pod.Namespace).Get(ctx, pod.Spec.ServiceAccountName, metav1.GetOptions{})
			return err
		},
		"renew the certificate": func() error {
			_, err := node.CertificatesV1().CertificateSigningRequests().Create(ctx, &certificatesv1.CertificateSigningRequest{}, metav1.CreateOptions{})
			return err
		},
		"read its own identity": func() error {
			_, err := node.AuthenticationV1().SelfSubjectReviews().Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
			return err
		},
	}
}

// TestEvictedNode checks that lanyard node evict makes the certificate of a stolen node and its tokens invalid, also after a
// restart, and that the machine can join again at once. The thief sets finalizers to keep the Node, its Lease and its pod.
// Deleting the Node alone ends its tokens only.
func TestEvictedNode(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a := lanyardtest.StartWith(t, lanyardtest.Options{DataDir: dir})
	namespace := a.Namespace(t)
	thief := newRegisteredNode(t, a, namespace, "stolen")
	bystander := newRegisteredNode(t, a, namespace, "other")

	first := thief.bearer(t, a)
	if err := a.Client().CoreV1().Nodes().Delete(t.Context(), thief.name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	wantUnauthorized(t, "a token from before the deletion of the Node", first())
	if err := nodeActions(t.Context(), thief, thief.pod, thief.name)["register"](); err != nil {
		t.Fatalf("a deleted node, which may register again as in Kubernetes: %v", err)
	}
	wantUnauthorized(t, "a token with the UID of the former Node", first())
	second, others := thief.bearer(t, a), bystander.bearer(t, a)
	if err := second(); err != nil {
		t.Fatal(err)
	}
	watching, err := thief.CoreV1().Secrets(namespace).Watch(t.Context(), metav1.SingleObject(metav1.ObjectMeta{Name: thief.pod.Spec.ServiceAccountName}))
	if err != nil {
		t.Fatal(err)
	}
	// This request waits for a signer that is not part of the authority.
	_, request, err := pki.NewRequest(nodeaccess.User(thief.name), []string{nodeaccess.Group})
	if err != nil {
		t.Fatal(err)
	}
	waiting := requestCertificate(t, thief, request, "example.com/nodes", []certificatesv1.KeyUsage{certificatesv1.UsageClientAuth})

	keepObjects(t, thief)
	if got := lanyard(t, "node", "evict", thief.name, "--kubeconfig", a.Kubeconfig()); got != "node stolen evicted, pods removed: 1\n" {
		t.Errorf("got %q", got)
	}
	refused := func(when string) {
		t.Helper()
		for what, try := range nodeActions(t.Context(), thief, thief.pod, thief.name) {
			wantUnauthorized(t, when+", the thief tries to "+what, try())
		}
	}
	refused("evicted")
	wantUnauthorized(t, "a token that the thief got", second())
	for range watching.ResultChan() { // the watch must end
	}
	checkObjectsRemoved(t, a, thief)
	requests := a.Client().CertificatesV1().CertificateSigningRequests()
	r, err := requests.Get(t.Context(), waiting, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	r.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue}}
	_, err = requests.UpdateApproval(t.Context(), waiting, r, metav1.UpdateOptions{})
	wantForbidden(t, "approve the thief's request", err, "the node was evicted")
	if err := others(); err != nil {
		t.Errorf("a token of another node: %v", err)
	}

	back := joinNode(t, a, thief.name)
	if err := nodeActions(t.Context(), back, thief.pod, thief.name)["register"](); err != nil {
		t.Errorf("register after a new join: %v", err)
	}
	refused("after a new join")

	port := portOf(t, a)
	a.Stop(t)
	lanyardtest.StartWith(t, lanyardtest.Options{DataDir: dir, Port: port})
	refused("after a restart")
	if _, err := back.CoreV1().Nodes().Get(t.Context(), thief.name, metav1.GetOptions{}); err != nil {
		t.Errorf("the new certificate after a restart: %v", err)
	}
}

// keepObjects sets finalizers on the node, its Lease and its pod with the node's credentials.
func keepObjects(t *testing.T, node *registeredNode) {
	t.Helper()
	keep := []byte(`{"metadata":{"finalizers":["example.com/keep"]}}`)
	if _, err := node.CoreV1().Nodes().Patch(t.Context(), node.name, types.MergePatchType, keep, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: node.name, Finalizers: []string{"example.com/keep"}}}
	if _, err := node.CoordinationV1().Leases(corev1.NamespaceNodeLease).Create(t.Context(), lease, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := node.CoreV1().Pods(node.pod.Namespace).Patch(t.Context(), node.pod.Name, types.MergePatchType, keep, metav1.PatchOptions{}, "status"); err != nil {
		t.Fatal(err)
	}
}

// checkObjectsRemoved checks that the node, its Lease and its pod are removed although they have finalizers.
func checkObjectsRemoved(t *testing.T, a *lanyardtest.Authority, node *registeredNode) {
	t.Helper()
	for what, get := range map[string]func() error{
		"Node": func() error {
			_, err := a.Client().CoreV1().Nodes().Get(t.Context(), node.name, metav1.GetOptions{})
			return err
		},
		"Lease": func() error {
			_, err := a.Client().CoordinationV1().Leases(corev1.NamespaceNodeLease).Get(t.Context(), node.name, metav1.GetOptions{})
			return err
		},
		"pod": func() error {
			_, err := a.Client().CoreV1().Pods(node.pod.Namespace).Get(t.Context(), node.pod.Name, metav1.GetOptions{})
			return err
		},
	} {
		if err := get(); !apierrors.IsNotFound(err) {
			t.Errorf("the %s of the evicted node: %v, want not found", what, err)
		}
	}
}

// TestRemediesInTheDataDirectory moves the files away that the table names, and starts the authority again.
func TestRemediesInTheDataDirectory(t *testing.T) {
	t.Parallel()
	for _, remedy := range []struct {
		stolen string
		away   []string
		// refused are the earlier credentials that must be refused. All others must still be accepted.
		refused []string
	}{
		{"admin.kubeconfig", []string{"ca.*", "serving.*", "admin.*"}, []string{"administrator", "node", "node client"}},
		{"apiserver-kubelet-client", []string{"ca.*"}, []string{"administrator", "node", "node client"}},
		{"sa.key", []string{"sa.key"}, []string{"account"}},
	} {
		t.Run(remedy.stolen, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			a := lanyardtest.StartWith(t, lanyardtest.Options{DataDir: dir})
			had := credentials(t, a)
			port := portOf(t, a)
			a.Stop(t)
			away := t.TempDir()
			for _, pattern := range remedy.away {
				found, err := filepath.Glob(filepath.Join(dir, pattern))
				if err != nil || len(found) == 0 {
					t.Fatalf("%s: %v, %v", pattern, found, err)
				}
				for _, file := range found {
					if err := os.Rename(file, filepath.Join(away, filepath.Base(file))); err != nil {
						t.Fatal(err)
					}
				}
			}
			a = lanyardtest.StartWith(t, lanyardtest.Options{DataDir: dir, Port: port})
			for name, config := range had {
				config.CAData, config.CAFile = a.Config().CAData, a.Config().CAFile
				_, err := identify(t, config)
				if refused := slices.Contains(remedy.refused, name); refused != apierrors.IsUnauthorized(err) || !refused && err != nil {
					t.Errorf("the earlier credential of the %s: %v, want refused %t", name, err, refused)
				}
			}
			if _, err := a.Client().CoreV1().Namespaces().Get(t.Context(), "default", metav1.GetOptions{}); err != nil {
				t.Errorf("the present administrator: %v", err)
			}
		})
	}
}

// credentials returns one credential of each kind that a thief could have.
func credentials(t *testing.T, a *lanyardtest.Authority) map[string]*rest.Config {
	t.Helper()
	namespace := a.Namespace(t)
	a.CreateServiceAccount(t, namespace, "app")
	account := bearing(a.Config(), a.Token(t, namespace, "app"))
	files := func(name string) *rest.Config {
		config := rest.AnonymousClientConfig(a.Config())
		for to, file := range map[*[]byte]string{&config.CertData: name + ".crt", &config.KeyData: name + ".key"} {
			data, err := os.ReadFile(filepath.Join(a.DataDir(), file))
			if err != nil {
				t.Fatal(err)
			}
			*to = data
		}
		return config
	}
	return map[string]*rest.Config{
		"account": account, "administrator": files("admin"), "node client": files("apiserver-kubelet-client"), "node": nodeConfig(t, a.DataDir(), a.Config(), "n"),
	}
}
