package serviceaccount

import (
	"context"
	"errors"
	"fmt"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/util/dryrun"
	"k8s.io/apiserver/pkg/warning"
	"k8s.io/utils/clock"

	"lanyard.dev/internal/apiserver/issuance"
	"lanyard.dev/internal/apiserver/outage"
	"lanyard.dev/internal/ledger"
	"lanyard.dev/internal/token"
)

// Issuer issues tokens. *token.Issuer implements it.
type Issuer interface {
	Issue(context.Context, token.Request) (string, *token.Claims, error)
}

// Recorder records tokens. *issuance.Journal implements it.
type Recorder interface {
	// RecordToken returns nil once the record is durable.
	RecordToken(context.Context, ledger.Token) error
}

// TokenConfig configures how tokens are issued.
type TokenConfig struct {
	Issuer     Issuer
	Recorder   Recorder
	Anchors    token.Anchors
	Lifetimes  token.LifetimePolicy
	Algorithms token.AlgorithmPolicy
	// Audiences are the audiences of the API server. A token gets them if its request names none.
	Audiences []string
	// Clock is used to find out whether the grace period of a pod is over. If it is nil, the real clock is used.
	Clock clock.PassiveClock
}

// TokenREST serves serviceaccounts/token.
type TokenREST struct{ TokenConfig }

var (
	_ rest.NamedCreater             = &TokenREST{}
	_ rest.GroupVersionKindProvider = &TokenREST{}

	_ rest.SubresourceObjectMetaPreserver = &TokenREST{}
)

// NewTokenREST returns serviceaccounts/token.
func NewTokenREST(config TokenConfig) *TokenREST {
	if config.Clock == nil {
		config.Clock = clock.RealClock{}
	}
	return &TokenREST{config}
}

// New implements rest.Storage.
func (*TokenREST) New() runtime.Object { return &authenticationv1.TokenRequest{} }

// Destroy implements rest.Storage.
func (*TokenREST) Destroy() {}

// GroupVersionKind implements rest.GroupVersionKindProvider: the kind is of another group than the path.
func (*TokenREST) GroupVersionKind(schema.GroupVersion) schema.GroupVersionKind {
	return authenticationv1.SchemeGroupVersion.WithKind("TokenRequest")
}

// PreserveRequestObjectMetaSystemFieldsOnSubresourceCreate implements rest.SubresourceObjectMetaPreserver: metadata.uid is the
// UID of the account.
func (*TokenREST) PreserveRequestObjectMetaSystemFieldsOnSubresourceCreate() bool { return true }

// Create issues a token for the named account and sets the status of the request.
func (r *TokenREST) Create(ctx context.Context, name string, obj runtime.Object, validate rest.ValidateObjectFunc, options *metav1.CreateOptions) (runtime.Object, error) {
	req, ok := obj.(*authenticationv1.TokenRequest)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("not a TokenRequest: %T", obj))
	}
	namespace := request.NamespaceValue(ctx)
	if req.Name != "" && req.Name != name {
		return nil, invalid(name, field.Invalid(field.NewPath("metadata", "name"), req.Name, "must match the service account name if specified"))
	}
	if req.Namespace != "" && req.Namespace != namespace {
		return nil, invalid(name, field.Invalid(field.NewPath("metadata", "namespace"), req.Namespace, "must match the service account namespace if specified"))
	}
	account, err := r.account(ctx, namespace, name, req.UID)
	if err != nil {
		return nil, err
	}
	if validate != nil {
		if err := validate(ctx, obj.DeepCopyObject()); err != nil {
			return nil, err
		}
	}
	SetTokenDefaults(req, r.Audiences)
	lifetime, err := r.lifetime(ctx, name, req)
	if err != nil {
		return nil, err
	}
	algorithm, err := r.Algorithms.Algorithm(req.Spec.Audiences)
	if err != nil {
		return nil, invalid(name, field.Invalid(field.NewPath("spec", "audiences"), req.Spec.Audiences, err.Error()))
	}
	bound, err := r.bind(ctx, namespace, name, req.Spec.BoundObjectRef)
	if err != nil {
		return nil, err
	}
	bound.Namespace, bound.ServiceAccount = namespace, token.Ref{Name: name, UID: account.UID}
	bound.Audiences, bound.Lifetime, bound.Algorithm = req.Spec.Audiences, lifetime, algorithm
	if name == "default" {
		warning.AddWarning(ctx, "", defaultAccountWarning(namespace))
	}
	return r.issue(ctx, req, bound, dryrun.IsDryRun(options.DryRun))
}

