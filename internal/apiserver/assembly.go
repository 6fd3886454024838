package apiserver

import (
	"cmp"
	"context"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	apiserverconfig "k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/authentication/group"
	"k8s.io/apiserver/pkg/authentication/token/union"
	"k8s.io/apiserver/pkg/authentication/user"
	apiopenapi "k8s.io/apiserver/pkg/endpoints/openapi"
	"k8s.io/apiserver/pkg/endpoints/request"
	genericserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/apiserver/pkg/server/healthz"
	"k8s.io/apiserver/pkg/util/compatibility"
	restclient "k8s.io/client-go/rest"
	certutil "k8s.io/client-go/util/cert"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"lanyard.dev/internal/apiserver/admission"
	certificateadmission "lanyard.dev/internal/apiserver/admission/certificates"
	"lanyard.dev/internal/apiserver/admission/escalation"
	"lanyard.dev/internal/apiserver/admission/noderestriction"
	"lanyard.dev/internal/apiserver/admission/onrenew"
	"lanyard.dev/internal/apiserver/admission/podsecurity"
	"lanyard.dev/internal/apiserver/anchor"
	"lanyard.dev/internal/apiserver/auditlog"
	"lanyard.dev/internal/apiserver/authn"
	"lanyard.dev/internal/apiserver/authn/oidc"
	"lanyard.dev/internal/apiserver/authz"
	"lanyard.dev/internal/apiserver/issuer"
	"lanyard.dev/internal/apiserver/limits"
	"lanyard.dev/internal/apiserver/metrics"
	"lanyard.dev/internal/apiserver/mirror"
	"lanyard.dev/internal/apiserver/nodeclient"
	"lanyard.dev/internal/apiserver/openapi"
	"lanyard.dev/internal/apiserver/registry"
	"lanyard.dev/internal/bootstraptoken"
	"lanyard.dev/internal/controller/accountsecrets"
	"lanyard.dev/internal/controller/aggregation"
	"lanyard.dev/internal/controller/certificates"
	"lanyard.dev/internal/controller/namespace"
	"lanyard.dev/internal/controller/namespacedefaults"
	"lanyard.dev/internal/controller/nodeapproval"
	"lanyard.dev/internal/controller/tokencleaner"
	"lanyard.dev/internal/files"
	"lanyard.dev/internal/nodeaccess"
	"lanyard.dev/internal/pki"
	"lanyard.dev/internal/rbac"
	"lanyard.dev/internal/rbac/bootstrap"
	"lanyard.dev/internal/signingkey"
	"lanyard.dev/internal/token"
)

// checkKeyFiles refuses keys that another user may have replaced, and warns of those that any user may read.
func (a *assembly) checkKeyFiles() error {
	keys := a.options.keyFiles()
	for _, file := range files.WorldReadable(keys...) {
		klog.ErrorS(nil, "Every user of this machine may read a key file: run chmod o-r", "file", file)
	}
	return files.CheckUnwritable(keys...)
}

// loadKeys reads the signing key and the keys accepted besides.
func (a *assembly) loadKeys() error {
	o := a.options.ServiceAccounts
	signer, err := signingkey.LoadPrivate(o.SigningKeyFile)
	if err != nil {
		return err
	}
	files := []metrics.KeyFile{{Path: o.SigningKeyFile, IDs: []string{signer.ID()}}}
	var accepted []signingkey.PublicKey
	for _, path := range o.KeyFiles {
		keys, err := signingkey.LoadPublic(path)
		if err != nil {
			return err
		}
		accepted = append(accepted, keys...)
		file := metrics.KeyFile{Path: path}
		for _, key := range keys {
			file.IDs = append(file.IDs, key.ID())
		}
		files = append(files, file)
	}
	a.metrics.WatchKeys(files)
	if a.keys, err = signingkey.NewSet(signer, accepted...); err != nil {
		return err
	}
	a.issuer, err = token.NewIssuer(o.Issuers[0], a.keys, clock.RealClock{})
	return err
}

func (a *assembly) lifetimes() token.LifetimePolicy {
	o := a.options.ServiceAccounts
	return token.LifetimePolicy{Min: o.MinTokenExpiration, Max: o.MaxTokenExpiration}
}

