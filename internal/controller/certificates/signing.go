package certificates

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/registry/rest"

	"lanyard.dev/internal/controller"
	"lanyard.dev/internal/nodeaccess"
	"lanyard.dev/internal/pki"
)

const (
	// DefaultDuration is how long a certificate is valid at the most, unless configured otherwise.
	DefaultDuration = 365 * 24 * time.Hour

	// MinDuration is the least a certificate is valid, twice what a certificate is backdated by.
	MinDuration = 10 * time.Minute

	failedReason = "SignerValidationFailure"
)

// sign gives an approved request its certificate, or the condition that says why it gets none.
func (c *Controller) sign(ctx context.Context, name string) error {
	found, err := c.requests.Get(ctx, name, &metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	r := found.(*certificatesv1.CertificateSigningRequest)
	if !c.due(r) {
		return nil
	}
	outcome, err := c.decide(r)
	if err != nil {
		return err
	}
	_, _, err = c.status.Update(ctx, name, controller.Change(func(now *certificatesv1.CertificateSigningRequest) {
		if now.UID == r.UID && c.due(now) {
			outcome(now)
		}
	}), rest.ValidateAllObjectFunc, rest.ValidateAllObjectUpdateFunc, false, &metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// due tells whether a request waits for this controller. Two replicas may sign the same one; the second is turned away,
// because a certificate is never replaced.
func (c *Controller) due(r *certificatesv1.CertificateSigningRequest) bool {
	return c.ca != nil && Signs(r.Spec.SignerName) && len(r.Status.Certificate) == 0 &&
		has(r, certificatesv1.CertificateApproved) && !has(r, certificatesv1.CertificateDenied) && !has(r, certificatesv1.CertificateFailed)
}

func has(r *certificatesv1.CertificateSigningRequest, kind certificatesv1.RequestConditionType) bool {
	return slices.ContainsFunc(r.Status.Conditions, func(c certificatesv1.CertificateSigningRequestCondition) bool {
		return c.Type == kind && c.Status == corev1.ConditionTrue
	})
}

// decide returns what becomes of a request. An error is none of the request's fault.
func (c *Controller) decide(r *certificatesv1.CertificateSigningRequest) (func(*certificatesv1.CertificateSigningRequest), error) {
	asked, err := pki.ParseRequest(r.Spec.Request)
	if err == nil {
		err = ruleOf(r.Spec.SignerName)(asked, r.Spec.Usages)
	}
	if err == nil {
		err = c.nodes.AdmitsUser(r.Spec.Username, r.Spec.Groups, r.Spec.Extra[nodeaccess.ExtraNotBefore])
		if err != nil && !errors.Is(err, nodeaccess.ErrEvicted) {
			return nil, err
		}
	}
	if err != nil {
		return c.fail(err), nil
	}
	earliest, err := c.earliest(asked)
	if err != nil {
		return nil, err
	}
	ca, err := c.ca(r.Spec.SignerName)
	if err != nil {
		return nil, err
	}
	usage, extended := bits(r.Spec.Usages)
	terms := pki.Terms{Life: c.life(r.Spec.ExpirationSeconds), KeyUsage: usage, ExtKeyUsage: extended, NotBefore: earliest}
	certificate, err := ca.Sign(asked, terms, c.clock.Now())
	if err != nil {
		return nil, fmt.Errorf("request %s: %w", r.Name, err)
	}
	return func(r *certificatesv1.CertificateSigningRequest) { r.Status.Certificate = certificate }, nil
}

// earliest is from when on the certificate is valid at the earliest: one for a node that was evicted must not pass for one
// of before, which backdating would make of it. It is not signed before it is valid.
func (c *Controller) earliest(asked *x509.CertificateRequest) (time.Time, error) {
	node, ok := nodeaccess.Identify(asked.Subject.CommonName, asked.Subject.Organization)
	if !ok {
		return time.Time{}, nil
	}
	earliest, err := c.nodes.Earliest(node)
	if err == nil && c.clock.Now().Before(earliest) {
		return earliest, fmt.Errorf("%w: node %s was evicted this very second", controller.ErrNotYet, node)
	}
	return earliest, err
}

func (c *Controller) fail(cause error) func(*certificatesv1.CertificateSigningRequest) {
	now := metav1.NewTime(c.clock.Now())
	return func(r *certificatesv1.CertificateSigningRequest) {
		r.Status.Conditions = append(r.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{
			Type: certificatesv1.CertificateFailed, Status: corev1.ConditionTrue, Reason: failedReason, Message: cause.Error(),
			LastUpdateTime: now, LastTransitionTime: now,
		})
	}
}

// life is as long as was asked for, within bounds.
func (c *Controller) life(seconds *int32) time.Duration {
	if seconds == nil {
		return c.longest
	}
	return min(max(time.Duration(*seconds)*time.Second, MinDuration), c.longest)
}
