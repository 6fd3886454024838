package apiserver_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	identityv1alpha1 "lanyard.dev/apis/identity/v1alpha1"
	"lanyard.dev/internal/apiserver"
	"lanyard.dev/internal/etcd"
	"lanyard.dev/internal/nodeaccess"
	"lanyard.dev/internal/pki"
	"lanyard.dev/internal/signingkey"
)

// site holds the files that replicas share, and their etcd.
type site struct {
	dir   string
	etcd  *etcd.Server
	ca    *pki.Authority
	admin *pki.Pair
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{dir: t.TempDir()}
	now := time.Now()
	var err error
	if s.ca, err = pki.EnsureAuthority(s.file("ca.crt"), s.file("ca.key"), "test", now); err != nil {
		t.Fatal(err)
	}
	if _, err = s.ca.EnsureServing(s.file("tls.crt"), s.file("tls.key"), pki.ServingNames("localhost", "127.0.0.1"), now); err != nil {
		t.Fatal(err)
	}
	if s.admin, err = s.ca.NewClient("admin", []string{"system:masters"}, now); err != nil {
		t.Fatal(err)
	}
	key, err := signingkey.Generate(signingkey.ES256)
	if err != nil {
		t.Fatal(err)
	}
	data, err := key.MarshalPEM()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.file("sa.key"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	if s.etcd, err = etcd.Start(t.Context(), etcd.Config{Dir: s.file("etcd"), UnsafeNoFsync: true}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.etcd.Stop(context.Background()) })
	return s
}

func (s *site) file(name string) string { return filepath.Join(s.dir, name) }

// replica starts one authority of the site and returns clients for the administrator and for the bearer of a token.
func (s *site) replica(t *testing.T) (admin *kubernetes.Clientset, bearer func(token string) *kubernetes.Clientset) {
	t.Helper()
	r := s.start(t, nil)
	withToken := func(token string) *kubernetes.Clientset {
		c := rest.CopyConfig(r.anonymous)
		c.BearerToken = token
		return kubernetes.NewForConfigOrDie(c)
	}
	return kubernetes.NewForConfigOrDie(r.admin), withToken
}

// running is an authority of a site with the configurations of its clients.
type running struct {
	anonymous, admin *rest.Config
	stop             context.CancelFunc
	done             <-chan struct{} // closed when it has ended
}

// options returns the usual options of an authority of the site.
func (s *site) options(listener net.Listener) apiserver.Options {
	return apiserver.Options{
		Listener: listener, TLSCertFile: s.file("tls.crt"), TLSPrivateKeyFile: s.file("tls.key"),
		ClientCAFile: s.file("ca.crt"), RootCAFile: s.file("ca.crt"),
		Etcd:            apiserver.Etcd{Servers: []string{s.etcd.Endpoint()}},
		ServiceAccounts: apiserver.ServiceAccounts{Issuers: []string{"https://issuer.example"}, SigningKeyFiles: []string{s.file("sa.key")}},
	}
}

// start starts an authority of the site. change, if not nil, changes the usual options.
func (s *site) start(t *testing.T, change func(*apiserver.Options)) *running {
	t.Helper()
	return s.startBy(t, change, apiserver.New)
}

func (s *site) startBy(t *testing.T, change func(*apiserver.Options), newServer func(apiserver.Options) (*apiserver.Server, error)) *running {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	options := s.options(listener)
	if change != nil {
		change(&options)
	}
	server, err := newServer(options)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	var ended error
	go func() { defer close(done); ended = server.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if <-done; ended != nil {
			t.Error(ended)
		}
	})
	select {
	case <-server.Ready():
	case <-done:
		t.Fatalf("ended before it was ready: %v", ended)
	case <-time.After(time.Minute):
		t.Fatal("not ready within a minute")
	}
	r := &running{anonymous: &rest.Config{Host: "https://" + listener.Addr().String(), QPS: -1}, stop: stop, done: done}
	r.anonymous.CAData = s.ca.CertPEM()
	r.admin = rest.CopyConfig(r.anonymous)
	r.admin.CertData, r.admin.KeyData = s.admin.CertPEM, s.admin.KeyPEM
	return r
}

