package issuance

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"

	"lanyard.dev/internal/ledger"
	"lanyard.dev/internal/pki"
	"lanyard.dev/internal/token"
)

var _ token.Ledger = &Journal{}

// Check implements token.Ledger.
func (j *Journal) Check(ctx context.Context, id string, sum *[sha256.Size]byte) error {
	digest := ledger.Digest(sum[:])
	state, err := j.state(id, &digest)
	if err == nil && state == ledger.Unknown && !j.AcceptUnrecorded {
		// Another replica may have issued the token a moment ago.
		if err = j.Feed.CatchUp(ctx); err == nil {
			state = j.Memory.TokenState(id, &digest)
		}
	}
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", token.ErrLedgerStale, err)
	case state == ledger.Revoked:
		return token.ErrRevoked
	case state == ledger.Unknown && !j.AcceptUnrecorded:
		return token.ErrUnrecorded
	}
	return nil
}

// ErrRevoked means that a certificate was revoked.
var ErrRevoked = errors.New("the certificate was revoked")

// CheckCertificate returns ErrRevoked if the certificate with an ID was revoked, and another error if that is not known now. A
// certificate without a record is accepted, since another CA may have signed it. Only a certificate with a record can be revoked. So
// if the memory may lack the latest batches, a certificate that has no record in it is accepted if it was signed before. A changed
// copy of a certificate with a record is refused: it would be accepted after the certificate was revoked.
func (j *Journal) CheckCertificate(id string, c *x509.Certificate) error {
	state, fresh := j.Memory.State(id), j.Feed.Fresh()
	if state == ledger.Unknown && j.isCopy(c) {
		return errCopy
	}
	switch {
	case state == ledger.Revoked:
		return ErrRevoked
	case fresh == nil:
		return nil
	case state == ledger.Unknown && c.NotBefore.Add(pki.Backdate).Before(j.Clock.Now().Add(-j.Feed.ProofAge())):
		return nil
	}
	return fresh
}

// errCopy wraps ErrRevoked, so that the caller refuses the certificate and does not try again.
var errCopy = fmt.Errorf("the certificate is a changed copy of one that was issued here: %w", ErrRevoked)

// isCopy reports whether a certificate without a record is another encoding of one that has a record or was revoked.
func (j *Journal) isCopy(c *x509.Certificate) bool {
	for _, digest := range pki.OtherForms(c) {
		if j.Memory.State(hex.EncodeToString(digest[:])) != ledger.Unknown {
			return true
		}
	}
	return false
}

// Settle returns once the memory has everything that was written before the call. The error means that this is not known now.
func (j *Journal) Settle(ctx context.Context) error { return j.Feed.CatchUp(ctx) }

// state returns what is known about a token, or an error if other replicas may have changed that too long ago.
func (j *Journal) state(id string, digest *ledger.Digest) (ledger.State, error) {
	if err := j.Feed.Fresh(); err != nil {
		return ledger.Unknown, err
	}
	return j.Memory.TokenState(id, digest), nil
}