func defaultAccountWarning(namespace string) string {
	return fmt.Sprintf("tokens of the service account \"default\" are shared by every workload in namespace %q that names none: create one account per application with 'kubectl create serviceaccount NAME -n %s'", namespace, namespace)
}

// account returns the account of a token request. If uid is not empty, it must be the UID of the account, so that no token
// is issued for an account that was created again with the same name. An account that is being deleted gets no new token,
// because its tokens are valid for one more minute only, even if a finalizer keeps the object.
func (r *TokenREST) account(ctx context.Context, namespace, name string, uid types.UID) (token.Anchor, error) {
	account, found, err := r.Anchors.ServiceAccount(ctx, namespace, name)
	resource := corev1.Resource("serviceaccounts")
	switch {
	case err != nil:
		return account, outage.New(err)
	case !found:
		return account, apierrors.NewNotFound(resource, name)
	case uid != "" && string(uid) != account.UID:
		return account, apierrors.NewConflict(resource, name,
			fmt.Errorf("the UID in the token request (%s) does not match the UID of the service account (%s)", uid, account.UID))
	case !account.DeletionTimestamp.IsZero():
		return account, apierrors.NewConflict(resource, name, errBeingDeleted)
	}
	return account, nil
}

// SetTokenDefaults sets the fields that a request leaves out. The scheme has no defaults of TokenRequest, because the
// audiences depend on the server.
func SetTokenDefaults(req *authenticationv1.TokenRequest, audiences []string) {
	if req.Spec.ExpirationSeconds == nil {
		seconds := int64(token.DefaultLifetime / time.Second)
		req.Spec.ExpirationSeconds = &seconds
	}
	if len(req.Spec.Audiences) == 0 {
		req.Spec.Audiences = append([]string(nil), audiences...)
	}
}

func (r *TokenREST) lifetime(ctx context.Context, name string, req *authenticationv1.TokenRequest) (time.Duration, error) {
	path := field.NewPath("spec", "expirationSeconds")
	requested := *req.Spec.ExpirationSeconds
	lifetime, capped, err := r.Lifetimes.Lifetime(req.Spec.ExpirationSeconds)
	if err != nil {
		return 0, invalid(name, field.Invalid(path, requested, err.Error()))
	}
	for i, audience := range req.Spec.Audiences {
		if audience == "" {
			return 0, invalid(name, field.Invalid(field.NewPath("spec", "audiences").Index(i), audience, "must not be empty"))
		}
	}
	if capped {
		got := int64(lifetime / time.Second)
		warning.AddWarning(ctx, "", fmt.Sprintf("requested expiration of %d seconds shortened to %d seconds", requested, got))
		req.Spec.ExpirationSeconds = &got
	}
	return lifetime, nil
}

// issue signs the token, records it, and adds its ID to the audit event. A token without a record would be refused, so it is not
// returned. A dry run returns and records no token.
func (r *TokenREST) issue(ctx context.Context, req *authenticationv1.TokenRequest, bound token.Request, dry bool) (runtime.Object, error) {
	now := r.Clock.Now()
	req.Name, req.Namespace, req.UID = bound.ServiceAccount.Name, bound.Namespace, types.UID(bound.ServiceAccount.UID)
	req.CreationTimestamp, req.DeletionTimestamp, req.DeletionGracePeriodSeconds = metav1.NewTime(now), nil, nil
	req.SetSelfLink("")
	req.ManagedFields = nil // nothing is stored, so no manager owns a field
	if dry {
		req.Status = authenticationv1.TokenRequestStatus{ExpirationTimestamp: metav1.NewTime(now.Add(bound.Lifetime))}
		return req, nil
	}
	text, claims, err := r.Issuer.Issue(ctx, bound)
	switch {
	case errors.Is(err, token.ErrTooLarge):
		return nil, invalid(bound.ServiceAccount.Name, field.Invalid(field.NewPath("spec", "audiences"), len(bound.Audiences), err.Error()))
	case errors.Is(err, token.ErrSignerUnavailable):
		return nil, outage.NewWith("tokens cannot be signed now, because the signer does not answer; try again", err)
	case outage.Of(err) != nil:
		return nil, err
	case err != nil:
		return nil, apierrors.NewInternalError(err)
	}
	if err := r.Recorder.RecordToken(ctx, recordOf(text, claims, issuance.MinterFrom(ctx))); err != nil {
		return nil, outage.New(fmt.Errorf("record token for %s/%s: %w", bound.Namespace, bound.ServiceAccount.Name, err))
	}
	audit.AddAuditAnnotation(ctx, "authentication.kubernetes.io/issued-credential-id", token.CredentialID(claims.ID))
	req.Status = authenticationv1.TokenRequestStatus{Token: text, ExpirationTimestamp: metav1.NewTime(claims.ExpiresAt())}
	return req, nil
}

