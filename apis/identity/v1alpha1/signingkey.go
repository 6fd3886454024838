package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// SigningKey is a key of the authority that signs or verifies service-account tokens. It never contains the private part. Creating
// an object without a name publishes a new key, which signs in place of the present one as soon as every verifier can know it.
// Deleting one revokes the key: the authority refuses all its tokens from then on, and if the key signs, a new one signs at once.
//
// +k8s:deepcopy-gen:interfaces=k8s.io/apimachinery/pkg/runtime.Object
type SigningKey struct {
	metav1.TypeMeta `json:",inline"`
	// Standard metadata. The name is the ID of the key: "kid" in the header of tokens and in the key set of the issuer. The authority
	// sets it. The creation timestamp is the time at which the key was published.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`
	// What the key is for.
	// +optional
	Spec SigningKeySpec `json:"spec,omitempty"`
	// What the key does now.
	// +optional
	Status SigningKeyStatus `json:"status,omitempty"`
}

// SigningKeyList is a list of signing keys.
//
// +k8s:deepcopy-gen:interfaces=k8s.io/apimachinery/pkg/runtime.Object
type SigningKeyList struct {
	metav1.TypeMeta `json:",inline"`
	// Standard metadata of a list.
	// +optional
	metav1.ListMeta `json:"metadata,omitempty"`
	// The signing keys.
	Items []SigningKey `json:"items"`
}

// SigningKeySpec is what a key is for.
type SigningKeySpec struct {
	// The signature algorithm: ES256, ES384, ES512 or RS256. A new key without one has the algorithm of tokens whose audience needs
	// no other.
	// +optional
	Algorithm string `json:"algorithm,omitempty"`
}

// SigningKeyStatus is what a key does now.
type SigningKeyStatus struct {
	// The state of the key: Published, Signing or Verifying.
	// +optional
	State KeyState `json:"state,omitempty"`
	// The time from which the key signs, for a key that is Published. It is then known to everybody who caches the key set no longer
	// than the issuer permits.
	// +optional
	SigningFrom *metav1.Time `json:"signingFrom,omitempty"`
	// The time at which the key began to sign.
	// +optional
	SigningSince *metav1.Time `json:"signingSince,omitempty"`
	// The time at which another key began to sign in its place.
	// +optional
	VerifyingSince *metav1.Time `json:"verifyingSince,omitempty"`
	// The number of tokens of the key that have neither expired nor been revoked. It is missing if the authority does not know it.
	// +optional
	LiveTokens *int64 `json:"liveTokens,omitempty"`
}

// KeyState is a stage in the life of a key. A key that has retired or was revoked has no object.
// +enum
type KeyState string

const (
	// KeyPublished means that the key is in the key set and signs nothing yet.
	KeyPublished KeyState = "Published"
	// KeySigning means that the key signs new tokens.
	KeySigning KeyState = "Signing"
	// KeyVerifying means that the key signs no more. Its tokens are accepted, and it retires when none is left.
	KeyVerifying KeyState = "Verifying"
)