// configure makes the library's configuration: how to serve, in which forms, described how.
func (a *assembly) configure() error {
	c := genericserver.NewConfig(a.codecs)
	c.EffectiveVersion = kubernetesVersion{compatibility.DefaultBuildEffectiveVersion()}
	c.ExternalAddress = a.options.Listener.Addr().String()
	c.EnableProfiling = false
	c.ShutdownDelayDuration = a.options.ShutdownDelay
	c.BuildHandlerChainFunc = a.buildChain
	c.LongRunningFunc = longRunning
	c.RequestInfoResolver = requestInfos{genericserver.NewRequestInfoResolver(c)}
	// The configuration must hold one, and nothing uses it: this server talks to its stores, not to itself.
	c.LoopbackClientConfig = &restclient.Config{}

	namer := apiopenapi.NewDefinitionNamer(a.tables.NewPublishedScheme())
	c.OpenAPIConfig = genericserver.DefaultOpenAPIConfig(openapi.GetOpenAPIDefinitions, namer)
	c.OpenAPIConfig.Info.Title = "Lanyard"
	c.OpenAPIV3Config = genericserver.DefaultOpenAPIV3Config(openapi.GetOpenAPIDefinitions, namer)
	c.OpenAPIV3Config.Info.Title = "Lanyard"

	a.config = c
	return a.secure()
}

// secure sets up TLS. The files are read again when they change.
func (a *assembly) secure() error {
	o := &a.options
	serving, err := dynamiccertificates.NewDynamicServingContentFromFiles("serving-cert", o.TLSCertFile, o.TLSPrivateKeyFile)
	if err != nil {
		return fmt.Errorf("serving certificate %s with key %s: %w", o.TLSCertFile, o.TLSPrivateKeyFile, err)
	}
	a.connections = limits.NewListener(o.Listener, limits.MaxConnections(), a.config.RequestTimeout+writeGrace)
	a.config.SecureServing = &genericserver.SecureServingInfo{Listener: a.connections, Cert: serving}
	if o.ClientCAFile == "" {
		return nil
	}
	clients, err := dynamiccertificates.NewDynamicCAContentFromFile("client-ca-bundle", o.ClientCAFile)
	if err != nil {
		return fmt.Errorf("client CA: %w", err)
	}
	return a.config.Authentication.ApplyClientCert(clients, a.config.SecureServing)
}

func (a *assembly) openAudit() (err error) {
	if a.audit, err = auditlog.Open(a.options.Audit); err != nil || a.audit == nil {
		return err
	}
	a.config.AuditBackend, a.config.AuditPolicyRuleEvaluator = a.audit.Backend, a.audit.Policy
	a.config.AddReadyzChecks(healthz.NamedCheck("audit-log", func(*http.Request) error { return a.audit.Healthy() }))
	return nil
}

