package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// IssuedToken is the record of a service-account token that was issued, has not expired and is not revoked. It does not contain
// the token. The authority makes the object from its records: it cannot be created or changed. Deleting it revokes the token.
//
// +k8s:deepcopy-gen:interfaces=k8s.io/apimachinery/pkg/runtime.Object
type IssuedToken struct {
	metav1.TypeMeta `json:",inline"`
	// Standard metadata. The name and the UID are the claim "jti" of the token. The namespace is that of the service account. The
	// creation timestamp is the time at which the token was issued. The labels repeat the service account, the node, the bound
	// object and the key, where their names can be the value of a label.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`
	// What the token states, and who requested it. It never changes.
	Spec IssuedTokenSpec `json:"spec"`
	// Whether the token is accepted, and its last use.
	// +optional
	Status IssuedTokenStatus `json:"status,omitempty"`
}

// IssuedTokenList is a list of issued tokens.
//
// +k8s:deepcopy-gen:interfaces=k8s.io/apimachinery/pkg/runtime.Object
type IssuedTokenList struct {
	metav1.TypeMeta `json:",inline"`
	// Standard metadata of a list.
	// +optional
	metav1.ListMeta `json:"metadata,omitempty"`
	// The issued tokens.
	Items []IssuedToken `json:"items"`
}

// IssuedTokenSpec is what a token states, and who requested it.
type IssuedTokenSpec struct {
	// The service account that the token is for.
	ServiceAccount ObjectIdentity `json:"serviceAccount"`
	// The audiences of the token: the services that may accept it.
	// +listType=atomic
	Audiences []string `json:"audiences"`
	// The Pod, Secret or Node that the token is bound to. The token is refused when that object is gone. It is missing if the
	// token is bound to the service account only.
	// +optional
	BoundObject *BoundObject `json:"boundObject,omitempty"`
	// The node of the pod that the token is bound to. For a token that is bound to a node, it is that node.
	// +optional
	Node *ObjectIdentity `json:"node,omitempty"`
	// The time from which the token is refused.
	ExpirationTimestamp metav1.Time `json:"expirationTimestamp"`
	// The ID of the key that signed the token: "kid" in the header of the token and in the key set of the issuer.
	KeyID string `json:"keyID"`
	// The request by which the token was issued.
	MintedBy Minter `json:"mintedBy"`
}

// IssuedTokenStatus is what the authority knows about a token now.
type IssuedTokenStatus struct {
	// Whether the authority accepts the token now: Active or Invalid. A watch does not report when it changes.
	// +optional
	Phase Phase `json:"phase,omitempty"`
	// The last use that the authority has seen. It is missing if there was none. The authority sees a token that it authenticates
	// itself, in a request or in a TokenReview. It does not see a token that another service verifies with the public keys.
	// Uses are stored once a minute: after a crash, the last minute of uses may be missing. A watch does not report uses.
	// +optional
	LastUsed *Use `json:"lastUsed,omitempty"`
}

// IssuedCertificate is the record of a client or serving certificate that the authority signed, that has not expired and is not
// revoked. It does not contain the certificate. The authority makes the object from its records: it cannot be created or
// changed. Deleting it revokes the certificate.
//
// +k8s:deepcopy-gen:interfaces=k8s.io/apimachinery/pkg/runtime.Object
type IssuedCertificate struct {
	metav1.TypeMeta `json:",inline"`
	// Standard metadata. The name is the SHA-256 digest of the certificate in DER, in hexadecimal digits. The creation timestamp
	// is the time at which the certificate was signed.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`
	// What the certificate states, and who requested it. It never changes.
	Spec IssuedCertificateSpec `json:"spec"`
	// Whether the certificate is accepted, and its last use.
	// +optional
	Status IssuedCertificateStatus `json:"status,omitempty"`
}

// IssuedCertificateList is a list of issued certificates.
//
// +k8s:deepcopy-gen:interfaces=k8s.io/apimachinery/pkg/runtime.Object
type IssuedCertificateList struct {
	metav1.TypeMeta `json:",inline"`
	// Standard metadata of a list.
	// +optional
	metav1.ListMeta `json:"metadata,omitempty"`
	// The issued certificates.
	Items []IssuedCertificate `json:"items"`
}

// IssuedCertificateSpec is what a certificate states, and who requested it.
type IssuedCertificateSpec struct {
	// The user that the certificate authenticates: its common name.
	Username string `json:"username"`
	// The groups of the user: the organizations of the certificate.
	// +optional
	// +listType=atomic
	Groups []string `json:"groups,omitempty"`
	// The signer that signed the certificate, such as kubernetes.io/kube-apiserver-client.
	SignerName string `json:"signerName"`
	// The name of the CertificateSigningRequest. That object may be gone.
	// +optional
	Request string `json:"request,omitempty"`
	// The time from which the certificate is refused.
	ExpirationTimestamp metav1.Time `json:"expirationTimestamp"`
	// The request by which the certificate was requested.
	MintedBy Minter `json:"mintedBy"`
}

// IssuedCertificateStatus is what the authority knows about a certificate now.
type IssuedCertificateStatus struct {
	// Whether the authority accepts the certificate now: Active or Invalid. A watch does not report when it changes.
	// +optional
	Phase Phase `json:"phase,omitempty"`
	// The last use that the authority has seen. It is missing if there was none. Uses are stored once a minute: after a crash, the
	// last minute of uses may be missing. A watch does not report uses.
	// +optional
	LastUsed *Use `json:"lastUsed,omitempty"`
}

// Phase is whether an authority accepts a credential. A credential that expired or was revoked has no object.
// +enum
type Phase string

const (
	// PhaseActive means that the authority accepts the credential.
	PhaseActive Phase = "Active"
	// PhaseInvalid means that the authority refuses the credential although it has not expired: the service account or the object
	// that it is bound to is gone, the key that signed it is no longer accepted, or its node was evicted.
	PhaseInvalid Phase = "Invalid"
)

// ObjectIdentity names an object. The namespace, if the object has one, is that of the credential.
type ObjectIdentity struct {
	// The name of the object.
	Name string `json:"name"`
	// The UID of the object. An object that was deleted and made again has another UID.
	// +optional
	UID types.UID `json:"uid,omitempty"`
}

// BoundObject names the object that a token is bound to.
type BoundObject struct {
	// The API version of the object.
	APIVersion string `json:"apiVersion"`
	// The kind of the object: Pod, Secret or Node.
	Kind string `json:"kind"`
	// The name of the object. A Pod or a Secret is in the namespace of the token.
	Name string `json:"name"`
	// The UID of the object. An object that was deleted and made again has another UID.
	// +optional
	UID types.UID `json:"uid,omitempty"`
}

// Minter describes the request by which a credential was issued.
type Minter struct {
	// The user that made the request.
	// +optional
	Username string `json:"username,omitempty"`
	// The UID of that user, if it has one.
	// +optional
	UID string `json:"uid,omitempty"`
	// The ID of the credential that authenticated the request: "JTI=" and the name of an IssuedToken, or "X509SHA256=" and the name
	// of an IssuedCertificate. It is missing if that credential has no ID. A field selector may name the object alone.
	// +optional
	CredentialID string `json:"credentialID,omitempty"`
	// The IP address that the request came from.
	// +optional
	Address string `json:"address,omitempty"`
	// The name of the program that made the request, as the program itself states it.
	// +optional
	UserAgent string `json:"userAgent,omitempty"`
}

// Use is one use of a credential.
type Use struct {
	// The time of the use.
	Time metav1.Time `json:"time"`
	// The IP address that the use came from.
	// +optional
	Address string `json:"address,omitempty"`
}
