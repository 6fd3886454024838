package certificatesigningrequest

import (
	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/apimachinery/pkg/fields"
)

// Fields returns what a field selector may ask of r.
func Fields(r *certificatesv1.CertificateSigningRequest) fields.Set {
	return fields.Set{"metadata.name": r.Name, "spec.signerName": r.Spec.SignerName}
}
