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

// tokens describes how records of tokens are served.
func tokens() kind[ledger.TokenRecord] {
	return kind[ledger.TokenRecord]{
		resource:   identity.Resource("issuedtokens"),
		newObject:  func() runtime.Object { return &identity.IssuedToken{} },
		newList:    func() runtime.Object { return &identity.IssuedTokenList{} },
		object:     func(t *ledger.TokenRecord, phase identity.Phase) runtime.Object { return tokenObject(t, phase) },
		list:       tokenList,
		get:        (*ledger.Memory).TokenRecord,
		page:       tokenPage,
		changed:    func(e *ledger.Event) *ledger.TokenRecord { return e.Token },
		position:   func(t *ledger.TokenRecord) string { return t.Namespace + "/" + t.ID },
		id:         func(t *ledger.TokenRecord) string { return t.ID },
		namespace:  func(t *ledger.TokenRecord) string { return t.Namespace },
		revision:   func(t *ledger.TokenRecord) *uint64 { return &t.Revision },
		revocation: func(t *ledger.TokenRecord) ledger.Revocation { return ledger.Revocation{ID: t.ID, Expires: t.Expires} },
		labels:     tokenLabels, labelFields: tokenLabelFields, fields: tokenFields, index: tokenIndex,
	}
}

func tokenPage(m *ledger.Memory, q *query, after string, limit int) ([]ledger.TokenRecord, bool) {
	selected := q.tokens
	selected.After.Namespace, selected.After.ID, _ = strings.Cut(after, "/")
	selected.Limit = limit
	return m.Select(selected)
}

func tokenObject(t *ledger.TokenRecord, phase identity.Phase) *identity.IssuedToken {
	made := &identity.IssuedToken{
		ObjectMeta: metav1.ObjectMeta{
			Name: t.ID, Namespace: t.Namespace, UID: types.UID(t.ID), ResourceVersion: versionText(t.Revision),
			CreationTimestamp: metav1.NewTime(t.Issued), Labels: tokenLabels(t),
		},
		Spec: identity.IssuedTokenSpec{
			ServiceAccount: identity.ObjectIdentity{Name: t.Account, UID: types.UID(t.AccountUID)},
			Audiences:      t.Audiences, ExpirationTimestamp: metav1.NewTime(t.Expires), KeyID: t.Key, MintedBy: minterOf(t.Minter),
		},
		Status: identity.IssuedTokenStatus{Phase: phase, LastUsed: useOf(t.LastUse)},
	}
	if t.Bound != (ledger.Object{}) {
		made.Spec.BoundObject = &identity.BoundObject{APIVersion: "v1", Kind: t.Bound.Kind, Name: t.Bound.Name, UID: types.UID(t.Bound.UID)}
	}
	if node := t.OnNode(); node.Name != "" {
		made.Spec.Node = &identity.ObjectIdentity{Name: node.Name, UID: types.UID(node.UID)}
	}
	return made
}

func tokenList(objects []runtime.Object) runtime.Object {
	list := &identity.IssuedTokenList{Items: make([]identity.IssuedToken, 0, len(objects))}
	for _, object := range objects {
		list.Items = append(list.Items, *object.(*identity.IssuedToken))
	}
	return list
}

func tokenLabels(t *ledger.TokenRecord) labels.Set {
	set := labels.Set{}
	addLabel(set, identity.LabelServiceAccount, t.Account)
	addLabel(set, identity.LabelNode, t.OnNode().Name)
	addLabel(set, identity.LabelBoundKind, t.Bound.Kind)
	addLabel(set, identity.LabelBoundName, t.Bound.Name)
	addLabel(set, identity.LabelKey, t.Key)
	return set
}

var tokenLabelFields = map[string]string{
	identity.LabelServiceAccount: "spec.serviceAccount.name",
	identity.LabelNode:           "spec.node.name",
	identity.LabelBoundKind:      "spec.boundObject.kind",
	identity.LabelBoundName:      "spec.boundObject.name",
	identity.LabelKey:            "spec.keyID",
}