// openStores connects to etcd and starts what keeps promises about its content.
func (a *assembly) openStores() (err error) {
	rootCA, err := publicCA(a.options.RootCAFile)
	if err != nil {
		return fmt.Errorf("root CA: %w", err)
	}
	// What nodes serve with is verified by what this server trusts nodes by, or else by what it signs their certificates with.
	nodesCA, err := publicCA(cmp.Or(a.options.Nodes.CAFile, a.options.Signing.ServingCertFile, a.options.Signing.CertFile))
	if err != nil {
		return fmt.Errorf("CA of nodes: %w", err)
	}
	if a.members, err = newMembers(&a.options.Etcd); err != nil {
		return err
	}
	if a.mirror, err = newMirror(&a.options, a.members, a.config, a.tables, a.scheme, a.codecs); err != nil {
		return err
	}
	a.config.RESTOptionsGetter = a.mirror
	a.config.AddReadyzChecks(healthz.NamedCheck("storage-watch", func(*http.Request) error { return a.mirror.Fresh() }))
	furnishNamespace := func(ctx context.Context, name string) error { return a.furnisher.Namespace(ctx, name) }
	if a.stores, err = newStores(a.tables, a.storeInputs(furnishNamespace)); err != nil {
		return err
	}
	a.evictions = nodeaccess.NewEvictions(a.feed("secrets"))
	a.feed("secrets").Listen(a.evictions)
	a.accountSecrets = accountsecrets.New(a.stores.secrets, a.stores.serviceAccounts)
	a.feed("secrets").Listen(a.accountSecrets.Secrets())
	a.feed("serviceaccounts").Listen(a.accountSecrets.Accounts())
	a.furnisher = namespacedefaults.New(a.stores.namespaces.Namespace, a.stores.serviceAccounts, a.stores.configMaps, rootCA, nodesCA)
	a.feed("serviceaccounts").Listen(a.furnisher.Accounts())
	a.feed("configmaps").Listen(a.furnisher.ConfigMaps())
	a.feed("configmaps").Listen(a.furnisher.NodesCA())
	a.feed("namespaces").Listen(a.furnisher.Namespaces())

	contents := map[schema.GroupResource]namespace.Content{}
	for resource, store := range a.stores.Namespaced() {
		contents[resource] = store
	}
	a.terminator = namespace.New(a.stores.namespaces.Namespace, a.stores.namespaces.Finalize, a.stores.namespaces.Status, contents)
	a.feed("namespaces").Listen(a.terminator)

	a.aggregator = aggregation.New(a.stores.clusterRoles)
	a.mirror.Feed(rbacv1.Resource("clusterroles")).Listen(a.aggregator)
	requests := a.stores.requests
	a.signer = certificates.New(requests.Request, requests.Status, a.ca, a.evictions, a.options.Signing.Duration, clock.RealClock{})
	a.mirror.Feed(certificateRequests).Listen(a.signer)
	return nil
}

