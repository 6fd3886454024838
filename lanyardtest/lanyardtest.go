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

// Options configure an authority. The zero value is suitable for most tests.
type Options struct {
	// DataDir is the path of a data directory, such as the directory of an authority that was stopped (see Authority.DataDir). It
	// is created if it does not exist, and is not removed after the test. The default is a new directory below t.TempDir.
	DataDir string
	// Port is the TCP port on 127.0.0.1; 0 selects a free one. Clients and tokens remain valid after a restart only if the port
	// is the same, because the URL is the issuer of the tokens.
	Port int
	// Fsync makes every write wait until it is on the disk, as in production. Only a test that kills its process needs it.
	Fsync bool
	// AuthenticationConfig is the path of a file with an AuthenticationConfiguration (apiserver.config.k8s.io), which lists
	// OpenID Connect issuers whose tokens identify people.
	AuthenticationConfig string
	// MinTokenExpiration is the shortest lifetime of a token. The default is Kubernetes' minimum of 10 minutes; the smallest
	// value is one second.
	MinTokenExpiration time.Duration
	// MaxTokenExpiration is the longest lifetime of a token, which must not be less than the shortest. A longer request is
	// shortened, and its answer has a warning. 0 means no limit.
	MaxTokenExpiration time.Duration
	// AcceptUnrecordedTokens makes the authority accept tokens that it did not issue, and that the test signed with sa.key in the
	// data directory. Otherwise it refuses them, because it has no record of them.
	AcceptUnrecordedTokens bool
}

// Authority is a running authority. Its methods may be called from several goroutines. A method with a testing.TB parameter
// reports errors by failing that test with Fatalf, so it must be called from the goroutine of the test.
type Authority struct {
	running *standalone.Authority
	config  *rest.Config
	client  *kubernetes.Clientset

	stop    sync.Once
	stopped error
}

// Start starts an authority with the default options, and returns when it is ready. The authority ends with the test. If it
// does not start, the test fails.
func Start(t testing.TB) *Authority {
	t.Helper()
	return StartWith(t, Options{})
}

// StartWith does the same as Start, with options. The test fails if an option is not valid, or if the data directory or the
// port is in use.
func StartWith(t testing.TB, o Options) *Authority {
	t.Helper()
	dir := o.DataDir
	if dir == "" {
		dir = t.TempDir()
	}
	// The context of the test would end before the cleanup functions run, and they may need the authority.
	running, err := standalone.Start(context.Background(), standalone.Config{
		DataDir: dir, BindAddress: "127.0.0.1", Port: o.Port, Unannounced: true, UnsafeNoFsync: !o.Fsync,
		MinTokenExpiration: o.MinTokenExpiration, MaxTokenExpiration: o.MaxTokenExpiration,
		AuthenticationConfig: o.AuthenticationConfig, AcceptUnrecorded: o.AcceptUnrecordedTokens,
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
	// A client-side rate limit would only slow tests down.
	a.config.QPS = -1
	a.client, err = kubernetes.NewForConfig(a.config)
	return err
}

// Stop ends the authority before the end of the test, to test what happens without it. Clients then get connection errors. The
// data directory remains until the end of the test, and StartWith can start the authority again with it. Further calls have no
// effect. If the authority does not stop in order, the test is marked as failed and continues.
func (a *Authority) Stop(t testing.TB) {
	t.Helper()
	a.stop.Do(func() {
		a.closeIdleConnections()
		a.stopped = a.running.Stop()
	})
	if a.stopped != nil {
		t.Errorf("stop authority: %v", a.stopped)
	}
}

// closeIdleConnections closes the idle connections of the clients from Config and As, which share two transports. Otherwise the
// server would wait a second for them.
func (a *Authority) closeIdleConnections() {
	if a.config == nil {
		return
	}
	for _, config := range []*rest.Config{a.config, rest.AnonymousClientConfig(a.config)} {
		if transport, err := rest.TransportFor(config); err == nil {
			utilnet.CloseIdleConnectionsFor(transport)
		}
	}
}

// URL returns the address of the API, as "https://127.0.0.1:PORT". It is also the issuer of tokens.
func (a *Authority) URL() string { return a.running.URL }

// DataDir returns the absolute path of the data directory. It contains the audit log, audit/audit.log, with one JSON object a
// line.
func (a *Authority) DataDir() string { return a.running.DataDir() }

// Kubeconfig returns the path of the administrator's kubeconfig, for programs that need one.
func (a *Authority) Kubeconfig() string { return a.running.Kubeconfig() }

// Config returns a copy of the administrator's client configuration, which authenticates with a certificate and has no
// client-side rate limit.
func (a *Authority) Config() *rest.Config { return rest.CopyConfig(a.config) }

// Client returns a client with the administrator's permissions. All calls return the same client.
func (a *Authority) Client() kubernetes.Interface { return a.client }

// Namespace creates a namespace with a generated name and returns the name. The namespace is not deleted before the authority
// ends.
func (a *Authority) Namespace(t testing.TB) string {
	t.Helper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "test-"}}
	created, err := a.client.CoreV1().Namespaces().Create(t.Context(), namespace, metav1.CreateOptions{})
	if err != nil {
		t.Fatalf("create namespace: %v", err)
	}
	return created.Name
}

// CreateServiceAccount creates a service account and returns the stored object. The account has no permissions in the
// namespace; Grant adds some. The test fails if the namespace does not exist or the account does.
func (a *Authority) CreateServiceAccount(t testing.TB, namespace, name string) *corev1.ServiceAccount {
	t.Helper()
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}
	created, err := a.client.CoreV1().ServiceAccounts(namespace).Create(t.Context(), account, metav1.CreateOptions{})
	if err != nil {
		t.Fatalf("create service account %s/%s: %v", namespace, name, err)
	}
	return created
}

// Grant grants the rules to a service account in its own namespace, with a Role and a RoleBinding that have generated names.
// The rules apply when Grant returns. The account need not exist.
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

// Token returns a new token of a service account, in the compact form of a JWT (RFC 7519). It is valid for an hour and for the
// audiences, or for the authority itself if there are none. The test fails if the account does not exist.
func (a *Authority) Token(t testing.TB, namespace, account string, audiences ...string) string {
	t.Helper()
	return a.TokenFor(t, namespace, account, authenticationv1.TokenRequestSpec{Audiences: audiences})
}

// TokenFor does the same as Token, for a whole request: with a lifetime in seconds, and with the object to which the token is
// bound.
func (a *Authority) TokenFor(t testing.TB, namespace, account string, spec authenticationv1.TokenRequestSpec) string {
	t.Helper()
	request := &authenticationv1.TokenRequest{Spec: spec}
	issued, err := a.client.CoreV1().ServiceAccounts(namespace).CreateToken(t.Context(), account, request, metav1.CreateOptions{})
	if err != nil {
		t.Fatalf("create token for %s/%s: %v", namespace, account, err)
	}
	return issued.Status.Token
}

// As returns a client configuration for code that runs as a service account. It contains a new token, which is valid for an
// hour and is not renewed.
func (a *Authority) As(t testing.TB, namespace, account string) *rest.Config {
	t.Helper()
	config := rest.AnonymousClientConfig(a.config)
	config.BearerToken = a.Token(t, namespace, account)
	return config
}
