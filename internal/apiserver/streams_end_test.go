package apiserver_test

import (
	"strings"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"lanyard.dev/internal/apiserver"
	"lanyard.dev/internal/apiserver/registry/storagetest"
	"lanyard.dev/internal/ledger"
	"lanyard.dev/internal/token"
)

// watchAs opens a watch of config maps.
func watchAs(t *testing.T, config *rest.Config, token string) watch.Interface {
	t.Helper()
	if token != "" {
		config = rest.AnonymousClientConfig(config)
		config.BearerToken = token
	}
	changes, err := kubernetes.NewForConfigOrDie(config).CoreV1().ConfigMaps("default").Watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(changes.Stop)
	return changes
}

// viewer creates an account that may watch config maps, and returns a token.
func viewer(t *testing.T, admin *rest.Config, name string) string {
	t.Helper()
	text := tokenOf(t, admin, name)
	_, err := kubernetes.NewForConfigOrDie(admin).RbacV1().RoleBindings("default").Create(t.Context(), &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "view"},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: "default", Name: name}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// ends waits for the end of a watch, and returns how long that takes.
func ends(t *testing.T, changes watch.Interface) time.Duration {
	t.Helper()
	began := time.Now()
	timeout := time.After(time.Minute)
	for {
		select {
		case event, open := <-changes.ResultChan():
			if !open {
				return time.Since(began)
			}
			if event.Type == watch.Error {
				t.Errorf("the watch does not end in order: %v", event.Object)
			}
		case <-timeout:
			t.Fatal("the watch does not end")
		}
	}
}

// TestWatchesEndAtOtherReplicas opens watches at one replica, and takes the credentials and rights of their callers away at another.
func TestWatchesEndAtOtherReplicas(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	var server *apiserver.Server
	first := s.startBy(t, nil, func(o apiserver.Options) (_ *apiserver.Server, err error) {
		server, err = apiserver.New(o)
		return server, err
	})
	second := s.start(t, nil)
	admin := kubernetes.NewForConfigOrDie(first.admin)
	tokens := map[string]string{}
	watches := map[string]watch.Interface{}
	for _, name := range []string{"deleted", "revoked", "unbound", "untouched"} {
		tokens[name] = viewer(t, first.admin, name)
	}
	for name, text := range tokens {
		callerBy(t, second.anonymous, text, nil).await(t, "/api/v1/namespaces/default/configmaps", 200)
		watches[name] = watchAs(t, second.anonymous, text)
	}
	for name, end := range map[string]func() error{
		"deleted": func() error {
			return admin.CoreV1().ServiceAccounts("default").Delete(t.Context(), "deleted", metav1.DeleteOptions{})
		},
		"unbound": func() error {
			return admin.RbacV1().RoleBindings("default").Delete(t.Context(), "unbound", metav1.DeleteOptions{})
		},
		"revoked": func() error {
			_, id := token.Names(tokens["revoked"])
			return server.Journal().Revoke(t.Context(), []ledger.Revocation{{ID: id, Expires: time.Now().Add(time.Hour)}})
		},
	} {
		if err := end(); err != nil {
			t.Fatal(err)
		}
		if took := ends(t, watches[name]); took > time.Second {
			t.Errorf("%s: the watch at the other replica ended after %v", name, took)
		}
	}
	select {
	case _, open := <-watches["untouched"].ResultChan():
		if !open {
			t.Error("the watch of another caller ended")
		}
	default:
	}
}

// TestWatchesEndInAnOutage makes the etcd of a replica hang, so that it does not know what other replicas write. The watches
// of callers that depend on it end, and the administrator's goes on.
func TestWatchesEndInAnOutage(t *testing.T) {
	t.Parallel()
	const maxLag = 2 * time.Second
	s := newSite(t)
	gate := storagetest.NewGate(t, s.etcd.Endpoint())
	r := s.start(t, func(o *apiserver.Options) {
		o.Etcd.Servers, o.Etcd.MaxLag = []string{"http://" + gate.Addr().String()}, maxLag
	})
	text := viewer(t, r.admin, "app")
	callerBy(t, r.anonymous, text, nil).await(t, "/api/v1/namespaces/default/configmaps", 200)
	accounts, administrators := watchAs(t, r.anonymous, text), watchAs(t, r.admin, "")
	gate.Hang(true)
	defer gate.Hang(false)
	// The limit is maxLag and the second between two checks, and one more for slow machines.
	if took := ends(t, accounts); took > maxLag+2*time.Second {
		t.Errorf("the watch ended %v after the last write that may be known", took)
	}
	select {
	case _, open := <-administrators.ResultChan():
		if !open {
			t.Error("the watch of the administrator ended")
		}
	default:
	}
	_, metrics := callerBy(t, r.admin, "", nil).ask(t, "/metrics", "")
	if !strings.Contains(metrics, `lanyard_streams_ended_total{reason="undecided"} 1`+"\n") {
		t.Error("the metrics do not count the end")
	}
}