var tokenFields = map[string]func(*ledger.TokenRecord) []string{
	"metadata.name":              func(t *ledger.TokenRecord) []string { return one(t.ID) },
	"metadata.namespace":         func(t *ledger.TokenRecord) []string { return one(t.Namespace) },
	"spec.serviceAccount.name":   func(t *ledger.TokenRecord) []string { return one(t.Account) },
	"spec.serviceAccount.uid":    func(t *ledger.TokenRecord) []string { return one(t.AccountUID) },
	"spec.audiences":             func(t *ledger.TokenRecord) []string { return t.Audiences },
	"spec.boundObject.kind":      func(t *ledger.TokenRecord) []string { return one(t.Bound.Kind) },
	"spec.boundObject.name":      func(t *ledger.TokenRecord) []string { return one(t.Bound.Name) },
	"spec.boundObject.uid":       func(t *ledger.TokenRecord) []string { return one(t.Bound.UID) },
	"spec.node.name":             func(t *ledger.TokenRecord) []string { return one(t.OnNode().Name) },
	"spec.keyID":                 func(t *ledger.TokenRecord) []string { return one(t.Key) },
	"spec.mintedBy.username":     func(t *ledger.TokenRecord) []string { return one(t.Minter.User) },
	"spec.mintedBy.credentialID": func(t *ledger.TokenRecord) []string { return parents(t.Minter) },
}

var tokenIndex = map[string]func(*query, string){
	"metadata.name":              func(q *query, value string) { q.id = value },
	"metadata.namespace":         func(q *query, value string) { q.tokens.Namespace = value },
	"spec.serviceAccount.name":   func(q *query, value string) { q.tokens.Account = value },
	"spec.serviceAccount.uid":    func(q *query, value string) { q.tokens.AccountUID = value },
	"spec.audiences":             func(q *query, value string) { q.tokens.Audience = value },
	"spec.boundObject.kind":      func(q *query, value string) { q.tokens.Bound.Kind = value },
	"spec.boundObject.name":      func(q *query, value string) { q.tokens.Bound.Name = value },
	"spec.boundObject.uid":       func(q *query, value string) { q.tokens.Bound.UID = value },
	"spec.node.name":             func(q *query, value string) { q.tokens.Node = value },
	"spec.keyID":                 func(q *query, value string) { q.tokens.Key = value },
	"spec.mintedBy.username":     func(q *query, value string) { q.tokens.MinterUser = value },
	"spec.mintedBy.credentialID": func(q *query, value string) { q.tokens.MinterCredential = credentialID(value) },
}

// TokenFields are the fields by which IssuedTokens can be selected.
var TokenFields = selectable(tokenFields)

// TokenColumns are the columns of kubectl get issuedtokens.
var TokenColumns = []metav1.TableColumnDefinition{
	{Name: "Name", Type: "string", Format: "name", Description: "ID of the token: its claim jti."},
	{Name: "Account", Type: "string", Description: "Service account that the token is for."},
	{Name: "Phase", Type: "string", Description: "Whether the token is accepted: Active or Invalid."},
	{Name: "Bound To", Type: "string", Description: "Object that the token is bound to."},
	{Name: "Minted By", Type: "string", Description: "User that requested the token."},
	{Name: "Age", Type: "string", Description: "Time since the token was issued."},
	{Name: "Expires", Type: "string", Description: "Time until the token expires."},
	{Name: "Last Used", Type: "string", Description: "Time since the last use that this authority has seen."},
	{Name: "From", Type: "string", Priority: 1, Description: "Address that the last use came from."},
	{Name: "Audiences", Type: "string", Priority: 1, Description: "Audiences of the token."},
	{Name: "Node", Type: "string", Priority: 1, Description: "Node that the token is bound to."},
	{Name: "Key", Type: "string", Priority: 1, Description: "ID of the key that signed the token."},
}

// TokenRow returns a cell for each of TokenColumns.
func TokenRow(t *identity.IssuedToken, now time.Time) []any {
	bound, node := none, none
	if t.Spec.BoundObject != nil {
		bound = t.Spec.BoundObject.Kind + "/" + t.Spec.BoundObject.Name
	}
	if t.Spec.Node != nil {
		node = t.Spec.Node.Name
	}
	used, from := useCells(t.Status.LastUsed, now)
	return []any{
		t.Name, t.Spec.ServiceAccount.Name, string(t.Status.Phase), bound, orNone(t.Spec.MintedBy.Username),
		age(t.CreationTimestamp, now), until(t.Spec.ExpirationTimestamp, now), used, from,
		orNone(strings.Join(t.Spec.Audiences, ",")), node, orNone(t.Spec.KeyID),
	}
}
