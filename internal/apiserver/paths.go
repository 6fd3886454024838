package apiserver

import (
	"cmp"
	"net/http"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apimachineryversion "k8s.io/apimachinery/pkg/version"
	"k8s.io/apiserver/pkg/endpoints/handlers/responsewriters"
	"k8s.io/apiserver/pkg/endpoints/request"
	genericserver "k8s.io/apiserver/pkg/server"
	basecompatibility "k8s.io/component-base/compatibility"
	"k8s.io/klog/v2"

	"lanyard.dev/internal/apiserver/issuance"
	"lanyard.dev/internal/apiserver/keyring"
	"lanyard.dev/internal/apiserver/metrics"
	"lanyard.dev/internal/version"
)

// installPaths serves the paths outside of the API's groups.
func (c *handlerConfig) installPaths(server *genericserver.GenericAPIServer) error {
	mux := server.Handler.NonGoRestfulMux
	mux.NotFoundHandler(notFound(c.storage.codecs))
	mux.HandleFunc(crdPath, noCRDs(errorHandler(http.StatusMethodNotAllowed, c.storage.codecs)))
	c.watchAges()
	// The library's /metrics has the metrics of the process, which may hold several authorities.
	mux.Unregister("/metrics")
	mux.Handle("/metrics", c.metrics.Handler())

	o := c.options.ServiceAccounts
	if !strings.HasPrefix(o.Issuers[0], "https://") {
		klog.InfoS("The issuer is not an https URL, so there is no discovery document", "issuer", o.Issuers[0])
		return nil
	}
	jwksURI := cmp.Or(o.JWKSURI, strings.TrimSuffix(o.Issuers[0], "/")+jwksPath)
	publisher, err := newPublisher(o.Issuers[0], jwksURI, c.tokens, c.tokens.maxAge)
	if err != nil {
		return err
	}
	publisher.install(mux)
	return nil
}

// watchAges publishes the ages of keys, certificates and feeds as metrics.
func (c *handlerConfig) watchAges() {
	o := c.options
	if c.keys.tokens != nil {
		c.metrics.WatchKeys(c.keys.tokens)
	}
	if c.tokens.ring != nil {
		c.metrics.WatchSigningKeys(c.tokens.metrics)
	}
	serving := metrics.Certificate{Name: "serving", Read: func() ([]byte, error) {
		chain, _ := c.keys.serving.CurrentCertKeyContent()
		return chain, nil
	}}
	all := []metrics.Certificate{serving}
	for name, path := range map[string]string{
		"client-ca": o.ClientCAFile, "signing-ca": o.Signing.CertFile, "kubelet-serving-signing-ca": o.Signing.ServingCertFile,
		"kubelet-client": o.Nodes.CertFile, "kubelet-serving-ca": o.Nodes.CAFile,
	} {
		if path != "" {
			all = append(all, metrics.CertificateFile(name, path))
		}
	}
	c.metrics.WatchCertificates(all)
	if c.storage.encryption != nil {
		c.metrics.WatchEncryption(c.storage.encryption.Stored)
	}
	if !o.Etcd.SoleWriter {
		feeds := map[string]metrics.ProofAge{}
		for _, resource := range c.storage.tables.Mirrored() {
			feeds[resource.String()] = c.storage.mirror.Feed(resource)
		}
		feeds[issuance.Resource.String()] = c.storage.mirror.Feed(issuance.Resource)
		if c.tokens.ring != nil {
			feeds[keyring.Resource.String()] = c.storage.mirror.Feed(keyring.Resource)
		}
		c.metrics.WatchFeeds(feeds)
	}
}

// notFound answers requests for paths that do not exist with a Status, as for an unknown resource of a served group.
// The library's handler would list the paths that exist, which only users who may read "/" should see.
func notFound(codecs runtime.NegotiatedSerializer) http.Handler {
	return errorHandler(http.StatusNotFound, codecs)
}

// errorHandler answers with the Status of an HTTP status code.
func errorHandler(code int, codecs runtime.NegotiatedSerializer) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := apierrors.NewGenericServerResponse(code, "", schema.GroupResource{}, "", "", 0, false)
		responsewriters.ErrorNegotiated(err, codecs, schema.GroupVersion{}, w, r)
	})
}

// crdPath lists custom resource definitions. Clients such as kubectl and Helm read it to find out whether a kind is a
// custom resource, if OpenAPI does not describe the kind or if the kind cannot be patched, as a review.
const crdPath = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"

// noCRDs answers a GET with an empty list. Without it, these clients would report the missing path in place of the
// problem with the kind.
func noCRDs(other http.Handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			other.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinitionList","metadata":{"resourceVersion":"1"},"items":[]}`))
	}
}

// requestInfos resolves crdPath as a path, like the paths of discovery, and not as a resource. Every user who may read discovery
// may read it.
type requestInfos struct {
	request.RequestInfoResolver
}

// NewRequestInfo implements request.RequestInfoResolver.
func (i requestInfos) NewRequestInfo(r *http.Request) (*request.RequestInfo, error) {
	if r.URL.Path == crdPath {
		return &request.RequestInfo{Path: crdPath, Verb: strings.ToLower(r.Method)}, nil
	}
	return i.RequestInfoResolver.NewRequestInfo(r)
}

// kubernetesVersion answers /version with the version of the Kubernetes API and the build of this program. The library knows only
// the version that the linker sets.
type kubernetesVersion struct {
	basecompatibility.EffectiveVersion
}

// Info implements basecompatibility.EffectiveVersion.
func (v kubernetesVersion) Info() *apimachineryversion.Info {
	info, build := *v.EffectiveVersion.Info(), version.Current()
	info.Major, info.Minor = build.MajorMinor()
	info.GitVersion = build.Kubernetes + "+lanyard"
	info.GitCommit, info.GitTreeState, info.BuildDate = build.Commit, build.TreeState, build.CommitDate
	return &info
}
