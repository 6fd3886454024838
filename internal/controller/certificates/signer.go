// Package certificates approves, signs and deletes certificate signing requests.
//
// Approver approves the requests of nodes. Signer signs what has been approved, by the rules of each signer, and
// deletes requests that are no longer of use. Neither knows how a request was approved by others.
package certificates

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/kubernetes"
	certificatesv1client "k8s.io/client-go/kubernetes/typed/certificates/v1"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"lanyard.dev/internal/controller"
	"lanyard.dev/internal/ledger"
	"lanyard.dev/internal/nodeaccess"
	"lanyard.dev/internal/pki"
)

const (
	// DefaultDuration is the longest validity of a certificate, unless another is configured.
	DefaultDuration = 365 * 24 * time.Hour

	// MinDuration is the shortest validity of a certificate: twice the time by which certificates are backdated.
	MinDuration = 10 * time.Minute

	failedReason = "SignerValidationFailure"
)

// How long requests are kept, and how often they are examined.
const (
	keepDecided = time.Hour
	keepPending = 24 * time.Hour

	cleanInterval = time.Hour
	cleanPage     = 500
)

// CA returns the CA that signs for a signer at present.
type CA func(signerName string) (*pki.Signer, error)

// Nodes knows which certificates of a node are accepted after it was evicted. *nodeaccess.Evictions implements it.
type Nodes interface {
	// Earliest returns the earliest NotBefore with which a certificate of the node is accepted; zero if every certificate is
	// accepted.
	Earliest(node string) (time.Time, error)
	// AdmitsUser returns nodeaccess.ErrEvicted if a request was made with a certificate that is not accepted.
	AdmitsUser(user string, groups, notBefore []string) error
}

// Signer signs and deletes requests. It listens to the feed of certificate signing requests.
type Signer struct {
	SignerConfig
	requests certificatesv1client.CertificateSigningRequestInterface
	queue    *controller.Queue[string]
}

// SignerConfig configures a Signer.
type SignerConfig struct {
	// Client is the client of bootstrap.CertificateController.
	Client kubernetes.Interface
	// CA may be nil: then nothing is signed.
	CA    CA
	Nodes Nodes
	// Record returns nil once the record of a certificate is durable. It is called before the certificate is handed out.
	Record func(context.Context, ledger.Certificate) error
	// Longest bounds the validity of certificates; 0 means DefaultDuration.
	Longest time.Duration
	Clock   clock.WithTicker
}

// NewSigner returns a signer.
func NewSigner(c SignerConfig) *Signer {
	if c.Longest == 0 {
		c.Longest = DefaultDuration
	}
	return &Signer{
		SignerConfig: c, requests: c.Client.CertificatesV1().CertificateSigningRequests(),
		queue: controller.NewQueue[string]("sign certificate request", 50*time.Millisecond, time.Minute, clock.RealClock{}),
	}
}

// Set implements mirror.Listener.
func (c *Signer) Set(obj runtime.Object) {
	if r, ok := obj.(*certificatesv1.CertificateSigningRequest); ok && c.isDue(r) {
		c.queue.Add(r.Name)
	}
}

// Delete implements mirror.Listener.
func (c *Signer) Delete(runtime.Object) {}

// Run signs and deletes requests until ctx ends.
func (c *Signer) Run(ctx context.Context) {
	go c.cleanRegularly(ctx)
	c.queue.Run(ctx, c.sign)
}