// publicCA returns the certificates of a file, for everybody to read, and nothing for no file. A private key that is in the same
// file is left out.
func publicCA(file string) ([]byte, error) {
	if file == "" {
		return nil, nil
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	certificates, err := certutil.ParseCertsPEM(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return certutil.EncodeCertificates(certificates...)
}

// signs tells whether this server signs certificates for a signer.
func (a *assembly) signs(signerName string) bool {
	return a.ca != nil && certificates.Signs(signerName)
}

// loadCA sets up the CA that signs certificate requests, if there is one. It is read for each certificate, so that a new
// one counts without a restart; it is read once here, so that a bad one is known at once.
func (a *assembly) loadCA() error {
	o := a.options.Signing
	if o.CertFile == "" {
		return nil
	}
	a.ca = func(signerName string) (*pki.Signer, error) {
		if signerName == certificatesv1.KubeletServingSignerName && o.ServingCertFile != "" {
			return pki.LoadSigner(o.ServingCertFile, o.ServingKeyFile)
		}
		return pki.LoadSigner(o.CertFile, o.KeyFile)
	}
	for _, signerName := range []string{certificatesv1.KubeAPIServerClientSignerName, certificatesv1.KubeletServingSignerName} {
		if _, err := a.ca(signerName); err != nil {
			return err
		}
	}
	return nil
}

// loadIssuers reads which other issuers vouch for people, if any do.
func (a *assembly) loadIssuers() (err error) {
	file, o := a.options.AuthenticationConfig, a.options.ServiceAccounts
	if file == "" {
		return nil
	}
	a.people, err = oidc.Open(oidc.Config{File: file, Issuers: o.Issuers, Audiences: o.audiences(), Clock: clock.RealClock{}})
	return err
}

// loadPodSecurity reads what pods are held to in namespaces that do not say it.
func (a *assembly) loadPodSecurity() (err error) {
	a.podSecurity, err = podsecurity.ReadConfiguration(a.options.AdmissionConfig)
	return err
}

func (a *assembly) feed(coreResource string) *mirror.Feed {
	return a.mirror.Feed(corev1.Resource(coreResource))
}

// connectNodes sets up the way to the agents of nodes.
func (a *assembly) connectNodes() (err error) {
	a.nodes, err = nodeclient.New(a.options.Nodes, a.findNode, a.evictions.Admits)
	return err
}

// watchAnchors remembers the objects that tokens hang on.
func (a *assembly) watchAnchors() error {
	remember := func(resource string, store *registry.Store) *anchor.Index {
		var read anchor.Read
		if !a.options.Etcd.SoleWriter {
			read = readFrom(store)
		}
		index := anchor.NewIndex(a.feed(resource), read)
		a.feed(resource).Listen(index)
		return index
	}
	accounts, pods := remember("serviceaccounts", a.stores.serviceAccounts), remember("pods", a.stores.pods.Pod)
	secrets, nodes := remember("secrets", a.stores.secrets), remember("nodes", a.stores.nodes)
	a.anchors = anchor.Remembered(accounts, pods, secrets, nodes)
	a.issuing = anchor.Stored(accounts, pods, secrets, nodes)
	return nil
}

// readFrom asks storage itself, past every cache.
func readFrom(store *registry.Store) anchor.Read {
	return func(ctx context.Context, name types.NamespacedName) (runtime.Object, bool, error) {
		obj, err := store.Get(request.WithNamespace(ctx, name.Namespace), name.Name, &metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil, false, nil
		}
		return obj, err == nil, err
	}
}

// watchPolicy keeps true what decisions are made by, and makes the authorizer.
func (a *assembly) watchPolicy() error {
	a.index = rbac.NewIndex()
	var sources []authz.Source
	for resource, kind := range map[string]rbac.Kind{
		"roles": rbac.Role, "rolebindings": rbac.RoleBinding, "clusterroles": rbac.ClusterRole, "clusterrolebindings": rbac.ClusterRoleBinding,
	} {
		feed := a.mirror.Feed(rbacv1.Resource(resource))
		feed.Listen(authz.NewPolicy(a.index, kind))
		sources = append(sources, feed)
	}
	a.authorizer = authz.NewUnion(authz.NewNode(a.watchPods(), a.feed("pods")), authz.New(a.index, sources...))
	a.config.Authorization.Authorizer = a.authorizer
	a.config.RuleResolver = a.authorizer
	return nil
}

// watchPods keeps true what belongs to which node.
func (a *assembly) watchPods() *nodeaccess.Rules {
	pods := a.feed("pods")
	graph := nodeaccess.NewGraph(pods)
	pods.Listen(graph)
	return nodeaccess.NewRules(graph, bootstrap.NodeRules())
}

// identify sets up who is who, and what happens to what they send.
func (a *assembly) identify() error {
	o := a.options.ServiceAccounts
	config := token.VerifierConfig{Issuers: o.Issuers, Keys: a.keys, Anchors: a.anchors, Clock: clock.RealClock{}}
	if !a.options.Etcd.SoleWriter {
		config.Stored = a.issuing
	}
	verifier, err := token.NewVerifier(config)
	if err != nil {
		return err
	}
	a.tokens = authn.NewTokens(authn.NewToken(a.metrics.CountVerifications(verifier), o.audiences()), a.watchBootstrapTokens(), o.audiences())
	var anonymous *apiserverconfig.AnonymousAuthConfig
	if a.people != nil {
		anonymous = a.people.Anonymous()
		// As with every other token, a review shows the groups that a request with it is decided by.
		a.tokens = union.New(a.tokens, group.NewTokenGroupAdder(a.people, []string{user.AllAuthenticated}))
	}
	var clients authn.ClientCA
	if ca := a.config.SecureServing.ClientCA; ca != nil {
		clients = func() (x509.VerifyOptions, bool) { return ca.VerifyOptions() }
	}
	a.config.Authentication.Authenticator = authn.NewRequest(authn.RequestConfig{
		Tokens: a.tokens, CA: clients, Nodes: a.evictions, Anonymous: anonymous, Guard: authn.NewGuard(clock.RealClock{}),
	})
	a.config.Authentication.APIAudiences = o.audiences()
	nodes := noderestriction.Config{
		Pod: a.findPod, Node: a.findNode, Authorizer: a.authorizer, Admits: a.evictions.AdmitsUser, Audiences: o.audiences(),
	}
	grants := escalation.New(a.index, a.authorizer, a.findRules)
	pods, err := podsecurity.New(podsecurity.Config{Namespace: a.findNamespace, Pods: a.listPods, Defaults: a.podSecurity})
	if err != nil {
		return err
	}
	a.config.AdmissionControl = admission.New(a.findNamespace, a.findAccount, nodes, pods, onrenew.New(a.authorizer), grants, certificateadmission.New(a.authorizer, a.evictions.AdmitsUser))
	a.approver = nodeapproval.New(a.stores.requests.Request, a.stores.requests.Approval, a.authorizer, a.servesAs, a.evictions.AdmitsUser, clock.RealClock{})
	a.mirror.Feed(certificateRequests).Listen(a.approver)
	return nil
}

// servesAs tells whether clients take a server with a node's certificate for this one, by name. What cannot be told is
// answered yes.
func (a *assembly) servesAs(name string) bool {
	if a.options.Signing.ServingCertFile != "" {
		return false // clients do not trust that CA
	}
	text, _ := a.config.SecureServing.Cert.CurrentCertKeyContent()
	chain, err := pki.ParseChain(text)
	return err != nil || chain[0].VerifyHostname(name) == nil
}

// watchBootstrapTokens remembers the tokens that nodes join with, and has them removed once they have expired.
func (a *assembly) watchBootstrapTokens() *bootstraptoken.Memory {
	secrets := a.feed("secrets")
	memory := bootstraptoken.NewMemory(secrets, clock.RealClock{})
	a.cleaner = tokencleaner.New(a.stores.secrets, clock.RealClock{})
	secrets.Listen(memory)
	secrets.Listen(a.cleaner)
	return memory
}

// build makes the library's server and installs everything on it.
func (a *assembly) build() error {
	completed := a.config.Complete(nil)
	server, err := completed.New("lanyard", genericserver.NewEmptyDelegate())
	if err != nil {
		return err
	}
	a.server = server
	if err := a.install(); err != nil {
		return err
	}
	mux := a.server.Handler.NonGoRestfulMux
	mux.NotFoundHandler(notFound(a.codecs))
	mux.HandleFunc(crdPath, noCRDs(refusal(http.StatusMethodNotAllowed, a.codecs)))
	a.serveMetrics()
	return a.publish()
}

// serveMetrics puts the metrics of this authority in the place of the library's, which are those of the process.
func (a *assembly) serveMetrics() {
	o := a.options
	serving := metrics.Certificate{Name: "serving", Read: func() ([]byte, error) {
		chain, _ := a.config.SecureServing.Cert.CurrentCertKeyContent()
		return chain, nil
	}}
	certificates := []metrics.Certificate{serving}
	for name, path := range map[string]string{
		"client-ca": o.ClientCAFile, "signing-ca": o.Signing.CertFile, "kubelet-serving-signing-ca": o.Signing.ServingCertFile,
		"kubelet-client": o.Nodes.CertFile, "kubelet-serving-ca": o.Nodes.CAFile,
	} {
		if path != "" {
			certificates = append(certificates, metrics.CertificateFile(name, path))
		}
	}
	a.metrics.WatchCertificates(certificates)
	if !a.options.Etcd.SoleWriter {
		feeds := map[string]metrics.ProofAge{}
		for _, resource := range a.tables.Mirrored() {
			feeds[resource.String()] = a.mirror.Feed(resource)
		}
		a.metrics.WatchFeeds(feeds)
	}
	mux := a.server.Handler.NonGoRestfulMux
	mux.Unregister("/metrics")
	mux.Handle("/metrics", a.metrics.Handler())
}

// publish serves the discovery document, unless the issuer is no URL under which anyone could look for it.
func (a *assembly) publish() error {
	o := a.options.ServiceAccounts
	if !strings.HasPrefix(o.Issuers[0], "https://") {
		klog.InfoS("The issuer is not an https URL, so there is no discovery document", "issuer", o.Issuers[0])
		return nil
	}
	jwksURI := cmp.Or(o.JWKSURI, strings.TrimSuffix(o.Issuers[0], "/")+issuer.JWKSPath)
	publisher, err := issuer.New(o.Issuers[0], jwksURI, a.keys)
	if err != nil {
		return err
	}
	publisher.Install(a.server.Handler.NonGoRestfulMux)
	return nil
}
