// Package certificates says who may decide about certificate signing requests: to approve or deny one takes the verb
// approve on its signer, to sign one the verb sign, and nobody may ask for membership in system:masters.
//
// It does not know what a request must look like, nor what becomes of it.
package certificates

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"lanyard.dev/internal/apiserver/outage"
	"lanyard.dev/internal/nodeaccess"
	"lanyard.dev/internal/pki"
)

// Plugin is the admission plugin. It does what Kubernetes' CertificateApproval, CertificateSigning and
// CertificateSubjectRestriction do.
type Plugin struct {
	*admission.Handler
	authorizer authorizer.UnconditionalAuthorizer
	admits     Admits
}

// Admits tells whether a request was made with a certificate that counts: nodeaccess.Evictions.AdmitsUser.
type Admits func(user string, groups, notBefore []string) error

var _ admission.ValidationInterface = &Plugin{}

// New returns the plugin.
func New(az authorizer.UnconditionalAuthorizer, admits Admits) *Plugin {
	return &Plugin{Handler: admission.NewHandler(admission.Create, admission.Update), authorizer: az, admits: admits}
}

// Validate implements admission.ValidationInterface.
func (p *Plugin) Validate(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	r, ok := a.GetObject().(*certificatesv1.CertificateSigningRequest)
	if !ok || a.GetResource().Group != certificatesv1.GroupName {
		return nil
	}
	switch {
	case a.GetOperation() == admission.Create && a.GetSubresource() == "":
		return restrict(a, r)
	case a.GetSubresource() == "approval":
		return p.demand(ctx, a, "approve")
	case a.GetSubresource() == "status" && changesStatus(a, r):
		return p.demand(ctx, a, "sign")
	}
	return nil
}

// restrict keeps the group that no policy binds out of certificates.
func restrict(a admission.Attributes, r *certificatesv1.CertificateSigningRequest) error {
	if r.Spec.SignerName != certificatesv1.KubeAPIServerClientSignerName {
		return nil
	}
	asked, err := pki.ParseRequest(r.Spec.Request)
	if err != nil {
		return admission.NewForbidden(a, fmt.Errorf("unable to parse csr: %w", err))
	}
	if slices.Contains(asked.Subject.Organization, user.SystemPrivilegedGroup) {
		return admission.NewForbidden(a, fmt.Errorf("use of %s signer with %s group is not allowed", r.Spec.SignerName, user.SystemPrivilegedGroup))
	}
	return nil
}

func changesStatus(a admission.Attributes, r *certificatesv1.CertificateSigningRequest) bool {
	old, ok := a.GetOldObject().(*certificatesv1.CertificateSigningRequest)
	return !ok || !bytes.Equal(old.Status.Certificate, r.Status.Certificate) ||
		!equality.Semantic.DeepEqual(old.Status.Conditions, r.Status.Conditions)
}

// demand asks for the verb on the signer that the stored request names: the one in the body may be anything, and will be
// put back.
func (p *Plugin) demand(ctx context.Context, a admission.Attributes, verb string) error {
	old, ok := a.GetOldObject().(*certificatesv1.CertificateSigningRequest)
	if !ok {
		return admission.NewForbidden(a, errors.New("no stored request"))
	}
	// The controllers that sign may be others' own, so what an evicted node asked for is refused here too. To deny it is
	// allowed.
	switch err := p.admits(old.Spec.Username, old.Spec.Groups, old.Spec.Extra[nodeaccess.ExtraNotBefore]); {
	case err == nil || denies(a):
	case errors.Is(err, nodeaccess.ErrEvicted):
		return admission.NewForbidden(a, fmt.Errorf("the requester: %w", err))
	default:
		return outage.New(err)
	}
	name := old.Spec.SignerName
	domain, _, _ := strings.Cut(name, "/")
	for _, signer := range []string{name, domain + "/*"} {
		if ok, err := p.allows(ctx, a.GetUserInfo(), verb, signer); err != nil || ok {
			return err
		}
	}
	return admission.NewForbidden(a, fmt.Errorf("user not permitted to %s requests with signerName %q", verb, name))
}

// denies tells whether an update leaves a request denied, and so unsigned for good.
func denies(a admission.Attributes) bool {
	r, ok := a.GetObject().(*certificatesv1.CertificateSigningRequest)
	return ok && a.GetSubresource() == "approval" &&
		slices.ContainsFunc(r.Status.Conditions, func(c certificatesv1.CertificateSigningRequestCondition) bool {
			return c.Type == certificatesv1.CertificateDenied
		})
}

// allows returns an error where that cannot be told now.
func (p *Plugin) allows(ctx context.Context, who user.Info, verb, signerName string) (bool, error) {
	if who == nil {
		return false, nil
	}
	decision, _, err := p.authorizer.Authorize(ctx, authorizer.AttributesRecord{
		User: who, Verb: verb, Name: signerName,
		APIGroup: certificatesv1.GroupName, APIVersion: "*", Resource: "signers", ResourceRequest: true,
	})
	return err == nil && decision == authorizer.DecisionAllow, err
}
