//go:build linux

package systemtest

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// TestAccountsScrapeNodes reads a node's metrics as Prometheus does: with an account's token, and with the node's certificate
// verified by what the account can read itself.
func TestAccountsScrapeNodes(t *testing.T) {
	t.Parallel()
	b := commonSite(t).bench(t)
	for _, name := range []string{"prometheus", "visitor"} {
		account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}
		if _, err := b.Client().CoreV1().ServiceAccounts(b.namespace).Create(t.Context(), account, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	may, mayNot := b.tokenOf(t, "prometheus"), b.tokenOf(t, "visitor")
	role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "scrape-" + b.namespace}, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"nodes/metrics"}, Verbs: []string{"get"}},
	}}
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: role.Name}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role.Name},
		Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: b.namespace, Name: "prometheus"}},
	}
	if _, err := b.Client().RbacV1().ClusterRoles().Create(t.Context(), role, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Client().RbacV1().ClusterRoleBindings().Create(t.Context(), binding, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}

	scrape := b.scraper(t, may)
	code, text := scrape(t, "/metrics", may)
	if code != http.StatusOK || !strings.Contains(text, `lanyard_runtime_operations_total{operation="list",result="success"}`) || !strings.Contains(text, `lanyard_pods{phase="Running"}`) {
		t.Errorf("with the right: %d\n%.500s", code, text)
	}
	for name, test := range map[string]struct {
		path, token string
		code        int
	}{
		"without the right":      {"/metrics", mayNot, http.StatusForbidden},
		"with another right":     {"/containerLogs/a/b/c", may, http.StatusForbidden},
		"a garbage token":        {"/metrics", "garbage", http.StatusUnauthorized},
		"a token cut short":      {"/metrics", may[:len(may)-3], http.StatusUnauthorized},
		"no token":               {"/metrics", "", http.StatusUnauthorized},
		"for another audience":   {"/metrics", b.tokenOf(t, "prometheus", "vault"), http.StatusUnauthorized},
		"what is no page at all": {"/pods", may, http.StatusNotFound},
	} {
		if code, text := scrape(t, test.path, test.token); code != test.code || strings.Contains(text, "lanyard_") {
			t.Errorf("%s: %d, want %d\n%.200s", name, code, test.code, text)
		}
	}
	// No answer is remembered.
	if err := b.Client().CoreV1().ServiceAccounts(b.namespace).Delete(t.Context(), "prometheus", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if code, _ := scrape(t, "/metrics", may); code != http.StatusUnauthorized {
		t.Errorf("a deleted account: %d", code)
	}
}

func (b *bench) tokenOf(t *testing.T, account string, audiences ...string) string {
	t.Helper()
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: audiences}}
	answer, err := b.Client().CoreV1().ServiceAccounts(b.namespace).CreateToken(t.Context(), account, request, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return answer.Status.Token
}

// scraper returns how to get a page of the node, verified by the CA of nodes as the bearer of a token reads it.
func (b *bench) scraper(t *testing.T, token string) func(t *testing.T, path, token string) (int, string) {
	t.Helper()
	config := rest.AnonymousClientConfig(b.config(t))
	config.BearerToken = token
	own, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	published, err := own.CoreV1().ConfigMaps("kube-public").Get(t.Context(), "kubelet-serving-ca", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(published.Data["ca.crt"])) {
		t.Fatal("the ConfigMap holds no certificate")
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	t.Cleanup(client.CloseIdleConnections)
	// This CA vouches for nodes alone.
	if _, err := client.Get(config.Host + "/version"); !errors.As(err, new(*tls.CertificateVerificationError)) {
		t.Errorf("the authority is verified by the CA of nodes: %v", err)
	}
	return func(t *testing.T, path, token string) (int, string) {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+b.serves(t)+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if token != "" {
			request.Header.Set("Authorization", "Bearer "+token)
		}
		answer, err := client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = answer.Body.Close() }()
		text, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		return answer.StatusCode, string(text)
	}
}
