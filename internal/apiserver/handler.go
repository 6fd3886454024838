package apiserver

import (
	"fmt"
	"net"
	"net/http"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	apiopenapi "k8s.io/apiserver/pkg/endpoints/openapi"
	"k8s.io/apiserver/pkg/registry/rest"
	genericserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/healthz"
	"k8s.io/apiserver/pkg/util/compatibility"
	restclient "k8s.io/client-go/rest"

	"lanyard.dev/internal/apiserver/api"
	"lanyard.dev/internal/apiserver/auditlog"
	"lanyard.dev/internal/apiserver/ephemeral"
	"lanyard.dev/internal/apiserver/issuance"
	"lanyard.dev/internal/apiserver/limits"
	"lanyard.dev/internal/apiserver/metrics"
	"lanyard.dev/internal/apiserver/nodeclient"
	"lanyard.dev/internal/apiserver/openapi"
	namespaceregistry "lanyard.dev/internal/apiserver/registry/namespace"
	"lanyard.dev/internal/apiserver/streams"
)

// handler is the library's server with the API installed.
type handler struct {
	server *genericserver.GenericAPIServer
	// calls is the API for the server's own controllers.
	calls http.Handler
	// stopping must be closed when the server begins to stop.
	stopping stopSignal

	// ephemeral answers the kinds that are never stored, before the library's REST handlers see a request.
	ephemeral *ephemeral.Handler
	// chain wraps a handler in the filters that every request from outside passes.
	chain func(api http.Handler) http.Handler
}

// handlerConfig holds what a handler is made from.
type handlerConfig struct {
	options   *Options
	keys      *keys
	tokens    *tokenKeys
	storage   *storage
	policy    policy
	identity  identity
	admission admission.Interface
	audit     *auditlog.Log // nil if auditing is off
	metrics   *metrics.Metrics
	streams   *streams.Registry
	// addDefaults puts the default objects into a new namespace.
	addDefaults namespaceregistry.AddDefaults
	ledger      *issuance.Journal
}

// shareFunc is called with the addresses of each request that shares its connection with other requests.
type shareFunc func(local net.Addr, remote string)

// newHandler serves the API.
func newHandler(c handlerConfig) (handler, error) {
	served, err := c.serve()
	if err != nil {
		return handler{}, err
	}
	answers, err := c.ephemeral(served.Ephemeral)
	if err != nil {
		return handler{}, err
	}
	library, share := c.library()
	before := func(api http.Handler) http.Handler {
		return answers.Before(&computedRequests{api: api, serializer: c.storage.codecs, served: served.Storage})
	}
	limiter, stopping := newRequestLimiter(library, c.storage.tables), make(stopSignal)
	open := streamFilters{registry: c.streams, sessions: c.storage.tables.Sessions(), stopping: stopping}
	chain := func(api http.Handler) http.Handler {
		return wrap(api, c.policy.authorizer, library, limiter, share, open)
	}
	library.BuildHandlerChainFunc = func(api http.Handler, _ *genericserver.Config) http.Handler { return chain(before(api)) }
	server, err := library.Complete(nil).New("lanyard", genericserver.NewEmptyDelegate())
	if err != nil {
		return handler{}, err
	}
	if err := c.install(server, served.Storage); err != nil {
		return handler{}, err
	}
	if err := c.installPaths(server); err != nil {
		return handler{}, err
	}
	calls := wrapCalls(before(server.Handler.Director), c.policy.authorizer, library)
	return handler{server: server, calls: calls, stopping: stopping, ephemeral: answers, chain: chain}, nil
}

// library returns the library's configuration, and the function that notes which connections are shared by several
// requests.
func (c *handlerConfig) library() (*genericserver.Config, shareFunc) {
	l := c.storage.library
	l.EffectiveVersion = kubernetesVersion{compatibility.DefaultBuildEffectiveVersion()}
	l.ExternalAddress = c.options.Listener.Addr().String()
	l.EnableProfiling = false
	l.ShutdownDelayDuration = c.options.ShutdownDelay
	l.LongRunningFunc = longRunning(c.storage.tables.Sessions())
	l.RequestInfoResolver = requestInfos{genericserver.NewRequestInfoResolver(&l)}
	// The library requires a configuration here and does not use it.
	l.LoopbackClientConfig = &restclient.Config{}

	l.Authentication.Authenticator, l.Authentication.APIAudiences = c.identity.requests, c.identity.audiences
	l.Authorization.Authorizer, l.RuleResolver = c.policy.authorizer, c.policy.authorizer
	l.AdmissionControl = c.admission
	if c.audit != nil {
		l.AuditBackend, l.AuditPolicyRuleEvaluator = c.audit.Backend, c.audit.Policy
		l.AddReadyzChecks(healthz.NamedCheck("audit-log", func(*http.Request) error { return c.audit.Healthy() }))
	}

	if signer := c.tokens.external; signer != nil {
		l.AddReadyzChecks(healthz.NamedCheck("external-signer", func(*http.Request) error { return signer.Healthy() }))
	}

	namer := apiopenapi.NewDefinitionNamer(c.storage.tables.NewPublishedScheme())
	l.OpenAPIConfig = genericserver.DefaultOpenAPIConfig(openapi.GetOpenAPIDefinitions, namer)
	l.OpenAPIConfig.Info.Title = "Lanyard"
	l.OpenAPIV3Config = genericserver.DefaultOpenAPIV3Config(openapi.GetOpenAPIDefinitions, namer)
	l.OpenAPIV3Config.Info.Title = "Lanyard"

	connections := limits.NewListener(c.options.Listener, limits.MaxConnections(), l.RequestTimeout+writeGrace)
	l.SecureServing = &genericserver.SecureServingInfo{Listener: connections, Cert: c.keys.serving, ClientCA: c.keys.clients}
	return &l, connections.Share
}

