package cli

import (
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"lanyard.dev/lanyardtest"
)

// kubeconfigOf writes a kubeconfig with a token of a service account.
func kubeconfigOf(t *testing.T, a *lanyardtest.Authority, namespace, name string) string {
	t.Helper()
	config := a.As(t, namespace, name)
	written := clientcmdapi.NewConfig()
	written.Clusters["c"] = &clientcmdapi.Cluster{Server: config.Host, CertificateAuthorityData: config.CAData, CertificateAuthority: config.CAFile}
	written.AuthInfos["u"] = &clientcmdapi.AuthInfo{Token: config.BearerToken}
	written.Contexts["x"] = &clientcmdapi.Context{Cluster: "c", AuthInfo: "u", Namespace: namespace}
	written.CurrentContext = "x"
	file := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*written, file); err != nil {
		t.Fatal(err)
	}
	return file
}

// impersonator writes a kubeconfig with which the administrator impersonates a user. Its namespace is shop.
func impersonator(t *testing.T, a *lanyardtest.Authority, user string, groups ...string) string {
	t.Helper()
	config, err := clientcmd.LoadFromFile(a.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	current := config.Contexts[config.CurrentContext]
	current.Namespace = "shop"
	config.AuthInfos[current.AuthInfo].Impersonate, config.AuthInfos[current.AuthInfo].ImpersonateGroups = user, groups
	file := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*config, file); err != nil {
		t.Fatal(err)
	}
	return file
}

// bind grants a ClusterRole to a service account of the namespace shop, in that namespace.
func bind(t *testing.T, a *lanyardtest.Authority, name, role, account string) {
	t.Helper()
	binding := &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: "shop", Name: account}},
	}
	if _, err := a.Client().RbacV1().RoleBindings("shop").Create(t.Context(), binding, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// grantInspector permits the account inspector to list ClusterRoles and ClusterRoleBindings.
func grantInspector(t *testing.T, a *lanyardtest.Authority) {
	t.Helper()
	meta := metav1.ObjectMeta{Name: "inspector"}
	rules := []rbacv1.PolicyRule{{Verbs: []string{"list"}, APIGroups: []string{rbacv1.GroupName}, Resources: []string{"clusterroles", "clusterrolebindings"}}}
	if _, err := a.Client().RbacV1().ClusterRoles().Create(t.Context(), &rbacv1.ClusterRole{ObjectMeta: meta, Rules: rules}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: meta, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "inspector"},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: "shop", Name: "inspector"}},
	}
	if _, err := a.Client().RbacV1().ClusterRoleBindings().Create(t.Context(), binding, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// TestAccessTimeout uses a server that never answers.
func TestAccessTimeout(t *testing.T) {
	t.Parallel()
	ended := make(chan struct{})
	silent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-ended:
		}
	}))
	t.Cleanup(func() { close(ended); silent.Close() })
	written := clientcmdapi.NewConfig()
	written.Clusters["c"] = &clientcmdapi.Cluster{Server: silent.URL}
	written.Contexts["x"] = &clientcmdapi.Context{Cluster: "c"}
	written.CurrentContext = "x"
	file := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*written, file); err != nil {
		t.Fatal(err)
	}
	o := newExplainOptions(t, []string{"--kubeconfig", file})
	o.source.timeout = 100 * time.Millisecond
	if _, err := o.source.load(t.Context(), ""); err == nil || !strings.Contains(err.Error(), "list clusterroles of "+silent.URL) {
		t.Errorf("got %v", err)
	}
}

