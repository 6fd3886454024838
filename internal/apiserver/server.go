package apiserver

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	genericserver "k8s.io/apiserver/pkg/server"
	"k8s.io/klog/v2"

	"lanyard.dev/internal/apiserver/admission/podsecurity"
	"lanyard.dev/internal/apiserver/anchor"
	"lanyard.dev/internal/apiserver/api"
	"lanyard.dev/internal/apiserver/auditlog"
	"lanyard.dev/internal/apiserver/authn/oidc"
	"lanyard.dev/internal/apiserver/authz"
	"lanyard.dev/internal/apiserver/ephemeral"
	"lanyard.dev/internal/apiserver/limits"
	"lanyard.dev/internal/apiserver/members"
	"lanyard.dev/internal/apiserver/metrics"
	"lanyard.dev/internal/apiserver/mirror"
	"lanyard.dev/internal/apiserver/nodeclient"
	"lanyard.dev/internal/apiserver/scheme"
	"lanyard.dev/internal/controller/accountsecrets"
	"lanyard.dev/internal/controller/aggregation"
	"lanyard.dev/internal/controller/certificates"
	"lanyard.dev/internal/controller/namespace"
	"lanyard.dev/internal/controller/namespacedefaults"
	"lanyard.dev/internal/controller/nodeapproval"
	"lanyard.dev/internal/controller/tokencleaner"
	"lanyard.dev/internal/deadline"
	"lanyard.dev/internal/nodeaccess"
	"lanyard.dev/internal/rbac"
	"lanyard.dev/internal/signingkey"
	"lanyard.dev/internal/token"
)

const (
	// drainTimeout bounds how long a server that was told to stop waits for requests under way.
	drainTimeout = 3 * time.Second
	// closeTimeout bounds what comes after the drain: the audit log is flushed and the connections to etcd are closed.
	closeTimeout = 2 * time.Second
	// startTimeout bounds how long the first reading of storage may take.
	startTimeout = time.Minute
)

// Server is an authority that is ready to run.
type Server struct {
	assembly
	ready chan struct{}
}

// assembly is a server while it is put together: each step fills in what later ones need.
type assembly struct {
	options Options
	tables  api.Tables
	scheme  *runtime.Scheme
	codecs  serializer.CodecFactory
	config  *genericserver.Config
	server  *genericserver.GenericAPIServer

	connections *limits.Listener

	members *members.Members // nil where etcd has one member only
	mirror  *mirror.Mirror
	stores  *stores
	anchors anchor.Anchors // to verify by
	issuing anchor.Anchors // to issue by
	index   *rbac.Index
	// evictions tells which certificates of nodes do not count any more.
	evictions *nodeaccess.Evictions

	keys        *signingkey.Set
	issuer      *token.Issuer
	tokens      authenticator.Token
	people      *oidc.Authenticator        // nil without an authentication configuration
	podSecurity *podsecurity.Configuration // for namespaces that choose nothing
	authorizer  *authz.Union
	audit       *auditlog.Log
	metrics     *metrics.Metrics
	nodes       *nodeclient.Client // connects to none if nothing is configured

	stopping   stopSignal
	ephemeral  *ephemeral.Handler
	furnisher  *namespacedefaults.Controller
	terminator *namespace.Controller
	aggregator *aggregation.Controller
	// accountSecrets removes the Secrets that never got a token, with their accounts.
	accountSecrets *accountsecrets.Controller
	cleaner        *tokencleaner.Controller
	approver       *nodeapproval.Controller
	signer         *certificates.Controller
	workloads      *workloads
	ca             certificates.CA // nil if nothing is signed
}

// New puts a server together and connects it to etcd. Nothing is served before Run.
func New(o Options) (*Server, error) { return newServer(o, api.All()) }