// sign gives an approved request its certificate, or the condition that explains why it gets none.
func (c *Signer) sign(ctx context.Context, name string) error {
	read, err := c.requests.Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if !c.isDue(read) {
		return nil
	}
	apply, err := c.decide(ctx, read)
	if err != nil {
		return err
	}
	_, err = controller.Change(ctx, name, c.requests.Get, c.requests.UpdateStatus, func(r *certificatesv1.CertificateSigningRequest) bool {
		if r.UID != read.UID || !c.isDue(r) {
			return false
		}
		apply(r)
		return true
	})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// isDue reports whether this controller has to sign a request. If two replicas sign the same request, the second write
// is refused, because a certificate is never replaced.
func (c *Signer) isDue(r *certificatesv1.CertificateSigningRequest) bool {
	return c.CA != nil && Signs(r.Spec.SignerName) && len(r.Status.Certificate) == 0 &&
		has(r, certificatesv1.CertificateApproved) && !has(r, certificatesv1.CertificateDenied) && !has(r, certificatesv1.CertificateFailed)
}

func has(r *certificatesv1.CertificateSigningRequest, kind certificatesv1.RequestConditionType) bool {
	return slices.ContainsFunc(r.Status.Conditions, func(c certificatesv1.CertificateSigningRequestCondition) bool {
		return c.Type == kind && c.Status == corev1.ConditionTrue
	})
}

// decide returns the change that signs or fails a request. An error means that the request is not at fault and is to be
// tried again.
func (c *Signer) decide(ctx context.Context, r *certificatesv1.CertificateSigningRequest) (func(*certificatesv1.CertificateSigningRequest), error) {
	parsed, err := pki.ParseRequest(r.Spec.Request)
	if err == nil {
		err = ruleOf(r.Spec.SignerName)(parsed, r.Spec.Usages)
	}
	if err == nil {
		err = c.Nodes.AdmitsUser(r.Spec.Username, r.Spec.Groups, r.Spec.Extra[nodeaccess.ExtraNotBefore])
		if err != nil && !errors.Is(err, nodeaccess.ErrEvicted) {
			return nil, err
		}
	}
	if err != nil {
		return c.fail(err), nil
	}
	earliest, err := c.earliest(parsed)
	if err != nil {
		return nil, err
	}
	ca, err := c.CA(r.Spec.SignerName)
	if err != nil {
		return nil, err
	}
	usage, extended := keyUsages(r.Spec.Usages)
	terms := pki.Terms{Life: c.validity(r.Spec.ExpirationSeconds), KeyUsage: usage, ExtKeyUsage: extended, NotBefore: earliest}
	certificate, err := ca.Sign(parsed, terms, c.Clock.Now())
	if err != nil {
		return nil, fmt.Errorf("request %s: %w", r.Name, err)
	}
	if err := c.record(ctx, r, certificate); err != nil {
		return nil, fmt.Errorf("request %s: record the certificate: %w", r.Name, err)
	}
	return func(r *certificatesv1.CertificateSigningRequest) { r.Status.Certificate = certificate }, nil
}

// record records the certificate that was signed for a request. Whoever made the request is the minter. If another replica signs the
// same request and writes its certificate first, a record remains of a certificate that nobody has.
func (c *Signer) record(ctx context.Context, r *certificatesv1.CertificateSigningRequest, certificate []byte) error {
	chain, err := pki.ParseChain(certificate)
	if err != nil {
		return err
	}
	leaf, credential := chain[0], ""
	if ids := r.Spec.Extra[user.CredentialIDKey]; len(ids) > 0 {
		credential = ids[0]
	}
	digest := sha256.Sum256(leaf.Raw)
	return c.Record(ctx, ledger.Certificate{
		ID: hex.EncodeToString(digest[:]), User: leaf.Subject.CommonName, Groups: leaf.Subject.Organization,
		SignerName: r.Spec.SignerName, Request: r.Name, Issued: c.Clock.Now(), Expires: leaf.NotAfter,
		Minter: ledger.Minter{User: r.Spec.Username, UID: r.Spec.UID, Credential: credential},
	})
}

// earliest returns the earliest NotBefore for the certificate of a node that was evicted. Without it, the backdating of
// certificates could make a new one look like one from before the eviction. The certificate is not signed before that
// time.
func (c *Signer) earliest(r *x509.CertificateRequest) (time.Time, error) {
	node, ok := nodeaccess.Identify(r.Subject.CommonName, r.Subject.Organization)
	if !ok {
		return time.Time{}, nil
	}
	earliest, err := c.Nodes.Earliest(node)
	if err == nil && c.Clock.Now().Before(earliest) {
		return earliest, fmt.Errorf("%w: node %s was evicted this very second", controller.ErrNotYet, node)
	}
	return earliest, err
}

// fail returns the change that gives a request the condition Failed.
func (c *Signer) fail(cause error) func(*certificatesv1.CertificateSigningRequest) {
	now := metav1.NewTime(c.Clock.Now())
	return func(r *certificatesv1.CertificateSigningRequest) {
		r.Status.Conditions = append(r.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{
			Type: certificatesv1.CertificateFailed, Status: corev1.ConditionTrue, Reason: failedReason, Message: cause.Error(),
			LastUpdateTime: now, LastTransitionTime: now,
		})
	}
}

// validity returns the requested validity, within bounds.
func (c *Signer) validity(seconds *int32) time.Duration {
	if seconds == nil {
		return c.Longest
	}
	return min(max(time.Duration(*seconds)*time.Second, MinDuration), c.Longest)
}

func (c *Signer) cleanRegularly(ctx context.Context) {
	tick := c.Clock.NewTicker(cleanInterval)
	defer tick.Stop()
	for {
		if err := c.clean(ctx); err != nil && ctx.Err() == nil {
			klog.ErrorS(err, "Could not look for old certificate signing requests; trying again later")
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C():
		}
	}
}

// clean deletes the requests that are over.
func (c *Signer) clean(ctx context.Context) error {
	page := metav1.ListOptions{Limit: cleanPage}
	for {
		list, err := c.requests.List(ctx, page)
		if err != nil {
			return err
		}
		for i := range list.Items {
			if isOver(&list.Items[i], c.Clock.Now()) {
				c.remove(ctx, &list.Items[i])
			}
		}
		if page.Continue = list.Continue; page.Continue == "" {
			return nil
		}
	}
}

// remove deletes the request in the version that was read: a request that was decided in the meantime stays.
func (c *Signer) remove(ctx context.Context, r *certificatesv1.CertificateSigningRequest) {
	err := c.requests.Delete(ctx, r.Name, controller.IfUnchanged(r))
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		klog.ErrorS(err, "Could not remove an old certificate signing request; trying again later", "request", r.Name)
	}
}

// isOver reports whether the request is no longer of use. A request that is approved and not signed is kept, since its
// signer may be away for any time.
func isOver(r *certificatesv1.CertificateSigningRequest, now time.Time) bool {
	if len(r.Status.Conditions) == 0 && isOlder(r.CreationTimestamp, now, keepPending) {
		return true
	}
	issued := len(r.Status.Certificate) > 0
	for _, c := range r.Status.Conditions {
		switch c.Type {
		case certificatesv1.CertificateDenied, certificatesv1.CertificateFailed:
			if isOlder(c.LastUpdateTime, now, keepDecided) {
				return true
			}
		case certificatesv1.CertificateApproved:
			if issued && (isOlder(c.LastUpdateTime, now, keepDecided) || hasExpired(r.Status.Certificate, now)) {
				return true
			}
		}
	}
	return false
}

func isOlder(t metav1.Time, now time.Time, age time.Duration) bool {
	return !t.IsZero() && now.Sub(t.Time) > age
}

// hasExpired reports whether the requester's certificate, the first of the chain, has expired.
func hasExpired(chain []byte, now time.Time) bool {
	certs, err := pki.ParseChain(chain)
	return err == nil && now.After(certs[0].NotAfter)
}