// TestAccessWithoutClusterRights asks as users who may read a part of the policy or nothing. If the answer is unknown, the
// result must never be that the request is denied.
func TestAccessWithoutClusterRights(t *testing.T) {
	t.Parallel()
	a := lanyardtest.Start(t)
	if _, err := a.Client().CoreV1().Namespaces().Create(t.Context(), namespaceNamed("shop"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"web", "owner", "auditor"} {
		a.CreateServiceAccount(t, "shop", name)
	}
	secret := &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: "shop-secrets"},
		Rules:      []rbacv1.PolicyRule{{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"secrets"}}},
	}
	if _, err := a.Client().RbacV1().ClusterRoles().Create(t.Context(), secret, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	bind(t, a, "viewers", "view", "web")
	bind(t, a, "secrets", "shop-secrets", "web")
	bind(t, a, "owners", "admin", "owner")
	// The auditor may list roles and bindings of the namespace, but may not create reviews for other subjects.
	a.Grant(t, "shop", "auditor", rbacv1.PolicyRule{Verbs: []string{"get", "list"}, APIGroups: []string{rbacv1.GroupName}, Resources: []string{"roles", "rolebindings"}})
	// The inspector may read everything that applies in the namespace, and nothing elsewhere.
	a.CreateServiceAccount(t, "shop", "inspector")
	a.Grant(t, "shop", "inspector", rbacv1.PolicyRule{Verbs: []string{"list"}, APIGroups: []string{rbacv1.GroupName}, Resources: []string{"roles", "rolebindings"}})
	grantInspector(t, a)
	files := map[string]string{}
	for _, name := range []string{"web", "owner", "auditor", "inspector"} {
		files[name] = kubeconfigOf(t, a, "shop", name)
	}
	developers := &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "developers"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "view"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.GroupKind, APIGroup: rbacv1.GroupName, Name: "dev"}},
	}
	if _, err := a.Client().RbacV1().RoleBindings("shop").Create(t.Context(), developers, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	files["jane"] = impersonator(t, a, "jane", "dev", "system:authenticated")
	for name, test := range map[string]struct {
		who  string
		args string
		code int
		out  string
		note string
	}{
		"what I may do":                       {"web", "list sa:shop/web", 0, "namespace shop   secrets", "what you may do according to the API server in namespace shop"},
		"what I may do elsewhere":             {"web", "list shop/web -n default", 0, "selfsubjectaccessreviews.authorization.k8s.io", "in namespace default"},
		"whether I may":                       {"web", "explain sa:shop/web get secrets", 0, "yes: sa:shop/web can get secrets in namespace shop", `the API server's own answer is yes: RBAC: allowed by RoleBinding "secrets/shop"`},
		"whether I may not":                   {"web", "explain sa:shop/web delete secrets", exitFailure, "no: sa:shop/web cannot delete secrets", "the API server's own answer is no"},
		"whether I may, in no namespace":      {"web", "explain sa:shop/web list nodes", exitFailure, "no: ", "the API server's own answer is no"},
		"what another may":                    {"web", "list sa:shop/owner", exitFailure, "", "is forbidden"},
		"whether another may":                 {"web", "explain sa:shop/owner get pods", exitFailure, "unknown: sa:shop/owner is not known to be able to get pods", "you may not list clusterrolebindings, roles, rolebindings"},
		"who may":                             {"web", "who-can get pods", exitFailure, "", "hint: to read a policy, you need the permission to list roles"},
		"owner: whether another may":          {"owner", "explain sa:shop/web get secrets", 0, "yes: ", "the API server's own answer is yes"},
		"owner: whether another may not":      {"owner", "explain sa:shop/web delete secrets", exitFailure, "no: ", "the API server's own answer is no"},
		"owner: whether in another namespace": {"owner", "explain sa:shop/web get pods -n default", exitFailure, "unknown: ", "the policy could be read in part only"},
		"owner: who may": {"owner", "who-can get pods", 0, "ServiceAccount/shop/web     RoleBinding/shop/viewers",
			"these ClusterRoles could not be read and are assumed to be Kubernetes' default ones: admin, view"},
		"auditor: by a default role":      {"auditor", "explain sa:shop/web get pods", exitFailure, "unknown: sa:shop/web is not known to be able to get pods", "assumed to be Kubernetes' default ones"},
		"auditor: by a role unread":       {"auditor", "explain sa:shop/web get secrets", exitFailure, "bound to ClusterRole/shop-secrets, which could not be read", "you may not list clusterrolebindings, roles outside namespace shop, rolebindings outside namespace shop"},
		"auditor: not known":              {"auditor", "explain sa:shop/web get secrets", exitFailure, "unknown: ", ""},
		"auditor: what another may":       {"auditor", "list sa:shop/web", 0, "namespace shop   pods", "RoleBinding/shop/secrets refers to ClusterRole/shop-secrets, which could not be read"},
		"auditor: what I may":             {"auditor", "list sa:shop/auditor", 0, "unknown", "what you may do according to the API server"},
		"auditor: an account not there":   {"owner", "explain sa:shop/wbe get pods", exitFailure, "no: ", "the service account shop/wbe does not exist: did you mean web?"},
		"owner: a namespace not there":    {"owner", "explain sa:shop/web get pods -n shp", exitFailure, "unknown: ", ""},
		"inspector: all that applies":     {"inspector", "explain sa:shop/web get secrets", 0, "ClusterRole/shop-secrets", "you may not list roles outside namespace shop, rolebindings outside namespace shop"},
		"inspector: denied":               {"inspector", "explain sa:shop/web delete secrets", exitFailure, "no: ", ""},
		"inspector: in no namespace":      {"inspector", "explain sa:shop/web list nodes", exitFailure, "no: ", ""},
		"inspector: of another":           {"inspector", "explain sa:shop/web get ns/default", exitFailure, "unknown: ", ""},
		"jane: without her group":         {"jane", "explain user:jane get pods", 0, "yes: user:jane can get pods in namespace shop", "the answer also takes these groups of yours into account: dev"},
		"jane: her list":                  {"jane", "list user:jane -n shop", 0, "namespace shop   pods", "the answer also takes these groups of yours into account: dev"},
		"jane: in another group":          {"jane", "explain user:jane get pods --group ops", exitFailure, "unknown: ", ""},
		"administrator: namespace, typed": {"", "explain sa:shop/web get pods -n shp", exitFailure, "no: ", "the namespace shp does not exist: did you mean shop?"},
		"administrator: account, typed":   {"", "list sa:shop/wbe", 0, "system:basic-user", "the service account shop/wbe does not exist: did you mean web?"},
		"administrator: object, typed":    {"", "explain sa:shop/web get sa/auditr -n shop", 0, "yes: ", `serviceaccounts "auditr" does not exist`},
		"administrator: object there":     {"", "explain sa:shop/web get sa/auditor -n shop", 0, "yes: ", ""},
		"administrator: node, typed":      {"", "explain node:worker-1 list pods -A", exitFailure, "no: ", "the node worker-1 does not exist"},
		"administrator: a node, itself":   {"", "explain node:worker-1 get nodes/worker-1", 0, "yes: ", "by RBAC alone the answer is no, but the API server's answer is yes, which is the result"},
		"administrator: verb, typed":      {"", "explain sa:shop/web gett pods -n shop", exitFailure, "no: ", `did you mean "get"?`},
		"administrator: events":           {"", "explain sa:shop/web create events -n shop", exitFailure, `group="" resource="events"`, "also events.events.k8s.io"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := files[test.who]
			if test.who == "" {
				file = a.Kubeconfig()
			}
			got := run("", append(append([]string{"access"}, strings.Fields(test.args)...), "--kubeconfig", file)...)
			if got.code != test.code || !strings.Contains(got.out, test.out) || !strings.Contains(got.errOut, test.note) {
				t.Errorf("as %s: %s: %+v, want code %d, %q and %q", test.who, test.args, got, test.code, test.out, test.note)
			}
		})
	}
}
