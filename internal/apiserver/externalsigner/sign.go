package externalsigner

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	josejson "github.com/go-jose/go-jose/v4/json"
	"google.golang.org/grpc"
	externaljwtv1 "k8s.io/externaljwt/apis/v1"
	"k8s.io/klog/v2"

	"lanyard.dev/internal/apiserver/metrics"
	"lanyard.dev/internal/signingkey"
	"lanyard.dev/internal/token"
)

// segment is the encoding of bytes in a JWS. Strict refuses trailing bits that are not zero, so each segment has only one
// encoding.
var segment = base64.RawURLEncoding.Strict()

// decode decodes a segment. Package base64 skips line breaks, which a token must not have.
func decode(text string) ([]byte, error) {
	if strings.ContainsAny(text, "\r\n") {
		return nil, errors.New("line break")
	}
	return segment.DecodeString(text)
}

// Sign implements token.Signer. The signer chooses the key, so alg must be empty. The error is ErrAnswer if the answer cannot be
// used.
func (s *Signer) Sign(ctx context.Context, alg signingkey.Algorithm, payload []byte) (text, keyID string, err error) {
	if alg != "" {
		return "", "", fmt.Errorf("%w for %s: the external signer chooses the algorithm", signingkey.ErrNoKey, alg)
	}
	text, keyID, err = s.sign(ctx, segment.EncodeToString(payload))
	if err != nil {
		s.warn.Do(func() { klog.ErrorS(err, "The external signer has signed no token", "socket", s.config.Socket) })
	}
	return text, keyID, err
}

func (s *Signer) sign(ctx context.Context, claims string) (text, keyID string, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.config.CallTimeout)
	defer cancel()
	began := time.Now()
	answer, err := s.client.Sign(ctx, &externaljwtv1.SignJWTRequest{Claims: claims}, grpc.MaxCallRecvMsgSize(maxSignAnswer))
	s.config.Metrics.Called("Sign", code(err), time.Since(began))
	if err != nil {
		s.config.Metrics.Signed(code(err))
		return "", "", fmt.Errorf("%w: %w", token.ErrSignerUnavailable, describe(err))
	}
	text, keyID, err = assemble(answer, claims, s.Current())
	if errors.Is(err, errUnknownKey) { // the signer may have begun to use a new one
		if err := s.refresh(ctx); err != nil {
			return "", "", fmt.Errorf("%w: %w", token.ErrSignerUnavailable, err)
		}
		text, keyID, err = assemble(answer, claims, s.Current())
	}
	if err != nil {
		s.config.Metrics.Signed(metrics.Refused)
		return "", "", fmt.Errorf("%w: %w", ErrAnswer, err)
	}
	s.config.Metrics.Signed(code(nil))
	return text, keyID, nil
}

// Reasons why an answer is refused. None contains a part of the answer.
var (
	errHeader     = errors.New("its header is not one JSON object, in base64url, with alg, kid and the typ JWT, and nothing else")
	errAlgorithm  = errors.New("its header names an algorithm that is not supported, or not that of its key")
	errKeyID      = fmt.Errorf("its header has a key id that is empty or longer than %d bytes", maxKeyID)
	errUnknownKey = errors.New("its header names a key that the signer does not list")
	errExcluded   = errors.New("its header names a key that the signer excludes from the published keys, so that nobody else can verify the token")
	errSignature  = errors.New("its signature is not one of its key over these claims")
)

// assemble returns the token of an answer for encoded claims, and the ID of its key.
func assemble(answer *externaljwtv1.SignJWTResponse, claims string, keys *signingkey.Set) (text, keyID string, err error) {
	h, err := parseHeader(answer.GetHeader())
	if err != nil {
		return "", "", err
	}
	signature, err := decode(answer.GetSignature())
	if err != nil || len(signature) == 0 {
		return "", "", errSignature
	}
	named := keys.Find(h.KeyID)
	if len(named) == 0 {
		return "", "", errUnknownKey
	}
	signed := answer.GetHeader() + "." + claims
	reason := errAlgorithm
	for _, key := range named {
		switch {
		case !key.Published():
			return "", "", errExcluded
		case string(key.Algorithm()) != h.Algorithm:
		case key.Verify([]byte(signed), signature) != nil:
			reason = errSignature
		default:
			return signed + "." + answer.GetSignature(), h.KeyID, nil
		}
	}
	return "", "", reason
}

// header has the members of a token's header.
type header struct {
	Algorithm string `json:"alg"`
	KeyID     string `json:"kid"`
	Type      string `json:"typ"`
}

// parseHeader reads a header that has these members, each once, and no other. A header with more could make other verifiers fetch
// a key elsewhere (jku, x5u), take it from the header (jwk, x5c), or read the token in another way (crit, b64).
func parseHeader(text string) (header, error) {
	data, err := decode(text)
	if err != nil || !utf8.Valid(data) {
		return header{}, errHeader
	}
	// go-jose's JSON is case-sensitive and refuses duplicate members.
	var members map[string]josejson.RawMessage
	var h header
	if josejson.Unmarshal(data, &members) != nil || josejson.Unmarshal(data, &h) != nil || len(members) != 3 || h.Type != "JWT" || h.Algorithm == "" {
		return header{}, errHeader
	}
	if len(h.KeyID) == 0 || len(h.KeyID) > maxKeyID {
		return header{}, errKeyID
	}
	return h, nil
}
