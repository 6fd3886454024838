package authn

import (
	"encoding/base64"
	"errors"
	"net/http"
	"strings"
	"unicode/utf8"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/streaming/pkg/httpstream/wsstream"
)

const (
	authorizationHeader = "Authorization"
	protocolHeader      = "Sec-Websocket-Protocol"
	// protocolPrefix begins the subprotocol in which a browser presents a bearer token, since it cannot set an Authorization
	// header on a WebSocket. The token follows in base64url.
	protocolPrefix = "base64url.bearer.authorization.k8s.io."
)

// These errors refuse a credential that cannot be read. They never quote it.
var (
	errAuthorization = errors.New(`the Authorization header is not of the form "Bearer TOKEN"`)
	errProtocol      = errors.New("the WebSocket subprotocol with a bearer token cannot be read")
	errUnknownToken  = errors.New("no authenticator recognizes the bearer token")
)

// bearerToken returns the bearer token of a request, or "" if there is none. The token is in the Authorization header or, if the
// request has none and is for a WebSocket, in a subprotocol. An error means that a credential is present and cannot be read: such
// a request must not be treated as one without a credential.
func bearerToken(r *http.Request) (string, error) {
	if values := r.Header[authorizationHeader]; len(values) > 0 {
		return authorizationToken(values)
	}
	if !hasTokenProtocol(r.Header) {
		return "", nil
	}
	if !wsstream.IsWebSocketRequest(r) {
		return "", errProtocol
	}
	return protocolToken(r.Header)
}

// authorizationToken parses an Authorization header as RFC 6750, section 2.1, defines it. The case of the scheme does not
// matter.
func authorizationToken(values []string) (string, error) {
	if len(values) != 1 {
		return "", errAuthorization
	}
	scheme, token, ok := strings.Cut(values[0], " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") || token == "" || strings.ContainsFunc(token, invalidInToken) {
		return "", errAuthorization
	}
	return token, nil
}

// invalidInToken reports whether a token cannot contain a character: white space, control characters, or beyond ASCII.
func invalidInToken(c rune) bool { return c <= ' ' || c >= utf8.RuneSelf-1 }

// protocolToken returns the token of a WebSocket subprotocol. A second subprotocol is required, because the server must
// select one in its response, and must not select the one with the token.
func protocolToken(h http.Header) (string, error) {
	var tokens, others int
	var token string
	for _, protocol := range protocols(h) {
		encoded, ok := strings.CutPrefix(protocol, protocolPrefix)
		if !ok {
			others++
			continue
		}
		text, err := base64.RawURLEncoding.DecodeString(encoded)
		if err != nil {
			return "", errProtocol
		}
		token = string(text)
		tokens++
	}
	if tokens != 1 || others == 0 || token == "" || strings.ContainsFunc(token, invalidInToken) {
		return "", errProtocol
	}
	return token, nil
}

// protocols returns the WebSocket subprotocols of a request.
func protocols(h http.Header) (all []string) {
	for _, line := range h[protocolHeader] {
		for protocol := range strings.SplitSeq(line, ",") {
			all = append(all, strings.TrimSpace(protocol))
		}
	}
	return all
}

func hasTokenProtocol(h http.Header) bool {
	for _, line := range h[protocolHeader] {
		if strings.Contains(line, protocolPrefix) {
			return true
		}
	}
	return false
}

// removeTokenProtocol removes a bearer token from the WebSocket subprotocols, so that neither a handler nor a node to which
// the request is forwarded receives it, whichever credential was accepted.
func removeTokenProtocol(h http.Header) {
	if !hasTokenProtocol(h) {
		return
	}
	var others []string
	for _, protocol := range protocols(h) {
		if !strings.HasPrefix(protocol, protocolPrefix) {
			others = append(others, protocol)
		}
	}
	h.Del(protocolHeader)
	if len(others) > 0 {
		h.Set(protocolHeader, strings.Join(others, ", "))
	}
}

// bearer authenticates requests by their bearer token.
type bearer struct {
	tokens      authenticator.Token
	guard       *Guard // or nil
	credentials Credentials
}

// AuthenticateRequest implements authenticator.Request.
func (b *bearer) AuthenticateRequest(r *http.Request) (*authenticator.Response, bool, error) {
	text, err := bearerToken(r)
	if err != nil || text == "" {
		return nil, false, err
	}
	if b.guard != nil && !b.guard.admits(r.RemoteAddr, text) {
		return nil, false, ErrThrottled
	}
	response, ok, err := b.tokens.AuthenticateToken(r.Context(), text)
	if err == nil && !ok {
		err = errUnknownToken
	}
	if b.guard != nil {
		b.guard.recordResult(r.RemoteAddr, text, err)
	}
	if err == nil {
		noteToken(b.credentials, response.User, addressOf(r.RemoteAddr))
	}
	return response, err == nil, err
}
