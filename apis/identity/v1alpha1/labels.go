package v1alpha1

// The labels of an IssuedToken. A label is missing if its value is longer than 63 characters or has other characters than a label
// may have. The field selectors have no such limit, so use them where no object may be missed.
const (
	// LabelServiceAccount is the label with the name of the service account.
	LabelServiceAccount = GroupName + "/service-account"
	// LabelNode is the label with the name of the node that the token is bound to, directly or by its pod.
	LabelNode = GroupName + "/node"
	// LabelBoundKind is the label with the kind of the object that the token is bound to.
	LabelBoundKind = GroupName + "/bound-kind"
	// LabelBoundName is the label with the name of the object that the token is bound to.
	LabelBoundName = GroupName + "/bound-name"
	// LabelKey is the label with the ID of the key that signed the token.
	LabelKey = GroupName + "/key"
)

// LabelSigner is the label of an IssuedCertificate with the name of its signer, in which "/" is replaced by ".".
const LabelSigner = GroupName + "/signer"
