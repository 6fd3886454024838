package admission

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"lanyard.dev/internal/apiserver/authz"
	"lanyard.dev/internal/apiserver/outage"
	"lanyard.dev/internal/nodeaccess"
	"lanyard.dev/internal/pki"
	"lanyard.dev/internal/rbac"
)

const client = certificatesv1.KubeAPIServerClientSignerName

// certificatePolicy allows the user approver to approve and the user signer to sign for one signer. The user domain may
// do both for every signer of kubernetes.io, and the user all for every signer. The user updater may update the
// subresources, which is not a permission for a signer.
func certificatePolicy() *rbac.Index {
	x := rbac.NewIndex()
	bind := func(name string, verbs []string, resource string, names ...string) {
		x.SetClusterRole(&rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: []rbacv1.PolicyRule{
			{Verbs: verbs, APIGroups: []string{certificatesv1.GroupName}, Resources: []string{resource}, ResourceNames: names},
		}})
		x.SetClusterRoleBinding(&rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: name}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name},
			Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: name}},
		})
	}
	bind("approver", []string{"approve"}, "signers", client)
	bind("signer", []string{"sign"}, "signers", client)
	bind("domain", []string{"approve", "sign"}, "signers", "kubernetes.io/*")
	bind("all", []string{"approve", "sign"}, "signers")
	bind("updater", []string{"update", "patch"}, "certificatesigningrequests/*")
	return x
}

func requestOf(t *testing.T, signerName string, groups ...string) *certificatesv1.CertificateSigningRequest {
	t.Helper()
	_, data, err := pki.NewRequest("jane", groups)
	if err != nil {
		t.Fatal(err)
	}
	return &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{Name: "r"},
		Spec:       certificatesv1.CertificateSigningRequestSpec{Request: data, SignerName: signerName},
	}
}

func TestCertificateDecisions(t *testing.T) {
	t.Parallel()
	const mayNotApprove, mayNotSign = "user not permitted to approve requests with signerName", "user not permitted to sign requests with signerName"
	approve := func(r *certificatesv1.CertificateSigningRequest) {
		r.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{Type: certificatesv1.CertificateApproved}}
	}
	issue := func(r *certificatesv1.CertificateSigningRequest) { r.Status.Certificate = []byte("x") }
	pretend := func(r *certificatesv1.CertificateSigningRequest) { approve(r); r.Spec.SignerName = client }
	label := func(r *certificatesv1.CertificateSigningRequest) { r.Labels = map[string]string{"a": "b"} }
	for _, c := range []struct {
		name, who, signer, subresource string
		change                         func(*certificatesv1.CertificateSigningRequest)
		want                           string
	}{
		{"approve one's signer", "approver", client, "approval", approve, ""},
		{"approve another's", "approver", "kubernetes.io/kubelet-serving", "approval", approve, mayNotApprove},
		{"approve another's in the name of one's own", "approver", "example.com/other", "approval", pretend, mayNotApprove},
		{"approve by domain", "domain", client, "approval", approve, ""},
		{"approve another domain", "domain", "example.com/other", "approval", approve, mayNotApprove},
		{"approve a domain that only begins so", "domain", "kubernetes.io.example.com/other", "approval", approve, mayNotApprove},
		{"approve anything", "all", "example.com/other", "approval", approve, ""},
		{"to sign is not to approve", "signer", client, "approval", approve, mayNotApprove},
		{"to update is not to approve", "updater", client, "approval", approve, mayNotApprove},
		{"sign", "signer", client, "status", issue, ""},
		{"sign by domain", "domain", client, "status", issue, ""},
		{"to approve is not to sign", "approver", client, "status", issue, mayNotSign},
		{"to update is not to sign", "updater", client, "status", issue, mayNotSign},
		{"fail without right", "updater", client, "status", approve, mayNotSign},
		{"status that stays", "updater", client, "status", label, ""},
		{"metadata", "updater", client, "", label, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			old := requestOf(t, c.signer)
			updated := old.DeepCopy()
			c.change(updated)
			checkRefusal(t, validateRequest(t, c.who, updated, old, c.subresource, admission.Update), c.want)
		})
	}
}

func TestCertificateSubjects(t *testing.T) {
	t.Parallel()
	const refusal = "use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed"
	for _, c := range []struct {
		name, signer string
		groups       []string
		want         string
	}{
		{"no group", client, nil, ""},
		{"a group", client, []string{"dev"}, ""},
		{"masters", client, []string{"system:masters"}, refusal},
		{"masters among others", client, []string{"dev", "system:masters", "ops"}, refusal},
		{"masters for another signer", "example.com/own", []string{"system:masters"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			checkRefusal(t, validateRequest(t, "all", requestOf(t, c.signer, c.groups...), nil, "", admission.Create), c.want)
		})
	}
	junk := requestOf(t, client)
	junk.Spec.Request = []byte("junk")
	checkRefusal(t, validateRequest(t, "all", junk, nil, "", admission.Create), "unable to parse csr: PEM block type must be CERTIFICATE REQUEST")
}

