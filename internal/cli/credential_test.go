package cli

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"

	identity "lanyard.dev/apis/identity/v1alpha1"
)

// issuingServer serves records, and notes deletions. It knows the fields that the tests select by.
type issuingServer struct {
	*httptest.Server
	mu           sync.Mutex
	tokens       []identity.IssuedToken
	certificates []identity.IssuedCertificate
	deleted      []string // as in "shop/ID reason"
	onDelete     func()   // called with the lock held
	refused      string   // an ID whose deletion is forbidden
	noCluster    bool     // whether lists of all namespaces are forbidden
}

const (
	leaked = "11111111-1111-4111-8111-111111111111"
	child  = "22222222-2222-4222-8222-222222222222"
	other  = "33333333-3333-4333-8333-333333333333"
)

var nodeCertificate = strings.Repeat("ab", 32)

// newIssuingServer has the token leaked of shop/web, which was used an hour ago, the token child that was requested with it, the token
// other of shop/web that was never used, and a certificate of a node that was requested with child.
func newIssuingServer(t *testing.T) *issuingServer {
	t.Helper()
	now := time.Now()
	token := func(id, namespace, account string, issued time.Duration, parent string) identity.IssuedToken {
		return identity.IssuedToken{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: id, UID: types.UID(id), CreationTimestamp: metav1.NewTime(now.Add(-issued))},
			Spec: identity.IssuedTokenSpec{
				ServiceAccount: identity.ObjectIdentity{Name: account, UID: "account-uid"}, Audiences: []string{"api"},
				ExpirationTimestamp: metav1.NewTime(now.Add(time.Hour)), KeyID: "k1",
				MintedBy: identity.Minter{Username: "system:serviceaccount:ci:runner", CredentialID: parent, Address: "192.0.2.1"},
			},
			Status: identity.IssuedTokenStatus{Phase: identity.PhaseActive},
		}
	}
	s := &issuingServer{}
	s.tokens = []identity.IssuedToken{
		token(leaked, "shop", "web", 3*time.Hour, ""), token(child, "other", "worker", 2*time.Hour, "JTI="+leaked), token(other, "shop", "web", time.Hour, ""),
	}
	s.tokens[0].Spec.BoundObject = &identity.BoundObject{APIVersion: "v1", Kind: "Pod", Name: "web-1"}
	s.tokens[0].Status.LastUsed = &identity.Use{Time: metav1.NewTime(now.Add(-time.Hour)), Address: "192.0.2.9"}
	s.certificates = []identity.IssuedCertificate{{
		ObjectMeta: metav1.ObjectMeta{Name: nodeCertificate, UID: types.UID(nodeCertificate), CreationTimestamp: metav1.NewTime(now)},
		Spec: identity.IssuedCertificateSpec{
			Username: "system:node:n1", SignerName: "kubernetes.io/kube-apiserver-client-kubelet", ExpirationTimestamp: metav1.NewTime(now.Add(time.Hour)),
			MintedBy: identity.Minter{CredentialID: "JTI=" + child},
		},
	}}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

// run runs a command against the server.
func (s *issuingServer) run(t *testing.T, stdin string, args ...string) result {
	t.Helper()
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	putFile(t, kubeconfig, fmt.Sprintf(`{"clusters":[{"name":"x","cluster":{"server":%q}}],"contexts":[{"name":"x","context":{"cluster":"x","namespace":"shop"}}],"current-context":"x"}`, s.URL))
	return run(stdin, append(args, "--kubeconfig", kubeconfig)...)
}

