package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/certificate/csr"
	"k8s.io/client-go/util/retry"

	"lanyard.dev/internal/hint"
)

const (
	pollInterval  = 100 * time.Millisecond
	deleteTimeout = 10 * time.Second
)

// certificateRequest obtains one client certificate: it creates a certificate request, approves it, and waits for the signer.
// It deletes the request after a failure. Otherwise the request remains as a record until the server deletes it.
type certificateRequest struct {
	client   kubernetes.Interface
	request  []byte // in PEM
	ttl      time.Duration
	timeout  time.Duration
	approver string // named in the message of the approval
}

func (r *certificateRequest) run(ctx context.Context) (chain []byte, err error) {
	created, err := r.client.CertificatesV1().CertificateSigningRequests().Create(ctx, &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "lanyard-user-"},
		Spec: certificatesv1.CertificateSigningRequestSpec{
			Request: r.request, SignerName: certificatesv1.KubeAPIServerClientSignerName,
			ExpirationSeconds: csr.DurationToExpirationSeconds(r.ttl),
			Usages:            []certificatesv1.KeyUsage{certificatesv1.UsageClientAuth, certificatesv1.UsageDigitalSignature},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return nil, r.explain(ctx, "create a certificate request", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.remove(ctx, created))
		}
	}()
	if err := r.approve(ctx, created); err != nil {
		return nil, r.explain(ctx, "approve certificate request "+created.Name, err)
	}
	return r.await(ctx, created)
}

// errReplaced means that another user's certificate request has the name now. It must not be approved with the administrator's
// permission.
var errReplaced = errors.New("the certificate request was replaced by another of the same name")

// approve tries again after a conflict with another writer.
func (r *certificateRequest) approve(ctx context.Context, created *certificatesv1.CertificateSigningRequest) error {
	requests := r.client.CertificatesV1().CertificateSigningRequests()
	current := created
	return retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		current.Status.Conditions = append(current.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{
			Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue,
			Reason: "LanyardApproved", Message: "approved by " + r.approver,
		})
		_, err := requests.UpdateApproval(ctx, created.Name, current, metav1.UpdateOptions{})
		if apierrors.IsConflict(err) {
			again, getErr := requests.Get(ctx, created.Name, metav1.GetOptions{})
			if getErr != nil {
				return getErr
			}
			if again.UID != created.UID {
				return errReplaced
			}
			current = again
		}
		return err
	})
}

// await waits for the certificate.
func (r *certificateRequest) await(ctx context.Context, created *certificatesv1.CertificateSigningRequest) (chain []byte, err error) {
	name := created.Name
	err = wait.PollUntilContextTimeout(ctx, pollInterval, r.timeout, true, func(ctx context.Context) (bool, error) {
		request, err := r.client.CertificatesV1().CertificateSigningRequests().Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		if request.UID != created.UID {
			return false, errReplaced
		}
		chain = request.Status.Certificate
		return len(chain) > 0, refusal(request)
	})
	switch {
	case err == nil:
		return chain, nil
	case ctx.Err() != nil:
		return nil, errors.New("interrupted")
	case wait.Interrupted(err):
		return nil, hint.New(fmt.Errorf("certificate request %s was approved, but not signed within %v", name, r.timeout),
			"does the server have a CA that signs (--cluster-signing-cert-file)?")
	}
	return nil, r.explain(ctx, "wait for the certificate", err)
}

// refusal returns an error if the request will not be signed.
func refusal(r *certificatesv1.CertificateSigningRequest) error {
	for _, c := range r.Status.Conditions {
		if c.Type == certificatesv1.CertificateDenied || c.Type == certificatesv1.CertificateFailed {
			return fmt.Errorf("certificate request %s: %s: %s", r.Name, strings.ToLower(string(c.Type)), c.Message)
		}
	}
	return nil
}

// remove deletes the request, even if ctx has ended. It does not delete another request of the same name.
func (r *certificateRequest) remove(ctx context.Context, created *certificatesv1.CertificateSigningRequest) error {
	name := created.Name
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), deleteTimeout)
	defer cancel()
	err := r.client.CertificatesV1().CertificateSigningRequests().Delete(ctx, name, metav1.DeleteOptions{
		Preconditions: &metav1.Preconditions{UID: &created.UID},
	})
	if err == nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	return fmt.Errorf("delete certificate request %s: %w", name, err)
}

// requiredPermissions are the permissions that a certificateRequest needs.
var requiredPermissions = []authorizationv1.ResourceAttributes{
	{Verb: "create", Resource: "certificatesigningrequests"},
	{Verb: "get", Resource: "certificatesigningrequests"},
	{Verb: "update", Resource: "certificatesigningrequests", Subresource: "approval"},
	{Verb: "approve", Resource: "signers", Name: certificatesv1.KubeAPIServerClientSignerName},
}

// explain adds to a forbidden error a hint with the missing permissions.
func (r *certificateRequest) explain(ctx context.Context, doing string, err error) error {
	err = fmt.Errorf("%s: %w", doing, err)
	if !apierrors.IsForbidden(err) {
		return err
	}
	var missing []string
	for _, right := range requiredPermissions {
		if !r.holds(ctx, right) {
			missing = append(missing, permissionText(right))
		}
	}
	if len(missing) == 0 {
		return err
	}
	return hint.New(err, "you lack the permission to "+strings.Join(missing, ", and to "))
}

// holds reports whether the caller has a permission. It returns true if the server does not answer, so that the hint contains only
// permissions that are certainly missing.
func (r *certificateRequest) holds(ctx context.Context, right authorizationv1.ResourceAttributes) bool {
	right.Group = certificatesv1.GroupName
	review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &right}}
	answer, err := r.client.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, review, metav1.CreateOptions{})
	return err != nil || answer.Status.Allowed
}

func permissionText(right authorizationv1.ResourceAttributes) string {
	resource := right.Resource
	if right.Subresource != "" {
		resource += "/" + right.Subresource
	}
	text := right.Verb + " " + resource + "." + certificatesv1.GroupName
	if right.Name != "" {
		text += " with resource name " + right.Name
	}
	return text
}
