package lanyardtest

import (
	"context"
	"sync"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"lanyard.dev/internal/standalone"
)

// Options change what Start does. The zero value is right for most tests.
type Options struct {
	// DataDir is a data directory to start on, such as that of an authority which was stopped; it is kept. The default
	// is a new one that is removed after the test.
	DataDir string
	// Port is where to serve on 127.0.0.1; 0 takes a free one. Clients and tokens outlive a restart only on the same port:
	// the URL is the tokens' issuer.
	Port int
	// Fsync makes every write wait for the disk, as production does. Only a test that kills the process can tell.
	Fsync bool
	// AuthenticationConfig is an AuthenticationConfiguration file: the issuers by whose tokens people sign in.
	AuthenticationConfig string
	// MinTokenExpiration allows tokens that live shorter than Kubernetes' 10 minutes, down to a second.
	MinTokenExpiration time.Duration
	// MaxTokenExpiration shortens every longer token, with a warning; 0 shortens none.
	MaxTokenExpiration time.Duration
}

// Authority is a running authority. Its methods may be called from several goroutines; those that take a testing.TB
// fail that test when they cannot do what they say, so they belong on its goroutine.
type Authority struct {
	running *standalone.Authority
	config  *rest.Config
	client  *kubernetes.Clientset

	stop    sync.Once
	stopped error
}

// Start starts an authority that ends with the test.
func Start(t testing.TB) *Authority {
	t.Helper()
	return StartWith(t, Options{})
}

// StartWith is Start with options.
func StartWith(t testing.TB, o Options) *Authority {
	t.Helper()
	dir := o.DataDir
	if dir == "" {
		dir = t.TempDir()
	}
	// Not the test's context: that ends before the cleanup functions run, and they may still need the authority.
	running, err := standalone.Start(context.Background(), standalone.Config{
		DataDir: dir, BindAddress: "127.0.0.1", Port: o.Port, Unannounced: true, UnsafeNoFsync: !o.Fsync,
		MinTokenExpiration: o.MinTokenExpiration, MaxTokenExpiration: o.MaxTokenExpiration,
		AuthenticationConfig: o.AuthenticationConfig,
	})
	if err != nil {
		t.Fatalf("start authority: %v", err)
	}
	a := &Authority{running: running}
	t.Cleanup(func() { a.Stop(t) })
	if err := a.connect(); err != nil {
		t.Fatalf("connect to authority: %v", err)
	}
	return a
}

func (a *Authority) connect() (err error) {
	if a.config, err = clientcmd.BuildConfigFromFlags("", a.Kubeconfig()); err != nil {
		return err
	}
	// A test has no reason to spare its own server.
	a.config.QPS = -1
	a.client, err = kubernetes.NewForConfig(a.config)
	return err
}

// Stop ends the authority before the test does, as for a test of what happens without it. The data directory stays
// until the end of the test, and StartWith on it starts the authority anew. Calls after the first do nothing.
func (a *Authority) Stop(t testing.TB) {
	t.Helper()
	a.stop.Do(func() {
		a.hangUp()
		a.stopped = a.running.Stop()
	})
	if a.stopped != nil {
		t.Errorf("stop authority: %v", a.stopped)
	}
}

// hangUp closes the idle connections of clients made from Config and As, which share two transports: a server that ends
// gives each connection a second to close.
func (a *Authority) hangUp() {
	if a.config == nil {
		return
	}
	for _, config := range []*rest.Config{a.config, rest.AnonymousClientConfig(a.config)} {
		if transport, err := rest.TransportFor(config); err == nil {
			utilnet.CloseIdleConnectionsFor(transport)
		}
	}
}

// URL is where the API is served: "https://127.0.0.1:PORT".
func (a *Authority) URL() string { return a.running.URL }

// DataDir is the absolute path of the data directory; audit/audit.log is in it.
func (a *Authority) DataDir() string { return a.running.DataDir() }

// Kubeconfig is the path of the administrator's kubeconfig, for programs that take one.
func (a *Authority) Kubeconfig() string { return a.running.Kubeconfig() }

// Config returns a copy of the administrator's client configuration, without a client-side rate limit.
func (a *Authority) Config() *rest.Config { return rest.CopyConfig(a.config) }

// Client is a client with the administrator's rights.
func (a *Authority) Client() kubernetes.Interface { return a.client }

// Namespace makes a namespace with a name of its own and returns the name. It is there until the authority ends.
func (a *Authority) Namespace(t testing.TB) string {
	t.Helper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "test-"}}
	made, err := a.client.CoreV1().Namespaces().Create(t.Context(), namespace, metav1.CreateOptions{})
	if err != nil {
		t.Fatalf("create namespace: %v", err)
	}
	return made.Name
}

// CreateServiceAccount makes a service account, which has no permissions until it is given some.
func (a *Authority) CreateServiceAccount(t testing.TB, namespace, name string) *corev1.ServiceAccount {
	t.Helper()
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}
	made, err := a.client.CoreV1().ServiceAccounts(namespace).Create(t.Context(), account, metav1.CreateOptions{})
	if err != nil {
		t.Fatalf("create service account %s/%s: %v", namespace, name, err)
	}
	return made
}

// Grant gives an account these rules in its own namespace, through a Role and a RoleBinding with generated names.
func (a *Authority) Grant(t testing.TB, namespace, account string, rules ...rbacv1.PolicyRule) {
	t.Helper()
	generated := metav1.ObjectMeta{GenerateName: account + "-"}
	rbac := a.client.RbacV1()
	role, err := rbac.Roles(namespace).Create(t.Context(), &rbacv1.Role{ObjectMeta: generated, Rules: rules}, metav1.CreateOptions{})
	if err != nil {
		t.Fatalf("create role for %s/%s: %v", namespace, account, err)
	}
	binding := &rbacv1.RoleBinding{
		ObjectMeta: generated,
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: account}},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: role.Name},
	}
	if _, err := rbac.RoleBindings(namespace).Create(t.Context(), binding, metav1.CreateOptions{}); err != nil {
		t.Fatalf("bind role for %s/%s: %v", namespace, account, err)
	}
}

// Token returns a new token of the account, good for an hour and for the audiences, or for the authority itself if
// none is given.
func (a *Authority) Token(t testing.TB, namespace, account string, audiences ...string) string {
	t.Helper()
	return a.TokenFor(t, namespace, account, authenticationv1.TokenRequestSpec{Audiences: audiences})
}

// TokenFor is Token with everything that can be asked for: the lifetime and the object the token is bound to.
func (a *Authority) TokenFor(t testing.TB, namespace, account string, spec authenticationv1.TokenRequestSpec) string {
	t.Helper()
	request := &authenticationv1.TokenRequest{Spec: spec}
	issued, err := a.client.CoreV1().ServiceAccounts(namespace).CreateToken(t.Context(), account, request, metav1.CreateOptions{})
	if err != nil {
		t.Fatalf("create token of %s/%s: %v", namespace, account, err)
	}
	return issued.Status.Token
}

// As returns the client configuration of the account, with a new token: what code that runs as this account has.
func (a *Authority) As(t testing.TB, namespace, account string) *rest.Config {
	t.Helper()
	config := rest.AnonymousClientConfig(a.config)
	config.BearerToken = a.Token(t, namespace, account)
	return config
}