func (s *issuingServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	path := strings.Split(strings.TrimPrefix(r.URL.Path, "/apis/identity.lanyard.dev/v1alpha1/"), "/")
	namespace := ""
	if path[0] == "namespaces" {
		namespace, path = path[1], path[2:]
	}
	selector, err := fields.ParseSelector(r.URL.Query().Get("fieldSelector"))
	switch {
	case err != nil:
		answerStatus(w, http.StatusBadRequest)
	case r.Method == http.MethodDelete:
		s.serveDelete(w, r, namespace, path[1])
	case namespace == "" && path[0] == "issuedtokens" && s.noCluster:
		answerStatus(w, http.StatusForbidden)
	case path[0] == "issuedtokens":
		list := identity.IssuedTokenList{TypeMeta: typeOf("IssuedTokenList")}
		for _, token := range s.tokens {
			values := fields.Set{
				"metadata.name": token.Name, "spec.serviceAccount.name": token.Spec.ServiceAccount.Name, "spec.keyID": token.Spec.KeyID,
				"spec.mintedBy.credentialID": token.Spec.MintedBy.CredentialID, "spec.mintedBy.username": token.Spec.MintedBy.Username,
			}
			if bound := token.Spec.BoundObject; bound != nil {
				values["spec.boundObject.kind"], values["spec.boundObject.name"] = bound.Kind, bound.Name
			}
			if (namespace == "" || namespace == token.Namespace) && selector.Matches(values) {
				list.Items = append(list.Items, token)
			}
		}
		answer(w, list)
	default:
		list := identity.IssuedCertificateList{TypeMeta: typeOf("IssuedCertificateList")}
		for _, c := range s.certificates {
			if selector.Matches(fields.Set{"metadata.name": c.Name, "spec.username": c.Spec.Username, "spec.mintedBy.credentialID": c.Spec.MintedBy.CredentialID}) {
				list.Items = append(list.Items, c)
			}
		}
		answer(w, list)
	}
}

func (s *issuingServer) serveDelete(w http.ResponseWriter, r *http.Request, namespace, name string) {
	var options metav1.DeleteOptions
	if json.NewDecoder(r.Body).Decode(&options) != nil || options.Preconditions == nil || string(*options.Preconditions.UID) != name {
		answerStatus(w, http.StatusBadRequest)
		return
	}
	if name == s.refused {
		answerStatus(w, http.StatusForbidden)
		return
	}
	if len(options.DryRun) > 0 {
		answerStatus(w, http.StatusOK)
		return
	}
	before := len(s.tokens) + len(s.certificates)
	s.tokens = slices.DeleteFunc(s.tokens, func(token identity.IssuedToken) bool { return token.Name == name && token.Namespace == namespace })
	s.certificates = slices.DeleteFunc(s.certificates, func(c identity.IssuedCertificate) bool { return c.Name == name && namespace == "" })
	if before == len(s.tokens)+len(s.certificates) {
		answerStatus(w, http.StatusNotFound)
		return
	}
	s.deleted = append(s.deleted, strings.TrimSpace(name[:2]+" "+r.URL.Query().Get("reason")))
	if s.onDelete != nil {
		s.onDelete()
		s.onDelete = nil
	}
	answerStatus(w, http.StatusOK)
}

func typeOf(kind string) metav1.TypeMeta {
	return metav1.TypeMeta{APIVersion: "identity.lanyard.dev/v1alpha1", Kind: kind}
}

func answerStatus(w http.ResponseWriter, code int) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	reasons := map[int]metav1.StatusReason{http.StatusForbidden: metav1.StatusReasonForbidden, http.StatusNotFound: metav1.StatusReasonNotFound}
	_ = json.NewEncoder(w).Encode(metav1.Status{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Code: int32(code), Reason: reasons[code], Message: http.StatusText(code),
	})
}

func answer(w http.ResponseWriter, list any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(list)
}

// wholeToken returns a token with the claims of a record. Its signature is "secret".
func (s *issuingServer) wholeToken(id string) string {
	i := slices.IndexFunc(s.tokens, func(token identity.IssuedToken) bool { return token.Name == id })
	token := &s.tokens[i]
	claims := map[string]any{
		"iss": "https://x", "jti": id, "iat": token.CreationTimestamp.Unix(), "exp": token.Spec.ExpirationTimestamp.Unix(),
		"kubernetes.io": map[string]any{
			"namespace":      token.Namespace,
			"serviceaccount": map[string]any{"name": token.Spec.ServiceAccount.Name, "uid": token.Spec.ServiceAccount.UID},
		},
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		panic(err)
	}
	encode := base64.RawURLEncoding.EncodeToString
	return encode([]byte(`{"alg":"ES256"}`)) + "." + encode(payload) + "." + encode([]byte("secret"))
}