// serve returns the resources as they are served.
func (c *handlerConfig) serve() (api.Served, error) {
	nodes, err := nodeclient.New(c.options.Nodes, c.storage.stores.node, c.identity.evictions.Admits)
	if err != nil {
		return api.Served{}, err
	}
	return c.storage.stores.Serve(api.Backends{
		AddDefaults: c.addDefaults, Nodes: nodes, Authorizer: streams.Recorder{UnconditionalAuthorizer: c.policy.authorizer}, Rules: c.policy.authorizer,
		Tokens: c.identity.tokens, Audiences: c.identity.audiences, Issuing: c.identity.issuing, SigningKeys: c.tokens.served(),
		IssuedTokens: issuedTokens(c.ledger, c.identity.verifier), IssuedCertificates: issuedCertificates(c.ledger, c.identity.evictions),
	}), nil
}

// ephemeral returns the handler of the kinds that are never stored.
func (c *handlerConfig) ephemeral(kinds []api.EphemeralKind) (*ephemeral.Handler, error) {
	config := ephemeral.Config{Codecs: c.storage.codecs, Scheme: c.storage.scheme, Admission: c.admission, MaxBodyBytes: limits.SmallBody}
	var all []ephemeral.Kind
	for _, kind := range kinds {
		all = append(all, ephemeral.Kind{
			Resource: ephemeral.Resource{GroupVersionResource: kind.GroupVersionResource, Subresource: kind.Subresource},
			Kind:     kind.Kind, Storage: kind.Storage,
		})
	}
	return ephemeral.New(config, all)
}

// install serves every group. The kinds that are never stored are installed too, for discovery and OpenAPI.
func (c *handlerConfig) install(server *genericserver.GenericAPIServer, served map[schema.GroupVersion]map[string]rest.Storage) error {
	for _, group := range c.storage.tables {
		info := c.groupInfo(group, served)
		if len(info.VersionedResourcesStorageMap) == 0 {
			continue
		}
		install := server.InstallAPIGroup
		if group.Name == corev1.GroupName {
			install = func(core *genericserver.APIGroupInfo) error { return server.InstallLegacyAPIGroup("/api", core) }
		}
		if err := install(info); err != nil {
			return fmt.Errorf("serve group %q: %w", group.Name, err)
		}
	}
	return nil
}

// groupInfo describes a group with all its versions. The library sets up the path of a group only once.
func (c *handlerConfig) groupInfo(group api.Group, served map[schema.GroupVersion]map[string]rest.Storage) *genericserver.APIGroupInfo {
	s := c.storage
	info := genericserver.NewDefaultAPIGroupInfo(group.Name, s.scheme, runtime.NewParameterCodec(s.scheme), s.codecs)
	if !group.HasProtobuf() {
		info.NegotiatedSerializer = withoutProtobuf{s.codecs}
	}
	for _, version := range group.Versions {
		if resources := served[group.GroupVersion(version)]; len(resources) > 0 {
			info.VersionedResourcesStorageMap[version.Name] = resources
		}
	}
	return &info
}

// withoutProtobuf does not offer protobuf, for kinds that have no such form. A client that accepts other forms too gets one of those.
type withoutProtobuf struct{ runtime.NegotiatedSerializer }

// SupportedMediaTypes implements runtime.NegotiatedSerializer.
func (s withoutProtobuf) SupportedMediaTypes() []runtime.SerializerInfo {
	return slices.DeleteFunc(slices.Clone(s.NegotiatedSerializer.SupportedMediaTypes()), func(info runtime.SerializerInfo) bool {
		return info.MediaType == runtime.ContentTypeProtobuf
	})
}
