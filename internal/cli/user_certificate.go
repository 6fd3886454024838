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
)

const (
	askEvery      = 100 * time.Millisecond
	removeTimeout = 10 * time.Second
)

// enrolment gets one client certificate: it makes a certificate request, approves it, and waits for the signer. The
// request is removed if that fails, and otherwise left for the server to remove, as a trace.
type enrolment struct {
	client   kubernetes.Interface
	request  []byte // in PEM
	ttl      time.Duration
	timeout  time.Duration
	approver string // what the approval's message names
}

func (e *enrolment) run(ctx context.Context) (chain []byte, err error) {
	made, err := e.client.CertificatesV1().CertificateSigningRequests().Create(ctx, &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "lanyard-user-"},
		Spec: certificatesv1.CertificateSigningRequestSpec{
			Request: e.request, SignerName: certificatesv1.KubeAPIServerClientSignerName,
			ExpirationSeconds: csr.DurationToExpirationSeconds(e.ttl),
			Usages:            []certificatesv1.KeyUsage{certificatesv1.UsageClientAuth, certificatesv1.UsageDigitalSignature},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return nil, e.explain(ctx, "make a certificate request", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.remove(ctx, made))
		}
	}()
	if err := e.approve(ctx, made); err != nil {
		return nil, e.explain(ctx, "approve certificate request "+made.Name, err)
	}
	return e.await(ctx, made)
}

// errReplaced says that the name of the request now belongs to another's, which must not be approved with this
// administrator's right.
var errReplaced = errors.New("somebody replaced the certificate request by another of the same name")

// approve tries again when someone else writes to the request at the same time.
func (e *enrolment) approve(ctx context.Context, made *certificatesv1.CertificateSigningRequest) error {
	requests := e.client.CertificatesV1().CertificateSigningRequests()
	current := made
	return retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		current.Status.Conditions = append(current.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{
			Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue,
			Reason: "LanyardApproved", Message: "approved by " + e.approver,
		})
		_, err := requests.UpdateApproval(ctx, made.Name, current, metav1.UpdateOptions{})
		if apierrors.IsConflict(err) {
			again, getErr := requests.Get(ctx, made.Name, metav1.GetOptions{})
			if getErr != nil {
				return getErr
			}
			if again.UID != made.UID {
				return errReplaced
			}
			current = again
		}
		return err
	})
}

// await returns the certificate.
func (e *enrolment) await(ctx context.Context, made *certificatesv1.CertificateSigningRequest) (chain []byte, err error) {
	name := made.Name
	err = wait.PollUntilContextTimeout(ctx, askEvery, e.timeout, true, func(ctx context.Context) (bool, error) {
		r, err := e.client.CertificatesV1().CertificateSigningRequests().Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		if r.UID != made.UID {
			return false, errReplaced
		}
		chain = r.Status.Certificate
		return len(chain) > 0, judgement(r)
	})
	switch {
	case err == nil:
		return chain, nil
	case ctx.Err() != nil:
		return nil, errors.New("interrupted")
	case wait.Interrupted(err):
		return nil, withHint(fmt.Errorf("certificate request %s was approved, and not signed within %v", name, e.timeout),
			"does the server have a CA to sign with (--cluster-signing-cert-file)?")
	}
	return nil, e.explain(ctx, "wait for the certificate", err)
}

// judgement returns why a request will never be signed.
func judgement(r *certificatesv1.CertificateSigningRequest) error {
	for _, c := range r.Status.Conditions {
		if c.Type == certificatesv1.CertificateDenied || c.Type == certificatesv1.CertificateFailed {
			return fmt.Errorf("certificate request %s: %s: %s", r.Name, strings.ToLower(string(c.Type)), c.Message)
		}
	}
	return nil
}

// remove works also after ctx has ended, as on Ctrl-C. It leaves alone what is not its own.
func (e *enrolment) remove(ctx context.Context, made *certificatesv1.CertificateSigningRequest) error {
	name := made.Name
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeTimeout)
	defer cancel()
	err := e.client.CertificatesV1().CertificateSigningRequests().Delete(ctx, name, metav1.DeleteOptions{
		Preconditions: &metav1.Preconditions{UID: &made.UID},
	})
	if err == nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	return fmt.Errorf("remove certificate request %s: %w", name, err)
}

// needed are the rights that an enrolment takes.
var needed = []authorizationv1.ResourceAttributes{
	{Verb: "create", Resource: "certificatesigningrequests"},
	{Verb: "get", Resource: "certificatesigningrequests"},
	{Verb: "update", Resource: "certificatesigningrequests", Subresource: "approval"},
	{Verb: "approve", Resource: "signers", Name: certificatesv1.KubeAPIServerClientSignerName},
}

// explain adds to a refusal which rights are missing.
func (e *enrolment) explain(ctx context.Context, doing string, err error) error {
	err = fmt.Errorf("%s: %w", doing, err)
	if !apierrors.IsForbidden(err) {
		return err
	}
	var missing []string
	for _, right := range needed {
		if !e.holds(ctx, right) {
			missing = append(missing, inWordsOf(right))
		}
	}
	if len(missing) == 0 {
		return err
	}
	return withHint(err, "you lack the right to "+strings.Join(missing, ", and to "))
}

// holds gives the benefit of the doubt: what cannot be asked is not named as missing.
func (e *enrolment) holds(ctx context.Context, right authorizationv1.ResourceAttributes) bool {
	right.Group = certificatesv1.GroupName
	review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &right}}
	answer, err := e.client.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, review, metav1.CreateOptions{})
	return err != nil || answer.Status.Allowed
}

func inWordsOf(right authorizationv1.ResourceAttributes) string {
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