func newServer(o Options, tables api.Tables) (*Server, error) {
	if faults := o.Validate(); len(faults) > 0 {
		return nil, faults.ToAggregate()
	}
	s := &Server{assembly: assembly{options: o, tables: tables, scheme: tables.NewScheme(), metrics: metrics.New(), stopping: make(stopSignal)}, ready: make(chan struct{})}
	s.codecs = scheme.NewCodecs(s.scheme)
	steps := []func() error{s.checkKeyFiles, s.loadKeys, s.loadCA, s.loadIssuers, s.loadPodSecurity, s.configure, s.openAudit, s.openStores, s.connectNodes, s.watchWorkloads, s.watchAnchors, s.watchPolicy, s.identify, s.build}
	for _, step := range steps {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Ready is closed when the server answers requests.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// EarliestOf is the earliest NotBefore with which a certificate of a node counts; zero if any does. It is known once the
// server is ready.
func (s *Server) EarliestOf(node string) (time.Time, error) { return s.evictions.Earliest(node) }

// Run serves until ctx ends, then drains. It returns nil after an orderly end, and StopTimeout after ctx's end at the
// latest.
func (s *Server) Run(ctx context.Context) error {
	defer s.closeAudit()
	// What the requests under way need outlives ctx until they are done.
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	if s.members != nil {
		go s.members.Run(background)
	}
	go s.mirror.Run(background)
	if err := s.prepare(ctx); err != nil {
		_ = deadline.Run(closeTimeout, "close the storage", func() error { s.server.Destroy(); return nil })
		return err
	}
	defer context.AfterFunc(ctx, func() {
		time.Sleep(s.options.ShutdownDelay)
		close(s.stopping)
	})()
	go s.furnisher.Run(background)
	go s.terminator.Run(background)
	go s.aggregator.Run(background)
	go s.accountSecrets.Run(background)
	go s.cleaner.Run(background)
	go s.approver.Run(background)
	go s.signer.Run(background)
	s.workloads.run(background)
	if s.people != nil {
		go s.people.Run(background)
	}

	prepared := s.server.PrepareRun()
	s.server.ShutdownTimeout = drainTimeout
	go s.announce(ctx)
	if err := s.serve(ctx, prepared.RunWithContext); err != nil {
		return fmt.Errorf("serve on %s: %w", s.options.Listener.Addr(), err)
	}
	return nil
}

// StopTimeout bounds how long Run goes on after its context has ended.
func (s *Server) StopTimeout() time.Duration { return s.drainLimit() + closeTimeout + time.Second }

// drainLimit is how long the library's server may take to stop.
func (s *Server) drainLimit() time.Duration {
	return s.server.ShutdownDelayDuration + drainTimeout + closeTimeout
}

// serve runs the library's server. Once told to stop, it waits for requests under way and for the audit log without a
// limit. Requests that wait for a store that hangs are cut off instead.
func (s *Server) serve(ctx context.Context, run func(context.Context) error) error {
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	err := deadline.Run(s.drainLimit(), "finish requests under way", func() error { return <-ended })
	if errors.Is(err, deadline.ErrExceeded) {
		klog.ErrorS(err, "Requests under way are cut off")
		return nil
	}
	return err
}

func (s *Server) closeAudit() {
	if err := deadline.Run(closeTimeout, "close the audit log", s.audit.Close); err != nil {
		klog.ErrorS(err, "The audit log may lack its last events")
	}
}

// prepare reads what is stored and adds what every authority has.
func (s *Server) prepare(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, errors.New("etcd did not answer in time"))
	defer cancel()
	if err := s.mirror.WaitSynced(ctx); err != nil {
		return err
	}
	return s.bootstrap(ctx)
}

// announce closes ready once the server's own readiness check holds.
func (s *Server) announce(ctx context.Context) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "/readyz", nil)
	if err != nil {
		klog.ErrorS(err, "Could not make the readiness request")
		return
	}
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		answer := &statusOnly{}
		s.server.Handler.Director.ServeHTTP(answer, request)
		if answer.status == http.StatusOK {
			close(s.ready)
			s.metrics.Prime()
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// statusOnly is a response writer that keeps the status and drops the rest.
type statusOnly struct {
	status int
	header http.Header
}

func (w *statusOnly) Header() http.Header {
	if w.header == nil {
		w.header = http.Header{}
	}
	return w.header
}

func (w *statusOnly) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return len(p), nil
}

func (w *statusOnly) WriteHeader(status int) { w.status = status }
