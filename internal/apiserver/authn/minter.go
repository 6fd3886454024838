package authn

import (
	"net"
	"net/http"
	"strings"

	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"

	"lanyard.dev/internal/apiserver/issuance"
	"lanyard.dev/internal/ledger"
	"lanyard.dev/internal/token"
)

// These are the longest texts in the record of a credential. A client chooses its user agent, and an issuer of users their
// names.
const (
	maxMinterAgent = 128
	maxMinterName  = 512
)

// noteMinter puts who makes a request for a token into its context. That is the user who was authenticated, also if the request
// impersonates another: the credential is theirs. The audit log has both.
func noteMinter(r *http.Request, who user.Info) {
	info, ok := request.RequestInfoFrom(r.Context())
	if !ok || info.Verb != "create" || info.Resource != "serviceaccounts" || info.Subresource != "token" {
		return
	}
	*r = *r.WithContext(issuance.WithMinter(r.Context(), ledger.Minter{
		User: bounded(who.GetName(), maxMinterName), UID: bounded(who.GetUID(), maxMinterName),
		Credential: bounded(credentialOf(who), maxMinterName),
		Address:    addressOf(r.RemoteAddr), UserAgent: bounded(r.UserAgent(), maxMinterAgent),
	}))
}

// credentialOf returns the ID of the credential of a user, or "" if it has none.
func credentialOf(who user.Info) string {
	if ids := who.GetExtra()[token.ExtraCredentialID]; len(ids) > 0 {
		return ids[0]
	}
	return ""
}

// addressOf returns the IP address of an address with a port.
func addressOf(remote string) string {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		return ""
	}
	return host
}

// bounded returns the beginning of a text as valid UTF-8.
func bounded(text string, limit int) string {
	return strings.ToValidUTF8(text[:min(len(text), limit)], "")
}
