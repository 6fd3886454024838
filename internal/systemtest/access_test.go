package systemtest

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"lanyard.dev/internal/cli"
	"lanyard.dev/lanyardtest"
)

// TestAccessReadsInPages has more bindings than a page, and counts the pages on their way.
func TestAccessReadsInPages(t *testing.T) {
	t.Parallel()
	a := lanyardtest.Start(t)
	config := rest.CopyConfig(a.Config())
	config.QPS = -1
	client := clientFor(t, config)
	const bindings = 1100
	for i := range bindings {
		binding := &rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("b", i)},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "view"},
			Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: "default", Name: fmt.Sprint("a", i)}},
		}
		if _, err := client.RbacV1().RoleBindings("default").Create(t.Context(), binding, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	var pages atomic.Int64
	kubeconfig := proxied(t, config, func(r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/rolebindings") {
			pages.Add(1)
		}
	})
	var out, words bytes.Buffer
	if code := cli.Run([]string{"access", "who-can", "get", "pods", "--kubeconfig", kubeconfig}, nil, &out, &words); code != 0 {
		t.Fatalf("exit code %d: %s", code, words.String())
	}
	if n := strings.Count(out.String(), "ServiceAccount/default/a"); n != bindings {
		t.Errorf("%d of %d accounts found", n, bindings)
	}
	if n := pages.Load(); n != 3 {
		t.Errorf("%d requests for role bindings, want 3", n)
	}
	if strings.Contains(words.String(), "reading") {
		t.Errorf("progress is shown where no one watches: %q", words.String())
	}
}

// proxied returns a kubeconfig for a proxy to the authority, which adds the administrator's credentials.
func proxied(t *testing.T, config *rest.Config, see func(*http.Request)) (file string) {
	t.Helper()
	target, err := url.Parse(config.Host)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }}
	if proxy.Transport, err = rest.TransportFor(config); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		see(r)
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	file = filepath.Join(t.TempDir(), "kubeconfig")
	written := clientcmdapi.NewConfig()
	written.Clusters["proxy"] = &clientcmdapi.Cluster{Server: server.URL}
	written.Contexts["proxy"] = &clientcmdapi.Context{Cluster: "proxy"}
	written.CurrentContext = "proxy"
	if err := clientcmd.WriteToFile(*written, file); err != nil {
		t.Fatal(err)
	}
	return file
}