// TestReplicas runs two replicas on one etcd. The replica that writes acts on the change at once, and the other when its watch
// has delivered it.
func TestReplicas(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	first, _ := s.replica(t)
	second, onSecond := s.replica(t)
	ctx := t.Context()

	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "app"}}
	if _, err := first.CoreV1().ServiceAccounts("default").Create(ctx, account, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	request, err := second.CoreV1().ServiceAccounts("default").CreateToken(ctx, "app", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatalf("token of an account that the other replica has just made: %v", err)
	}
	app := onSecond(request.Status.Token)
	whoAmI := func() error {
		_, err := app.AuthenticationV1().SelfSubjectReviews().Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
		return err
	}
	if err := whoAmI(); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		made, err := first.CoreV1().ServiceAccounts("default").Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "again"}}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		request, err := first.CoreV1().ServiceAccounts("default").CreateToken(ctx, "again", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		_, err = onSecond(request.Status.Token).AuthenticationV1().SelfSubjectReviews().Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
		if err != nil {
			t.Fatalf("token of an account that was created again for the %dth time, UID %s: %v", i, made.UID, err)
		}
		if err := first.CoreV1().ServiceAccounts("default").Delete(ctx, "again", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := first.CoreV1().ServiceAccounts("default").Delete(ctx, "app", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	deleted := time.Now()
	for whoAmI() == nil {
		if lag := time.Since(deleted); lag > 5*time.Second {
			t.Fatalf("the other replica still accepts the token %v after its account was deleted", lag)
		}
	}
	t.Logf("refused by the other replica %v after the delete was answered", time.Since(deleted))
}

// TestReplicasShareIssuedTokens issues a token at one replica, reads its record at the other, and revokes it there.
func TestReplicasShareIssuedTokens(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	one, two := s.start(t, nil), s.start(t, nil)
	resource := identityv1alpha1.SchemeGroupVersion.WithResource("issuedtokens")
	atOne := dynamic.NewForConfigOrDie(one.admin).Resource(resource).Namespace("default")
	atTwo := dynamic.NewForConfigOrDie(two.admin).Resource(resource).Namespace("default")
	first := kubernetes.NewForConfigOrDie(one.admin)
	for i := range 5 {
		name := fmt.Sprintf("app-%d", i)
		if _, err := first.CoreV1().ServiceAccounts("default").Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		request, err := first.CoreV1().ServiceAccounts("default").CreateToken(t.Context(), name, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		list, err := atTwo.List(t.Context(), metav1.ListOptions{FieldSelector: "spec.serviceAccount.name=" + name})
		if err != nil || len(list.Items) != 1 {
			t.Fatalf("at the other replica: %v, %v", list, err)
		}
		object := list.Items[0]
		if phase, _, _ := unstructured.NestedString(object.Object, "status", "phase"); phase != "Active" {
			t.Errorf("at the other replica the token is %s", phase)
		}
		changes, err := atOne.Watch(t.Context(), metav1.ListOptions{ResourceVersion: object.GetResourceVersion()})
		if err != nil {
			t.Fatal(err)
		}
		if err := atTwo.Delete(t.Context(), object.GetName(), metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		if event := <-changes.ResultChan(); event.Type != watch.Deleted {
			t.Errorf("a watch at the first replica has %v", event)
		}
		changes.Stop()
		c := rest.CopyConfig(one.anonymous)
		c.BearerToken = request.Status.Token
		_, err = kubernetes.NewForConfigOrDie(c).AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
		if !apierrors.IsUnauthorized(err) {
			t.Errorf("at the first replica after the event: %v", err)
		}
	}
}

// TestEvictionReachesReplicas evicts a node at one replica of an authority that signs no certificates. The other
// replica refuses the certificate too, and both accept the next certificate of the external signer, which need not know
// of the eviction.
func TestEvictionReachesReplicas(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	first, _ := s.replica(t)
	second, _ := s.replica(t)
	signIn := func(at *kubernetes.Clientset, from *pki.Authority) error {
		pair, err := from.NewClient(nodeaccess.User("n"), []string{nodeaccess.Group}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		url := at.CoreV1().RESTClient().Get().URL()
		config := &rest.Config{Host: url.Scheme + "://" + url.Host}
		config.CAData, config.CertData, config.KeyData = s.ca.CertPEM(), pair.CertPEM, pair.KeyPEM
		_, err = kubernetes.NewForConfigOrDie(config).AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
		return err
	}
	// NewClient backdates the certificate by five minutes, as signers usually do.
	if err := signIn(second, s.ca); err != nil {
		t.Fatal(err)
	}
	record, err := first.CoreV1().Secrets(nodeaccess.EvictionNamespace).Create(t.Context(), nodeaccess.NewEviction("n"), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := signIn(first, s.ca); !apierrors.IsUnauthorized(err) {
		t.Errorf("at the replica that wrote the eviction: %v", err)
	}
	evicted := time.Now()
	for err := signIn(second, s.ca); !apierrors.IsUnauthorized(err); err = signIn(second, s.ca) {
		if lag := time.Since(evicted); lag > 10*time.Second {
			t.Fatalf("the other replica %v after the eviction: %v", lag, err)
		}
	}
	later := s.ca.From(record.CreationTimestamp.Add(time.Second))
	for _, replica := range []*kubernetes.Clientset{first, second} {
		for err := signIn(replica, later); err != nil; err = signIn(replica, later) {
			if time.Since(evicted) > time.Minute {
				t.Fatalf("a certificate of after the eviction: %v", err)
			}
		}
	}
}

// TestReplicasPublishTheAgeOfTheirProofs also shows that each mirrored resource has a proof.
func TestReplicasPublishTheAgeOfTheirProofs(t *testing.T) {
	t.Parallel()
	admin, _ := newSite(t).replica(t)
	text, err := admin.CoreV1().RESTClient().Get().AbsPath("/metrics").DoRaw(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, resource := range []string{"serviceaccounts", "pods", "secrets", "nodes", "clusterroles.rbac.authorization.k8s.io", "leases.coordination.k8s.io"} {
		if line := `lanyard_feed_proof_age_seconds{resource="` + resource + `"} `; !strings.Contains(string(text), line) {
			t.Errorf("/metrics lacks %q", line)
		}
	}
}