func invalid(name string, errs ...*field.Error) error {
	return apierrors.NewInvalid(authenticationv1.SchemeGroupVersion.WithKind("TokenRequest").GroupKind(), name, errs)
}

var errBeingDeleted = errors.New("the object is being deleted, and gets no new tokens")

// bind returns the object to which a token is bound. The object must exist, must not be in deletion, and must have the
// requested UID. A pod must run as the account.
func (r *TokenREST) bind(ctx context.Context, namespace, account string, ref *authenticationv1.BoundObjectReference) (token.Request, error) {
	var bound token.Request
	if ref == nil {
		return bound, nil
	}
	gvk := schema.FromAPIVersionAndKind(ref.APIVersion, ref.Kind)
	// As in Kubernetes, the version is ignored and may be missing.
	switch gvk.GroupKind() {
	case schema.GroupKind{Kind: "Pod"}:
		return r.bindPod(ctx, namespace, account, ref)
	case schema.GroupKind{Kind: "Secret"}:
		secret, found, err := r.Anchors.Secret(ctx, namespace, ref.Name)
		bound.Secret, err = resolve(ref, "secrets", secret, found, err)
		return bound, err
	case schema.GroupKind{Kind: "Node"}:
		node, found, err := r.Anchors.Node(ctx, ref.Name)
		bound.Node, err = resolve(ref, "nodes", node, found, err)
		return bound, err
	}
	return bound, apierrors.NewBadRequest(fmt.Sprintf("cannot bind token for serviceaccount to object of type %s: a v1 Pod, Secret or Node is needed", gvk.String()))
}

// bindPod binds the token to the pod and, if it exists, to the node of the pod.
func (r *TokenREST) bindPod(ctx context.Context, namespace, account string, ref *authenticationv1.BoundObjectReference) (token.Request, error) {
	var bound token.Request
	pod, found, err := r.Anchors.Pod(ctx, namespace, ref.Name)
	// A pod needs tokens until the end of its grace period, which is its deletionTimestamp.
	if pod.DeletionTimestamp.After(r.Clock.Now()) {
		pod.DeletionTimestamp = time.Time{}
	}
	if bound.Pod, err = resolve(ref, "pods", pod, found, err); err != nil {
		return bound, err
	}
	if pod.ServiceAccountName != account {
		return bound, apierrors.NewBadRequest(fmt.Sprintf("cannot bind token for serviceaccount %q to pod running with different serviceaccount name.", account))
	}
	if pod.NodeName == "" {
		return bound, nil
	}
	node, found, err := r.Anchors.Node(ctx, pod.NodeName)
	if err != nil {
		return bound, outage.New(err)
	}
	// A pod may name a node that is not registered. Such a node has no UID, so the token is not bound to it.
	if found {
		if !node.DeletionTimestamp.IsZero() { // the token would be refused
			return bound, apierrors.NewConflict(corev1.Resource("nodes"), pod.NodeName, errBeingDeleted)
		}
		bound.Node = &token.Ref{Name: pod.NodeName, UID: node.UID}
	}
	return bound, nil
}

func resolve(ref *authenticationv1.BoundObjectReference, resource string, found token.Anchor, ok bool, err error) (*token.Ref, error) {
	switch {
	case err != nil:
		return nil, outage.New(err)
	case !ok:
		return nil, apierrors.NewNotFound(corev1.Resource(resource), ref.Name)
	case ref.UID != "" && string(ref.UID) != found.UID:
		return nil, apierrors.NewConflict(corev1.Resource(resource), ref.Name,
			fmt.Errorf("the UID in the bound object reference (%s) does not match the UID in record. The object might have been deleted and then recreated", ref.UID))
	case !found.DeletionTimestamp.IsZero():
		return nil, apierrors.NewConflict(corev1.Resource(resource), ref.Name, errBeingDeleted)
	}
	return &token.Ref{Name: ref.Name, UID: found.UID}, nil
}
