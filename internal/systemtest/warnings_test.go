package systemtest

import (
	"net/http"
	"strings"
	"testing"
)

// TestFieldsThatNothingActsOn: what is accepted and has no effect here draws a Warning that names the field, and what has one
// draws none.
func TestFieldsThatNothingActsOn(t *testing.T) {
	t.Parallel()
	a := authority(t)
	admin, namespace := callerFor(t, a.Config()), a.Namespace(t)
	in := "/api/v1/namespaces/" + namespace
	const system = "/api/v1/namespaces/kube-system/secrets"
	const owner = `"ownerReferences":[{"apiVersion":"v1","kind":"Node","name":"n","uid":"1","controller":true}]`
	for _, test := range []struct{ name, method, path, body, want string }{
		{"owners", http.MethodPost, in + "/configmaps", `{"metadata":{"name":"owned",` + owner + `}}`, "metadata.ownerReferences: an object is not removed with its owners"},
		{"owners that were there", http.MethodPut, in + "/configmaps/owned", `{"metadata":{"name":"owned",` + owner + `},"data":{"a":"b"}}`, ""},
		{"owners of a mirror pod", http.MethodPost, in + "/pods", `{"metadata":{"name":"mirror","annotations":{"kubernetes.io/config.mirror":"x"},` + owner + `},"spec":{"nodeName":"n","containers":[{"name":"c","image":"x:1"}]}}`, ""},
		{"a collector's finalizer", http.MethodPost, in + "/configmaps?dryRun=All", `{"metadata":{"name":"f","finalizers":["foregroundDeletion"]}}`, "metadata.finalizers: nothing removes foregroundDeletion"},
		{"another finalizer", http.MethodPost, in + "/configmaps?dryRun=All", `{"metadata":{"name":"f","finalizers":["example.com/f"]}}`, ""},
		{"deletion of dependents first", http.MethodDelete, in + "/configmaps/owned", `{"dryRun":["All"],"propagationPolicy":"Foreground"}`, "propagationPolicy Foreground: dependents are not removed"},
		{"deletion as kubectl asks", http.MethodDelete, in + "/configmaps/owned", `{"dryRun":["All"],"propagationPolicy":"Background"}`, ""},
		{"deletion of all, dependents first", http.MethodDelete, in + "/configmaps", `{"dryRun":["All"],"propagationPolicy":"Foreground"}`, "propagationPolicy Foreground"},
		{"a token that is not filled in", http.MethodPost, in + "/secrets", `{"metadata":{"name":"t","annotations":{"kubernetes.io/service-account.name":"default"}},"type":"kubernetes.io/service-account-token"}`, "no token is filled in"},
		{"a bootstrap token elsewhere", http.MethodPost, in + "/secrets", `{"metadata":{"name":"b"},"type":"bootstrap.kubernetes.io/token"}`, "metadata.namespace: only secrets in kube-system are bootstrap tokens"},
		{"a bootstrap token with a wrong name", http.MethodPost, system + "?dryRun=All", `{"metadata":{"name":"b"},"type":"bootstrap.kubernetes.io/token","stringData":{"token-id":"abcdef","token-secret":"0123456789abcdef","usage-bootstrap-authentication":"true"}}`, "metadata.name: must be bootstrap-token-ID"},
		{"a bootstrap token", http.MethodPost, system + "?dryRun=All", `{"metadata":{"name":"bootstrap-token-abcdef"},"type":"bootstrap.kubernetes.io/token","stringData":{"token-id":"abcdef","token-secret":"0123456789abcdef","usage-bootstrap-authentication":"true"}}`, ""},
		{"a lease whose holder the server is to choose", http.MethodPost, "/apis/coordination.k8s.io/v1/namespaces/" + namespace + "/leases", `{"metadata":{"name":"l"},"spec":{"strategy":"OldestEmulationVersion"}}`, "spec.strategy: this server chooses no holder"},
		{"rules beside an aggregation", http.MethodPost, "/apis/rbac.authorization.k8s.io/v1/clusterroles?dryRun=All", `{"metadata":{"name":"agg"},"aggregationRule":{"clusterRoleSelectors":[{"matchLabels":{"a":"b"}}]},"rules":[{"verbs":["get"],"apiGroups":[""],"resources":["pods"]}]}`, "rules: replaced by the rules"},
		{"an aggregation", http.MethodPost, "/apis/rbac.authorization.k8s.io/v1/clusterroles?dryRun=All", `{"metadata":{"name":"agg"},"aggregationRule":{"clusterRoleSelectors":[{"matchLabels":{"a":"b"}}]},"rules":[]}`, ""},
		{"a node's external ID", http.MethodPost, "/api/v1/nodes?dryRun=All", `{"metadata":{"name":"n"},"spec":{"externalID":"x"}}`, "spec.externalID: this field is deprecated"},
		{"a node", http.MethodPost, "/api/v1/nodes?dryRun=All", `{"metadata":{"name":"n"},"spec":{"providerID":"x://1"}}`, ""},
		{"an account that limits mounts", http.MethodPost, in + "/serviceaccounts?dryRun=All", `{"metadata":{"name":"m","annotations":{"kubernetes.io/enforce-mountable-secrets":"true"}}}`, "deprecated in v1.32+"},
	} {
		got := admin.must(t, test.method, test.path, test.body)
		warnings := strings.Join(got.header.Values("Warning"), "\n")
		if test.want == "" && warnings != "" || !strings.Contains(warnings, test.want) {
			t.Errorf("%s: warnings %q, want %q", test.name, warnings, test.want)
		}
	}
}
