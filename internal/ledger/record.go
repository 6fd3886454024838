package ledger

import "time"

// All strings of records are UTF-8, and all times are in whole seconds.

// Object identifies the object that a token is bound to. The zero value means that there is none.
type Object struct {
	Kind string // Pod, Secret or Node
	Name string
	UID  string
}

// Minter describes the request by which a credential was issued.
type Minter struct {
	User string
	UID  string
	// Credential is the credential ID that the request was authenticated with, such as "JTI=..." or "X509SHA256=...". It is
	// empty if the credential has no ID. The credential is the parent of the one that was issued.
	Credential string
	// Address is the IP address that the request came from, and UserAgent the name of its program as the program states it.
	Address   string
	UserAgent string
}

// Digest is the first half of the SHA-256 digest of a token. It is no credential.
type Digest [16]byte

// Token is the record of a service account's token.
type Token struct {
	// ID is the claim jti, a UUID in its canonical form.
	ID         string
	Namespace  string
	Account    string
	AccountUID string
	Audiences  []string
	// Bound is the Pod, Secret or Node that the token was requested for. Node is the node of that pod.
	Bound, Node Object
	// Issued and Expires are the claims iat and exp.
	Issued, Expires time.Time
	// Key is the kid of the key that signed the token.
	Key string
	// Digest is the digest of the token itself. The record is of no other token, even if another one has the same ID.
	Digest Digest
	Minter Minter
}

// CredentialID returns the credential ID that a request with the token is authenticated with.
func (t *Token) CredentialID() string { return tokenCredential + t.ID }

// Certificate is the record of a client or serving certificate that this authority signed.
type Certificate struct {
	// ID is the SHA-256 digest of the certificate in DER, in lower-case hexadecimal digits. The credential ID is
	// "X509SHA256=" and the digest.
	ID     string
	User   string
	Groups []string
	// SignerName is the signer of the CertificateSigningRequest, and Request its name.
	SignerName, Request string
	Issued, Expires     time.Time
	Minter              Minter
}

// CredentialID returns the credential ID that a request with the certificate is authenticated with.
func (c *Certificate) CredentialID() string { return certificateCredential + c.ID }

// The prefixes of credential IDs. They are those of Kubernetes.
const (
	tokenCredential       = "JTI="
	certificateCredential = "X509SHA256="
)

// Revocation ends one credential before it expires.
type Revocation struct {
	// ID is the ID of a token or certificate.
	ID string
	// Expires is when the credential would have expired. The revocation is not needed after that time.
	Expires time.Time
}

// Use is the last known use of a credential.
type Use struct {
	ID      string
	At      time.Time
	Address string
}

// Batch is what one commit adds to the ledger.
type Batch struct {
	Tokens       []Token
	Certificates []Certificate
	Revocations  []Revocation
	Uses         []Use
}

// Expires returns the time after which nothing in the batch is needed.
func (b *Batch) Expires() time.Time {
	var last time.Time
	for i := range b.Tokens {
		last = later(last, b.Tokens[i].Expires)
	}
	for i := range b.Certificates {
		last = later(last, b.Certificates[i].Expires)
	}
	for i := range b.Revocations {
		last = later(last, b.Revocations[i].Expires)
	}
	return last
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