// shortNames returns the beginnings of the IDs in -o name output.
func shortNames(out string) string {
	var all []string
	for line := range strings.Lines(out) {
		_, name, _ := strings.Cut(strings.TrimSpace(line), "/")
		all = append(all, name[:2])
	}
	return strings.Join(all, " ")
}

// TestTokenListSelects lists with each flag. The names are the first two characters of the IDs.
func TestTokenListSelects(t *testing.T) {
	t.Parallel()
	s := newIssuingServer(t)
	for _, test := range []struct{ args, want string }{
		{"", "11 33"},
		{"-A", "22 11 33"},
		{"-n other", "22"},
		{"--account web", "11 33"},
		{"--account other/worker", "22"},
		{"--bound pod/web-1", "11"},
		{"--minter sa:ci/runner -A", "22 11 33"},
		{"--minter jane", ""},
		{"--key k2", ""},
		{"--unused-for 90m -A", "22"},
		{"--unused-for 30m", "11 33"},
		{"--issued-before 90m", "11"},
		{"--issued-before 2020-01-01T00:00:00Z", ""},
		{leaked, "11"},
		{child, "22"},
		{"JTI=" + child + " " + other, "22 33"},
		{leaked + " --with-children", "11 22 ab"},
	} {
		got := s.run(t, "", append([]string{"token", "list", "-o", "name"}, strings.Fields(test.args)...)...)
		if got.code != 0 || shortNames(got.out) != test.want {
			t.Errorf("%s: %q, want %s; %+v", test.args, shortNames(got.out), test.want, got)
		}
	}
	s.noCluster = true
	if got := s.run(t, "", "token", "list", "-o", "name", leaked); got.code != 0 || shortNames(got.out) != "11" {
		t.Errorf("by a caller with rights in one namespace: %+v", got)
	}
}

func TestCertificateListSelects(t *testing.T) {
	t.Parallel()
	s := newIssuingServer(t)
	for _, test := range []struct{ args, want string }{
		{"", "ab"}, {"--node n1", "ab"}, {"--node n2", ""}, {"--user system:node:n1", "ab"}, {"X509SHA256=" + nodeCertificate, "ab"},
	} {
		got := s.run(t, "", append([]string{"certificate", "list", "-o", "name"}, strings.Fields(test.args)...)...)
		if got.code != 0 || shortNames(got.out) != test.want {
			t.Errorf("%s: %q, want %s; %+v", test.args, shortNames(got.out), test.want, got)
		}
	}
}

func TestTokenListFormats(t *testing.T) {
	t.Parallel()
	s := newIssuingServer(t)
	table := s.run(t, "", "token", "list", "-o", "wide", leaked, "--with-children")
	text := strings.Join(strings.Fields(table.out), " ")
	for _, want := range []string{
		"ID ACCOUNT BOUND TO MINTED BY ISSUED EXPIRES LAST USED FROM PHASE AUDIENCES NODE KEY MINTED WITH MINTED FROM",
		leaked + " shop/web pod/web-1 sa:ci/runner 3h ago in 59m 60m ago 192.0.2.9 Active api - k1 - 192.0.2.1",
		child + " other/worker - sa:ci/runner 120m ago in 59m never - Active api - k1 JTI=" + leaked + " 192.0.2.1",
		"ID USER SIGNER MINTED BY ISSUED EXPIRES LAST USED FROM PHASE GROUPS REQUEST MINTED WITH MINTED FROM",
		nodeCertificate + " system:node:n1 kubernetes.io/kube-apiserver-client-kubelet - 0s ago in 59m never - - - - JTI=" + child + " -",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the table lacks %q:\n%s", want, table.out)
		}
	}
	var list struct {
		Kind  string
		Items []struct {
			APIVersion, Kind string
			Metadata         metav1.ObjectMeta
		}
	}
	got := s.run(t, "", "token", "list", "-o", "json", leaked)
	if err := json.Unmarshal([]byte(got.out), &list); err != nil || list.Kind != "List" || len(list.Items) != 1 || list.Items[0].Metadata.Name != leaked ||
		list.Items[0].Kind != "IssuedToken" || list.Items[0].APIVersion != "identity.lanyard.dev/v1alpha1" {
		t.Errorf("%v: %+v", err, got)
	}
}

