package apiserver_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"os"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	identity "lanyard.dev/apis/identity/v1alpha1"
	"lanyard.dev/internal/apiserver"
	"lanyard.dev/internal/apiserver/keyring"
	"lanyard.dev/internal/signingkey"
	"lanyard.dev/internal/signingkey/rotation"
)

// keyReplica is a replica that keeps its signing keys in etcd.
type keyReplica struct {
	*running
	keys  *keyring.Keyring
	admin *kubernetes.Clientset
}

// keepsKeys starts a replica whose keys are in etcd. change, if not nil, changes its options.
func (s *site) keepsKeys(t *testing.T, change func(*apiserver.Options)) *keyReplica {
	t.Helper()
	config := `{"apiVersion":"apiserver.config.k8s.io/v1","kind":"EncryptionConfiguration","resources":[{"resources":["secrets"],"providers":[
		{"secretbox":{"keys":[{"name":"k","secret":"` + base64.StdEncoding.EncodeToString(bytes.Repeat([]byte("k"), 32)) + `"}]}}]}]}`
	if err := os.WriteFile(s.file("encryption.yaml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	r := &keyReplica{}
	r.running = s.startBy(t, func(o *apiserver.Options) {
		o.ServiceAccounts.SigningKeyFiles, o.EncryptionProviderConfig = nil, s.file("encryption.yaml")
		if change != nil {
			change(o)
		}
	}, func(o apiserver.Options) (*apiserver.Server, error) {
		server, err := apiserver.New(o)
		if err == nil {
			r.keys = server.Keyring()
		}
		return server, err
	})
	r.admin = kubernetes.NewForConfigOrDie(r.running.admin)
	return r
}

// etcdValue returns the value of a key of etcd.
func (s *site) etcdValue(t *testing.T, key string) []byte {
	t.Helper()
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{s.etcd.Endpoint()}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	got, err := client.Get(t.Context(), key)
	if err != nil || len(got.Kvs) != 1 {
		t.Fatalf("read %s: %v, %v", key, got, err)
	}
	return got.Kvs[0].Value
}

// issue returns a new token of the account default in the namespace default.
func (r *keyReplica) issue(t *testing.T) string {
	t.Helper()
	made, err := r.admin.CoreV1().ServiceAccounts("default").CreateToken(t.Context(), "default", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return made.Status.Token
}

// signIn returns an error if the replica refuses the token.
func (r *keyReplica) signIn(t *testing.T, token string) error {
	t.Helper()
	c := rest.CopyConfig(r.anonymous)
	c.BearerToken = token
	_, err := kubernetes.NewForConfigOrDie(c).AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	return err
}

// revoke revokes the key that signs, by which a new one signs at once.
func (r *keyReplica) revoke(t *testing.T) {
	t.Helper()
	_, err := r.keys.Change(t.Context(), func(ring rotation.Ring) (rotation.Ring, error) {
		next, _, err := r.keys.Policy().Revoke(ring, r.keys.Current().Signer("").ID(), time.Now())
		return next, err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestReplicasShareKeys starts two replicas at once, and replaces their key. A token of the new key is accepted at once by both,
// and one of the old key is refused at once by the replica that revoked it, and soon by the other.
func TestReplicasShareKeys(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	first, second := s.keepsKeys(t, nil), s.keepsKeys(t, nil)
	if first.keys.Current().Signer("").ID() != second.keys.Current().Signer("").ID() {
		t.Fatal("the replicas sign with different keys")
	}
	for range 10 {
		old := second.issue(t)
		if err := first.signIn(t, old); err != nil {
			t.Fatal(err)
		}
		first.revoke(t)
		if err := first.signIn(t, old); !apierrors.IsUnauthorized(err) {
			t.Fatalf("a token of the revoked key: %v", err)
		}
		if err := second.signIn(t, first.issue(t)); err != nil {
			t.Fatalf("a token of the new key at the other replica: %v", err)
		}
		for revoked := time.Now(); second.signIn(t, old) == nil; {
			if time.Since(revoked) > 5*time.Second {
				t.Fatal("the other replica accepts a token of the revoked key")
			}
		}
	}
}

// TestStoredKeysAreEncrypted reads etcd itself, and starts again with the same keys.
func TestStoredKeysAreEncrypted(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	r := s.keepsKeys(t, nil)
	token := r.issue(t)
	stored := s.etcdValue(t, "/registry/internal.lanyard.dev/keyrings/signing-keys")
	if !bytes.HasPrefix(stored, []byte("k8s:enc:secretbox:v1:k:")) || bytes.Contains(stored, []byte("PRIVATE KEY")) || bytes.Contains(stored, []byte("signing-keys")) {
		t.Errorf("stored: %.40q", stored)
	}
	r.stop()
	<-r.done
	if err := s.keepsKeys(t, nil).signIn(t, token); err != nil {
		t.Errorf("after a restart: %v", err)
	}
}

// TestTakeOver starts an authority whose key was in a file until now.
func TestTakeOver(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	takeOver := func(o *apiserver.Options) {
		o.ServiceAccounts.Keys.TakeOverFiles = []string{s.file("sa.key"), s.file("none.key")}
	}
	r := s.keepsKeys(t, takeOver)
	key, err := signingkey.LoadPrivate(s.file("sa.key"))
	if err != nil {
		t.Fatal(err)
	}
	if signer := r.keys.Current().Signer(""); signer.ID() != key.ID() {
		t.Errorf("signs with %v, want %v", signer, key)
	}
	old := r.issue(t)
	r.revoke(t)
	r.stop()
	<-r.done
	r = s.keepsKeys(t, takeOver)
	if err := r.signIn(t, old); !apierrors.IsUnauthorized(err) {
		t.Errorf("a revoked key was taken over again: %v", err)
	}
}

// TestSigningKeysAreServed lists, publishes and revokes keys by requests. Tokens of a revoked key are refused when the answer has
// arrived, and no answer contains a private key.
func TestSigningKeysAreServed(t *testing.T) {
	t.Parallel()
	r := newSite(t).keepsKeys(t, nil)
	const path = "/apis/identity.lanyard.dev/v1alpha1/signingkeys"
	client := r.admin.RESTClient()
	list := func() *identity.SigningKeyList {
		t.Helper()
		data, err := client.Get().AbsPath(path).DoRaw(t.Context())
		if err != nil || bytes.Contains(data, []byte("PRIVATE")) {
			t.Fatalf("list: %s, %v", data, err)
		}
		found := &identity.SigningKeyList{}
		if err := json.Unmarshal(data, found); err != nil {
			t.Fatal(err)
		}
		return found
	}
	token := r.issue(t)
	first := list().Items
	if len(first) != 1 || first[0].Status.State != identity.KeySigning || *first[0].Status.LiveTokens != 1 {
		t.Fatalf("keys %+v", first)
	}
	body := []byte(`{"apiVersion":"identity.lanyard.dev/v1alpha1","kind":"SigningKey"}`)
	if data, err := client.Post().AbsPath(path).Param("dryRun", "All").Body(body).DoRaw(t.Context()); err != nil || len(list().Items) != 1 {
		t.Fatalf("dry run: %s, %v", data, err)
	}
	if data, err := client.Post().AbsPath(path).Body(body).DoRaw(t.Context()); err != nil || len(list().Items) != 2 {
		t.Fatalf("publish: %s, %v", data, err)
	}
	if _, err := client.Post().AbsPath(path).Body(body).DoRaw(t.Context()); err == nil || len(list().Items) != 2 {
		t.Errorf("publish again: %v", err)
	}
	if err := r.signIn(t, token); err != nil {
		t.Fatal(err)
	}
	if data, err := client.Delete().AbsPath(path, first[0].Name).DoRaw(t.Context()); err != nil {
		t.Fatalf("revoke: %s, %v", data, err)
	}
	if err := r.signIn(t, token); !apierrors.IsUnauthorized(err) {
		t.Errorf("a token of the revoked key: %v", err)
	}
	if err := r.signIn(t, r.issue(t)); err != nil {
		t.Errorf("a token of the new key: %v", err)
	}
	if left := list().Items; len(left) != 1 || left[0].Name == first[0].Name || left[0].Status.State != identity.KeySigning {
		t.Errorf("keys %+v", left)
	}
}
