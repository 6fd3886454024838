package certificatesigningrequest

import (
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"

	"lanyard.dev/internal/apiserver/registry/age"
)

// Columns are those of kubectl get csr.
var Columns = []metav1.TableColumnDefinition{
	{Name: "Name", Type: "string", Format: "name", Description: "Name of the request."},
	{Name: "Age", Type: "string", Description: "Time since the request was made."},
	{Name: "SignerName", Type: "string", Description: "Who is asked to sign."},
	{Name: "Requestor", Type: "string", Description: "User who made the request."},
	{Name: "RequestedDuration", Type: "string", Description: "How long the certificate is to be valid."},
	{Name: "Condition", Type: "string", Description: "What became of the request."},
}

// Row returns a cell for each of Columns, the age as of now.
func Row(r *certificatesv1.CertificateSigningRequest, now time.Time) []any {
	requested := "<none>"
	if seconds := r.Spec.ExpirationSeconds; seconds != nil {
		requested = duration.HumanDuration(time.Duration(*seconds) * time.Second)
	}
	return []any{r.Name, age.Since(r.CreationTimestamp.Time, now), r.Spec.SignerName, r.Spec.Username, requested, condition(r)}
}

func condition(r *certificatesv1.CertificateSigningRequest) string {
	state := "Pending"
	switch {
	case has(r, certificatesv1.CertificateDenied):
		state = "Denied"
	case has(r, certificatesv1.CertificateApproved):
		state = "Approved"
	}
	if has(r, certificatesv1.CertificateFailed) {
		state += ",Failed"
	}
	if len(r.Status.Certificate) > 0 {
		state += ",Issued"
	}
	return state
}

func has(r *certificatesv1.CertificateSigningRequest, kind certificatesv1.RequestConditionType) bool {
	return len(ofType(r.Status.Conditions, kind)) > 0
}