func TestCertificateDecisionWithoutUser(t *testing.T) {
	t.Parallel()
	r := requestOf(t, client)
	a := admission.NewAttributesRecord(r, r, schema.GroupVersionKind{}, "", "r", certificatesv1.SchemeGroupVersion.WithResource("certificatesigningrequests"),
		"approval", admission.Update, nil, false, nil)
	if err := newCertificates(authz.New(certificatePolicy()), admits).Validate(t.Context(), a, nil); !apierrors.IsForbidden(err) {
		t.Errorf("got %v, want forbidden", err)
	}
}

// TestUndecidedCertificates uses an authorizer and evictions that cannot decide now.
func TestUndecidedCertificates(t *testing.T) {
	t.Parallel()
	r, undecided, behind := requestOf(t, client), outage.New(errors.New("stale")), errors.New("behind")
	unsure := authorizer.AuthorizerFunc(func(context.Context, authorizer.Attributes) (authorizer.Decision, string, error) {
		return authorizer.DecisionNoOpinion, "", undecided
	})
	a := admission.NewAttributesRecord(r, r, schema.GroupVersionKind{}, "", "r", certificatesv1.SchemeGroupVersion.WithResource("certificatesigningrequests"),
		"approval", admission.Update, nil, false, &user.DefaultInfo{Name: "approver"})
	if err := newCertificates(unsure, admits).Validate(t.Context(), a, nil); !errors.Is(err, undecided) || apierrors.IsForbidden(err) {
		t.Errorf("the right to approve: %v, want %v", err, undecided)
	}
	unknown := func(string, []string, []string) error { return behind }
	if err := newCertificates(authz.New(certificatePolicy()), unknown).Validate(t.Context(), a, nil); outage.Of(err) == nil || !errors.Is(err, behind) {
		t.Errorf("evictions: %v, want an outage", err)
	}
}

func validateRequest(t *testing.T, who string, obj, old *certificatesv1.CertificateSigningRequest, subresource string, operation admission.Operation) error {
	t.Helper()
	var stored runtime.Object
	if old != nil {
		stored = old
	}
	a := admission.NewAttributesRecord(obj, stored, schema.GroupVersionKind{}, "", obj.Name, certificatesv1.SchemeGroupVersion.WithResource("certificatesigningrequests"),
		subresource, operation, nil, false, &user.DefaultInfo{Name: who})
	return newCertificates(authz.New(certificatePolicy()), admits).Validate(t.Context(), a, nil)
}

// admits refuses certificates of the node "thief" from before noon, when it was evicted.
func admits(user string, groups, notBefore []string) error {
	e := nodeaccess.NewEvictions(fresh{})
	s := nodeaccess.NewEviction("thief")
	s.Name, s.CreationTimestamp = "e", metav1.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	e.Set(s)
	return e.AdmitsUser(user, groups, notBefore)
}

type fresh struct{}

func (fresh) Fresh() error { return nil }

// TestCertificatesOfEvictedNodes checks that no user can approve or sign a request that a node made with a certificate from
// before its eviction, and that such a request can be denied.
func TestCertificatesOfEvictedNodes(t *testing.T) {
	t.Parallel()
	set := func(kind certificatesv1.RequestConditionType) func(*certificatesv1.CertificateSigningRequest) {
		return func(r *certificatesv1.CertificateSigningRequest) {
			r.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{Type: kind}}
		}
	}
	sign := func(r *certificatesv1.CertificateSigningRequest) { r.Status.Certificate = []byte("x") }
	const old, current, refusal = "2026-06-01T11:00:00Z", "2026-06-01T12:00:01Z", "the requester: the node was evicted"
	for _, c := range []struct {
		name, notBefore, subresource string
		change                       func(*certificatesv1.CertificateSigningRequest)
		want                         string
	}{
		{"approve", old, "approval", set(certificatesv1.CertificateApproved), refusal},
		{"sign", old, "status", sign, refusal},
		{"deny", old, "approval", set(certificatesv1.CertificateDenied), ""},
		{"fail", old, "status", set(certificatesv1.CertificateFailed), ""},
		{"fail and sign", old, "status", func(r *certificatesv1.CertificateSigningRequest) {
			set(certificatesv1.CertificateFailed)(r)
			sign(r)
		}, refusal},
		{"approve a later one", current, "approval", set(certificatesv1.CertificateApproved), ""},
		{"sign a later one", current, "status", sign, ""},
	} {
		stored := requestOf(t, client)
		stored.Spec.Username, stored.Spec.Groups = "system:node:thief", []string{"system:nodes"}
		stored.Spec.Extra = map[string]certificatesv1.ExtraValue{nodeaccess.ExtraNotBefore: {c.notBefore}}
		updated := stored.DeepCopy()
		updated.Spec = certificatesv1.CertificateSigningRequestSpec{SignerName: client} // the stored signer is used
		c.change(updated)
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			checkRefusal(t, validateRequest(t, "all", updated, stored, c.subresource, admission.Update), c.want)
		})
	}
}

func checkRefusal(t *testing.T, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("refused: %v", err)
	case want != "" && (!apierrors.IsForbidden(err) || !strings.Contains(err.Error(), want)):
		t.Errorf("got %v, want %q", err, want)
	}
}
