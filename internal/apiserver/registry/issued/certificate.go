package issued

import (
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	identity "lanyard.dev/apis/identity/v1alpha1"
	"lanyard.dev/internal/ledger"
)

// certificates describes how records of certificates are served.
func certificates() kind[ledger.CertificateRecord] {
	return kind[ledger.CertificateRecord]{
		resource:  identity.Resource("issuedcertificates"),
		newObject: func() runtime.Object { return &identity.IssuedCertificate{} },
		newList:   func() runtime.Object { return &identity.IssuedCertificateList{} },
		object: func(c *ledger.CertificateRecord, phase identity.Phase) runtime.Object {
			return certificateObject(c, phase)
		},
		list:      certificateList,
		get:       (*ledger.Memory).CertificateRecord,
		page:      certificatePage,
		changed:   func(e *ledger.Event) *ledger.CertificateRecord { return e.Certificate },
		position:  func(c *ledger.CertificateRecord) string { return c.ID },
		id:        func(c *ledger.CertificateRecord) string { return c.ID },
		namespace: func(*ledger.CertificateRecord) string { return "" },
		revision:  func(c *ledger.CertificateRecord) *uint64 { return &c.Revision },
		revocation: func(c *ledger.CertificateRecord) ledger.Revocation {
			return ledger.Revocation{ID: c.ID, Expires: c.Expires}
		},
		labels: certificateLabels, fields: certificateFields, index: certificateIndex,
	}
}

func certificatePage(m *ledger.Memory, q *query, after string, limit int) ([]ledger.CertificateRecord, bool) {
	selected := q.certificates
	selected.After, selected.Limit = after, limit
	return m.SelectCertificates(selected)
}

func certificateObject(c *ledger.CertificateRecord, phase identity.Phase) *identity.IssuedCertificate {
	return &identity.IssuedCertificate{
		ObjectMeta: metav1.ObjectMeta{
			Name: c.ID, UID: types.UID(c.ID), ResourceVersion: versionText(c.Revision),
			CreationTimestamp: metav1.NewTime(c.Issued), Labels: certificateLabels(c),
		},
		Spec: identity.IssuedCertificateSpec{
			Username: c.User, Groups: c.Groups, SignerName: c.SignerName, Request: c.Request,
			ExpirationTimestamp: metav1.NewTime(c.Expires), MintedBy: minterOf(c.Minter),
		},
		Status: identity.IssuedCertificateStatus{Phase: phase, LastUsed: useOf(c.LastUse)},
	}
}

func certificateList(objects []runtime.Object) runtime.Object {
	list := &identity.IssuedCertificateList{Items: make([]identity.IssuedCertificate, 0, len(objects))}
	for _, object := range objects {
		list.Items = append(list.Items, *object.(*identity.IssuedCertificate))
	}
	return list
}

func certificateLabels(c *ledger.CertificateRecord) labels.Set {
	set := labels.Set{}
	addLabel(set, identity.LabelSigner, strings.ReplaceAll(c.SignerName, "/", "."))
	return set
}

var certificateFields = map[string]func(*ledger.CertificateRecord) []string{
	"metadata.name":              func(c *ledger.CertificateRecord) []string { return one(c.ID) },
	"metadata.namespace":         func(*ledger.CertificateRecord) []string { return nil },
	"spec.username":              func(c *ledger.CertificateRecord) []string { return one(c.User) },
	"spec.groups":                func(c *ledger.CertificateRecord) []string { return c.Groups },
	"spec.signerName":            func(c *ledger.CertificateRecord) []string { return one(c.SignerName) },
	"spec.request":               func(c *ledger.CertificateRecord) []string { return one(c.Request) },
	"spec.mintedBy.username":     func(c *ledger.CertificateRecord) []string { return one(c.Minter.User) },
	"spec.mintedBy.credentialID": func(c *ledger.CertificateRecord) []string { return parents(c.Minter) },
}

var certificateIndex = map[string]func(*query, string){
	"metadata.name":              func(q *query, value string) { q.id = value },
	"spec.username":              func(q *query, value string) { q.certificates.User = value },
	"spec.signerName":            func(q *query, value string) { q.certificates.SignerName = value },
	"spec.mintedBy.username":     func(q *query, value string) { q.certificates.MinterUser = value },
	"spec.mintedBy.credentialID": func(q *query, value string) { q.certificates.MinterCredential = credentialID(value) },
}

// CertificateFields are the fields by which IssuedCertificates can be selected.
var CertificateFields = selectable(certificateFields)

// CertificateColumns are the columns of kubectl get issuedcertificates.
var CertificateColumns = []metav1.TableColumnDefinition{
	{Name: "Name", Type: "string", Format: "name", Description: "SHA-256 digest of the certificate."},
	{Name: "User", Type: "string", Description: "User that the certificate authenticates."},
	{Name: "Phase", Type: "string", Description: "Whether the certificate is accepted: Active or Invalid."},
	{Name: "Signer", Type: "string", Description: "Signer that signed the certificate."},
	{Name: "Age", Type: "string", Description: "Time since the certificate was signed."},
	{Name: "Expires", Type: "string", Description: "Time until the certificate expires."},
	{Name: "Last Used", Type: "string", Description: "Time since the last use that this authority has seen."},
	{Name: "From", Type: "string", Priority: 1, Description: "Address that the last use came from."},
	{Name: "Groups", Type: "string", Priority: 1, Description: "Groups of the user."},
	{Name: "Minted By", Type: "string", Priority: 1, Description: "User that requested the certificate."},
	{Name: "Request", Type: "string", Priority: 1, Description: "Name of the CertificateSigningRequest."},
}

// CertificateRow returns a cell for each of CertificateColumns.
func CertificateRow(c *identity.IssuedCertificate, now time.Time) []any {
	used, from := useCells(c.Status.LastUsed, now)
	return []any{
		c.Name, c.Spec.Username, string(c.Status.Phase), c.Spec.SignerName, age(c.CreationTimestamp, now),
		until(c.Spec.ExpirationTimestamp, now), used, from, orNone(strings.Join(c.Spec.Groups, ",")),
		orNone(c.Spec.MintedBy.Username), orNone(c.Spec.Request),
	}
}