// TestTokenRevoke revokes with each way to select, and compares what the server was asked to delete.
func TestTokenRevoke(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		args    []string
		deleted []string
		out     string
	}{
		{[]string{leaked, "--yes"}, []string{"11"}, "1 token revoked\n"},
		{[]string{"--account", "shop/web", "--yes", "--reason", "jane left"}, []string{"11 jane left", "33 jane left"}, "2 tokens revoked\n"},
		{[]string{leaked, "--with-children", "--yes"}, []string{"11", "22", "ab"}, "2 tokens and 1 certificate revoked\n"},
		{[]string{leaked, "--with-children", "--dry-run"}, nil, "2 tokens and 1 certificate would be revoked (dry run)\n"},
		{[]string{"--minter", "nobody", "--yes"}, nil, ""},
	} {
		s := newIssuingServer(t)
		got := s.run(t, "", append([]string{"token", "revoke"}, test.args...)...)
		slices.Sort(s.deleted)
		if got.code != 0 || got.out != test.out || !slices.Equal(s.deleted, test.deleted) {
			t.Errorf("%q: deleted %q, want %q; %+v", test.args, s.deleted, test.deleted, got)
		}
		if len(test.deleted) > 0 && strings.Contains(test.args[0], "-1111-") && !strings.Contains(got.errOut, leaked) {
			t.Errorf("%q does not show what ends: %+v", test.args, got)
		}
	}
}

// TestLateChildren issues a token with one that is about to be revoked, after the command has listed what to revoke.
func TestLateChildren(t *testing.T) {
	t.Parallel()
	s := newIssuingServer(t)
	s.onDelete = func() {
		late := *s.tokens[0].DeepCopy()
		late.Name, late.UID, late.Spec.MintedBy.CredentialID = strings.ReplaceAll(leaked, "1", "9"), types.UID(strings.ReplaceAll(leaked, "1", "9")), "JTI="+leaked
		s.tokens = append(s.tokens, late)
	}
	got := s.run(t, "", "token", "revoke", leaked, "--with-children", "--yes")
	if got.code != 0 || got.out != "3 tokens and 1 certificate revoked\n" || !slices.Contains(s.deleted, "99") {
		t.Errorf("deleted %q; %+v", s.deleted, got)
	}
}

// TestRevokeWholeToken gives a whole token on standard input. It is never printed.
func TestRevokeWholeToken(t *testing.T) {
	t.Parallel()
	s := newIssuingServer(t)
	whole := s.wholeToken(child)
	secret := whole[strings.LastIndex(whole, ".")+1:]
	who := s.run(t, whole+"\n", "token", "list", "-")
	if who.code != 0 || !strings.Contains(who.out, "other/worker") || strings.Contains(who.out+who.errOut, secret) {
		t.Errorf("list: %+v", who)
	}
	if asked := s.run(t, whole, "token", "revoke", "-"); asked.code != exitUsage || !strings.Contains(asked.errOut, "--yes") || len(s.deleted) > 0 {
		t.Errorf("without --yes: %+v", asked)
	}
	forged := s.wholeToken(other)
	s.tokens[2].Spec.ServiceAccount.UID = "another"
	if got := s.run(t, forged, "token", "revoke", "--yes", "-"); got.code != exitFailure || !strings.Contains(got.errOut, "is forged") || len(s.deleted) > 0 {
		t.Errorf("a forged token: %+v", got)
	}
	if got := s.run(t, whole, "token", "revoke", "--yes", "-"); got.code != 0 || !slices.Equal(s.deleted, []string{"22"}) || strings.Contains(got.out+got.errOut, secret) {
		t.Errorf("deleted %q, %+v", s.deleted, got)
	}
	if got := s.run(t, whole, "token", "revoke", "--yes", "-"); got.code != exitFailure || !strings.Contains(got.errOut, "there is no record of token "+child) {
		t.Errorf("again: %+v", got)
	}
}

