package certificates

import (
	"context"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/klog/v2"

	"lanyard.dev/internal/pki"
)

// How long requests are kept, and how often they are looked at.
const (
	keepDecided = time.Hour
	keepPending = 24 * time.Hour

	cleanEvery = time.Hour
)

// clean removes the requests that are over.
func (c *Controller) clean(ctx context.Context) error {
	list, err := c.requests.List(ctx, &internalversion.ListOptions{})
	if err != nil {
		return err
	}
	for i := range list.(*certificatesv1.CertificateSigningRequestList).Items {
		r := &list.(*certificatesv1.CertificateSigningRequestList).Items[i]
		if over(r, c.clock.Now()) {
			c.remove(ctx, r)
		}
	}
	return nil
}

// remove deletes the request as it was looked at: one decided about since stays.
func (c *Controller) remove(ctx context.Context, r *certificatesv1.CertificateSigningRequest) {
	options := &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &r.UID, ResourceVersion: &r.ResourceVersion}}
	_, _, err := c.requests.Delete(ctx, r.Name, rest.ValidateAllObjectFunc, options)
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		klog.ErrorS(err, "Could not remove an old certificate signing request; trying again later", "request", r.Name)
	}
}

// over tells whether nobody needs the request any more. One that is approved and not signed is kept: its signer may be
// away for longer than any bound.
func over(r *certificatesv1.CertificateSigningRequest, now time.Time) bool {
	if len(r.Status.Conditions) == 0 && older(r.CreationTimestamp, now, keepPending) {
		return true
	}
	issued := len(r.Status.Certificate) > 0
	for _, c := range r.Status.Conditions {
		switch c.Type {
		case certificatesv1.CertificateDenied, certificatesv1.CertificateFailed:
			if older(c.LastUpdateTime, now, keepDecided) {
				return true
			}
		case certificatesv1.CertificateApproved:
			if issued && (older(c.LastUpdateTime, now, keepDecided) || expired(r.Status.Certificate, now)) {
				return true
			}
		}
	}
	return false
}

func older(t metav1.Time, now time.Time, age time.Duration) bool {
	return !t.IsZero() && now.Sub(t.Time) > age
}

// expired is about the first certificate, the requester's own.
func expired(chain []byte, now time.Time) bool {
	certs, err := pki.ParseChain(chain)
	return err == nil && now.After(certs[0].NotAfter)
}
