package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"

	identity "lanyard.dev/apis/identity/v1alpha1"
	"lanyard.dev/internal/hint"
)

// credential is the record of an issued token or certificate. One of both is set.
type credential struct {
	token       *identity.IssuedToken
	certificate *identity.IssuedCertificate
}

// object returns the object of the API.
func (c credential) object() runtime.Object {
	if c.token != nil {
		return c.token
	}
	return c.certificate
}

func (c credential) meta() *metav1.ObjectMeta {
	if c.token != nil {
		return &c.token.ObjectMeta
	}
	return &c.certificate.ObjectMeta
}

// resource returns the name of the resource, and kind the word that messages use.
func (c credential) resource() string {
	if c.token != nil {
		return "issuedtokens"
	}
	return "issuedcertificates"
}

func (c credential) kind() string {
	if c.token != nil {
		return "token"
	}
	return "certificate"
}

// id returns the credential ID by which requests with the credential are known.
func (c credential) id() string {
	if c.token != nil {
		return "JTI=" + c.token.Name
	}
	return "X509SHA256=" + c.certificate.Name
}

// holder returns whom the credential authenticates.
func (c credential) holder() string {
	if c.token != nil {
		return c.token.Namespace + "/" + c.token.Spec.ServiceAccount.Name
	}
	return c.certificate.Spec.Username
}

func (c credential) minter() *identity.Minter {
	if c.token != nil {
		return &c.token.Spec.MintedBy
	}
	return &c.certificate.Spec.MintedBy
}

func (c credential) lastUsed() *identity.Use {
	if c.token != nil {
		return c.token.Status.LastUsed
	}
	return c.certificate.Status.LastUsed
}

func (c credential) expires() time.Time {
	if c.token != nil {
		return c.token.Spec.ExpirationTimestamp.Time
	}
	return c.certificate.Spec.ExpirationTimestamp.Time
}

// sortCredentials puts tokens before certificates, and each by holder and age.
func sortCredentials(all []credential) {
	slices.SortFunc(all, func(a, b credential) int {
		return cmp.Or(cmp.Compare(b.resource(), a.resource()), cmp.Compare(a.holder(), b.holder()),
			a.meta().CreationTimestamp.Compare(b.meta().CreationTimestamp.Time), cmp.Compare(a.meta().Name, b.meta().Name))
	})
}

const (
	// credentialPage is how many records are read at once.
	credentialPage = 500
	// credentialTimeout is the deadline of each request.
	credentialTimeout = 30 * time.Second
	// revokersAtOnce is how many requests revoke at the same time.
	revokersAtOnce = 16
)

// credentialClient reads and revokes the credentials that a server has issued.
type credentialClient struct {
	api  rest.Interface
	host string
}

func newCredentialClient(c *connection, messages io.Writer) (client *credentialClient, namespace string, err error) {
	config, namespace, err := c.config(messages)
	if err != nil {
		return nil, "", err
	}
	scheme := runtime.NewScheme()
	if err := identity.AddToScheme(scheme); err != nil {
		return nil, "", err
	}
	config.APIPath, config.GroupVersion, config.Timeout = "/apis", &identity.SchemeGroupVersion, credentialTimeout
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	config.ContentType = runtime.ContentTypeJSON
	config.QPS = -1 // The server limits callers itself.
	api, err := rest.RESTClientFor(config)
	if err != nil {
		return nil, "", fmt.Errorf("connect to %s: %w", config.Host, err)
	}
	return &credentialClient{api: api, host: config.Host}, namespace, nil
}

// tokens returns the tokens of a namespace, or of all if namespace is empty.
func (c *credentialClient) tokens(ctx context.Context, namespace string, selector fields.Selector) ([]credential, error) {
	var all []credential
	err := c.pages(ctx, "issuedtokens", namespace, selector, func(result rest.Result) (string, error) {
		list := new(identity.IssuedTokenList)
		err := result.Into(list)
		for i := range list.Items {
			all = append(all, credential{token: &list.Items[i]})
		}
		return list.Continue, err
	})
	return all, err
}

func (c *credentialClient) certificates(ctx context.Context, selector fields.Selector) ([]credential, error) {
	var all []credential
	err := c.pages(ctx, "issuedcertificates", "", selector, func(result rest.Result) (string, error) {
		list := new(identity.IssuedCertificateList)
		err := result.Into(list)
		for i := range list.Items {
			all = append(all, credential{certificate: &list.Items[i]})
		}
		return list.Continue, err
	})
	return all, err
}

// pages calls add with each page of a list. add returns the position of the next page, or "" after the last one.
func (c *credentialClient) pages(ctx context.Context, resource, namespace string, selector fields.Selector, add func(rest.Result) (string, error)) error {
	for next := ""; ; {
		request := c.api.Get().NamespaceIfScoped(namespace, namespace != "").Resource(resource).Param("limit", fmt.Sprint(credentialPage))
		if !selector.Empty() {
			request.Param("fieldSelector", selector.String())
		}
		if next != "" {
			request.Param("continue", next)
		}
		var err error
		if next, err = add(request.Do(ctx)); err != nil {
			return c.explain(fmt.Errorf("list %s: %w", resource, err))
		}
		if next == "" {
			return nil
		}
	}
}

// explain adds a hint to an error of a server that does not serve the API.
func (c *credentialClient) explain(err error) error {
	if apierrors.IsNotFound(err) {
		return hint.New(fmt.Errorf("the server at %s keeps no record of the credentials that it issues", c.host),
			"use the command with a Lanyard of this version or a later one")
	}
	return err
}

// revoke ends a credential. With dryRun, the server only checks whether it would. gone is true if there was no record any more.
func (c *credentialClient) revoke(ctx context.Context, one credential, reason string, dryRun bool) (gone bool, err error) {
	object := one.meta()
	options := metav1.NewPreconditionDeleteOptions(string(object.UID))
	options.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "DeleteOptions"}
	if dryRun {
		options.DryRun = []string{metav1.DryRunAll}
	}
	request := c.api.Delete().NamespaceIfScoped(object.Namespace, object.Namespace != "").Resource(one.resource()).Name(object.Name)
	if reason != "" {
		request.Param("reason", reason)
	}
	err = request.Body(options).Do(ctx).Error()
	if apierrors.IsNotFound(err) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("revoke %s %s: %w", one.kind(), object.Name, err)
	}
	return false, nil
}

// revokeAll ends credentials, several at the same time. It goes on after errors, and returns the number of those that were revoked.
func (c *credentialClient) revokeAll(ctx context.Context, all []credential, reason string, dryRun bool) (int, error) {
	type outcome struct {
		gone bool
		err  error
	}
	outcomes := make([]outcome, len(all))
	var group errgroup.Group
	group.SetLimit(revokersAtOnce)
	for i := range all {
		group.Go(func() error {
			outcomes[i].gone, outcomes[i].err = c.revoke(ctx, all[i], reason, dryRun)
			return nil
		})
	}
	_ = group.Wait()
	revoked, errs := 0, []error(nil)
	for _, one := range outcomes {
		switch {
		case one.err != nil:
			errs = append(errs, one.err)
		case !one.gone:
			revoked++
		}
	}
	return revoked, errors.Join(errs...)
}
