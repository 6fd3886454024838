package admission

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

// certificates restricts decisions about certificate signing requests: approving or denying one requires the verb
// approve on its signer, and signing one the verb sign. It also refuses requests for membership in system:masters. It
// does what Kubernetes' plugins CertificateApproval, CertificateSigning and CertificateSubjectRestriction do.
//
// Whether a request is well formed is checked by the registry.
type certificates struct {
	*admission.Handler
	authorizer authorizer.UnconditionalAuthorizer
	admits     func(user string, groups, notBefore []string) error
}

var _ admission.ValidationInterface = &certificates{}

func newCertificates(az authorizer.UnconditionalAuthorizer, admits func(user string, groups, notBefore []string) error) *certificates {
	return &certificates{Handler: admission.NewHandler(admission.Create, admission.Update), authorizer: az, admits: admits}
}

// Validate implements admission.ValidationInterface.
func (p *certificates) Validate(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	r, ok := a.GetObject().(*certificatesv1.CertificateSigningRequest)
	if !ok || a.GetResource().Group != certificatesv1.GroupName {
		return nil
	}
	switch {
	case a.GetOperation() == admission.Create && a.GetSubresource() == "":
		return restrictSubject(a, r)
	case a.GetSubresource() == "approval":
		return p.requireVerb(ctx, a, "approve")
	case a.GetSubresource() == "status" && changesStatus(a, r):
		return p.requireVerb(ctx, a, "sign")
	}
	return nil
}

// restrictSubject refuses certificates for the group system:masters, which no policy restricts.
func restrictSubject(a admission.Attributes, r *certificatesv1.CertificateSigningRequest) error {
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

// requireVerb returns an error unless the user has the verb on the signer of the stored request. The signer in the body may
// differ, and the registry restores it.
func (p *certificates) requireVerb(ctx context.Context, a admission.Attributes, verb string) error {
	old, ok := a.GetOldObject().(*certificatesv1.CertificateSigningRequest)
	if !ok {
		return admission.NewForbidden(a, errors.New("no stored request"))
	}
	// Signers outside this server may not know that a node was evicted, so its requests get no certificate here either.
	// They may be denied, and may fail.
	switch err := p.admits(old.Spec.Username, old.Spec.Groups, old.Spec.Extra[nodeaccess.ExtraNotBefore]); {
	case err == nil || refuses(a):
	case errors.Is(err, nodeaccess.ErrEvicted):
		return admission.NewForbidden(a, fmt.Errorf("the requester: %w", err))
	default:
		return outage.New(err)
	}
	name, who := old.Spec.SignerName, a.GetUserInfo()
	domain, _, _ := strings.Cut(name, "/")
	for _, signer := range []string{name, domain + "/*"} {
		if who == nil {
			break
		}
		ok, err := allows(ctx, p.authorizer, authorizer.AttributesRecord{
			User: who, Verb: verb, Name: signer,
			APIGroup: certificatesv1.GroupName, APIVersion: "*", Resource: "signers", ResourceRequest: true,
		})
		if err != nil || ok {
			return err
		}
	}
	return admission.NewForbidden(a, fmt.Errorf("user not permitted to %s requests with signerName %q", verb, name))
}

// refuses reports whether an update leaves a request denied; or failed, without a certificate.
func refuses(a admission.Attributes) bool {
	r, ok := a.GetObject().(*certificatesv1.CertificateSigningRequest)
	if !ok {
		return false
	}
	final := certificatesv1.CertificateDenied
	if a.GetSubresource() == "status" {
		if len(r.Status.Certificate) > 0 {
			return false
		}
		final = certificatesv1.CertificateFailed
	}
	return slices.ContainsFunc(r.Status.Conditions, func(c certificatesv1.CertificateSigningRequestCondition) bool { return c.Type == final })
}