// TestRevokeGoesOn checks that one failure does not keep the others from being revoked.
func TestRevokeGoesOn(t *testing.T) {
	t.Parallel()
	s := newIssuingServer(t)
	s.refused = leaked
	got := s.run(t, "", "token", "revoke", "--account", "web", "--yes")
	if got.code != exitFailure || !slices.Equal(s.deleted, []string{"33"}) || !strings.Contains(got.errOut, "1 revoked, the others not") {
		t.Errorf("deleted %q, %+v", s.deleted, got)
	}
}

func TestCredentialUsage(t *testing.T) {
	t.Parallel()
	s := newIssuingServer(t)
	for command, want := range map[string]string{
		"token revoke":                           "say which tokens to revoke",
		"token revoke -n shop":                   "say which tokens to revoke",
		"certificate revoke":                     "say which certificates to revoke",
		"token list -n a -A":                     "exclude each other",
		"token list --account x/y/z":             "--account",
		"token list -n a --account b/c":          "not in the namespace a",
		"token list --bound web-1":               "write pod/NAME",
		"token list --issued-before yesterday":   "--issued-before",
		"token list --unused-for -1h":            "must not be negative",
		"token list my-secret":                   "neither the ID of a token nor a token",
		"certificate list my-secret":             "neither the ID of a certificate nor a certificate",
		"token list - -":                         "given twice",
		"token list -o csv":                      "--output must be",
		"token revoke " + leaked + " --reason x": "",
	} {
		got := s.run(t, leaked, strings.Fields(command)...)
		if got.code != exitUsage || !strings.Contains(got.errOut, want) || strings.Contains(got.errOut, "my-secret") {
			t.Errorf("%s: %+v", command, got)
		}
	}
	long := s.run(t, "", "token", "revoke", leaked, "--reason", strings.Repeat("x", 1025))
	if long.code != exitUsage || len(s.deleted) > 0 {
		t.Errorf("a long reason: %+v", long)
	}
}

// TestTokenWithAControlCode reads a token whose ID would clear the terminal. Anybody can write one into a log.
func TestTokenWithAControlCode(t *testing.T) {
	t.Parallel()
	encode := base64.RawURLEncoding.EncodeToString
	text := encode([]byte(`{"alg":"ES256"}`)) + "." + encode([]byte(`{"iss":"https://x","jti":"\u001b[2J","kubernetes.io":{"namespace":"shop","serviceaccount":{}}}`)) + ".AA"
	got := newIssuingServer(t).run(t, text, "token", "list", "-")
	if got.code != exitUsage || strings.Contains(got.errOut, "\x1b") || !strings.Contains(got.errOut, "none has issued it") {
		t.Errorf("%+v", got)
	}
}

// TestAnotherServer connects to a server that does not serve the API.
func TestAnotherServer(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { answerStatus(w, http.StatusNotFound) }))
	defer server.Close()
	s := &issuingServer{Server: server}
	if got := s.run(t, "", "token", "list"); got.code != exitFailure || !strings.Contains(got.errOut, "keeps no record of the credentials") {
		t.Errorf("%+v", got)
	}
}

// TestManyParents checks that the children of many credentials are found by one list.
func TestManyParents(t *testing.T) {
	t.Parallel()
	s := newIssuingServer(t)
	for i := range manyParents + 5 {
		parent := *s.tokens[2].DeepCopy()
		parent.Name = fmt.Sprintf("44444444-4444-4444-8444-%012d", i)
		s.tokens = append(s.tokens, parent)
	}
	got := s.run(t, "", "token", "list", "-o", "name", "--with-children")
	counts := map[string]int{}
	for _, name := range strings.Fields(shortNames(got.out)) {
		counts[name]++
	}
	if want := map[string]int{"11": 1, "22": 1, "33": 1, "44": manyParents + 5, "ab": 1}; got.code != 0 || !maps.Equal(counts, want) {
		t.Errorf("%v, want %v: %+v", counts, want, got.errOut)
	}
}
