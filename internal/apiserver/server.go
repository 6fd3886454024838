package apiserver

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"k8s.io/klog/v2"

	"lanyard.dev/internal/apiserver/api"
	"lanyard.dev/internal/apiserver/auditlog"
	"lanyard.dev/internal/apiserver/authn/oidc"
	"lanyard.dev/internal/apiserver/encryption"
	"lanyard.dev/internal/apiserver/issuance"
	"lanyard.dev/internal/apiserver/loopback"
	"lanyard.dev/internal/apiserver/metrics"
	"lanyard.dev/internal/apiserver/registry/namespace"
	"lanyard.dev/internal/apiserver/streams"
	"lanyard.dev/internal/deadline"
)

const (
	// drainTimeout bounds how long a server that stops waits for requests under way.
	drainTimeout = 3 * time.Second
	// closeTimeout bounds the flush of the audit log and the closing of connections to etcd after the drain.
	closeTimeout = 2 * time.Second
	// writeUsesTimeout bounds the last write of when credentials were used.
	writeUsesTimeout = time.Second
	// closeCallsTimeout bounds the wait for calls of controllers before the audit log is closed.
	closeCallsTimeout = time.Second
	// startTimeout bounds the first reading of storage.
	startTimeout = time.Minute
)

// Server is an authority that is ready to run.
type Server struct {
	keys        keys
	tokens      tokenKeys
	storage     storage
	ledger      *issuance.Journal
	identity    identity
	controllers controllers
	handler     handler
	loopback    *loopback.Loopback  // by which controllers call the API
	issuers     *oidc.Authenticator // of users; nil without an authentication configuration
	audit       *auditlog.Log       // nil if auditing is off
	metrics     *metrics.Metrics
	streams     *streams.Registry
	addDefaults namespace.AddDefaults
	ready       chan struct{}
}

// New returns a server for the options. It reads the keys and the configuration files before it connects to etcd. Run
// starts serving. After an error everything is closed again, except for the listener, which the caller closes.
func New(o Options) (*Server, error) { return newServer(o, api.All()) }

// newServer builds the server from its parts. Each part is made from the parts that were made before it, and is not changed
// afterwards, with two exceptions: the parts made after storage add their listeners to the feeds, and the loopback is given its
// handler, since the handler calls a controller, which calls the API. If a part cannot be made, newServer closes the parts made
// before.
func newServer(o Options, tables api.Tables) (made *Server, err error) {
	if faults := o.Validate(); len(faults) > 0 {
		return nil, faults.ToAggregate()
	}
	var open closers
	defer func() {
		if made == nil {
			open.close()
		}
	}()
	keys, err := newKeys(&o)
	if err != nil {
		return nil, err
	}
	open.add(keys.close)
	configuration, err := newConfiguration(&o, tables)
	if err != nil {
		return nil, err
	}
	open.add(func() { _ = configuration.audit.Close() })
	storage, err := newStorage(&o, tables, keys.signs)
	if err != nil {
		return nil, err
	}
	open.add(storage.close)
	ledger, err := newLedger(&o, &storage)
	if err != nil {
		return nil, err
	}
	metrics := metrics.New()
	tokens, err := newTokenKeys(&o, &keys, &storage, ledger, metrics)
	if err != nil {
		return nil, err
	}
	open.add(tokens.close)
	policy := newPolicy(&storage)
	identity, err := newIdentity(&o, &keys, &tokens, configuration.issuers, &storage, ledger, metrics)
	if err != nil {
		return nil, err
	}
	streams := newStreams(&o, &storage, ledger, policy, identity, metrics)
	admission, err := newAdmission(&storage, policy, identity, configuration.podSecurity, o.Etcd.SoleWriter)
	if err != nil {
		return nil, err
	}
	loopback := loopback.New()
	clients, err := newClients(loopback)
	if err != nil {
		return nil, err
	}
	defaults := newNamespaceDefaults(&keys, &storage, clients)
	open.add(controllers{defaults}.close)
	handler, err := newHandler(handlerConfig{
		options: &o, keys: &keys, tokens: &tokens, storage: &storage, policy: policy, identity: identity, admission: admission,
		audit: configuration.audit, metrics: metrics, streams: streams, addDefaults: defaults.Ensure, ledger: ledger,
	})
	if err != nil {
		return nil, err
	}
	loopback.Serve(handler.calls)
	all := newControllers(&o, &keys, &storage, policy, identity, ledger, clients, defaults)
	all = append(all, newKeyController(&tokens, clients)...)
	return &Server{
		keys: keys, tokens: tokens, storage: storage, ledger: ledger, identity: identity, handler: handler,
		controllers: all, loopback: loopback,
		issuers: configuration.issuers, audit: configuration.audit, metrics: metrics, streams: streams,
		addDefaults: defaults.Ensure, ready: make(chan struct{}),
	}, nil
}

// closers are the functions that close the parts of a server that is being built.
type closers []func()

func (c *closers) add(one func()) { *c = append(*c, one) }

// close closes the parts, the latest one first.
func (c closers) close() {
	for _, one := range slices.Backward(c) {
		one()
	}
}

// Ready returns a channel that is closed when the server answers requests.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// EarliestOf returns the earliest NotBefore of a node's certificates that are still valid, or the zero time if all are.
// The server must be ready.
func (s *Server) EarliestOf(node string) (time.Time, error) {
	return s.identity.evictions.Earliest(node)
}

// Encryption returns the encryption of stored objects, or nil without an encryption configuration.
func (s *Server) Encryption() *encryption.Encryption { return s.storage.encryption }

// Run serves until ctx ends, then drains. It returns nil after an orderly end, and StopTimeout after ctx's end at the
// latest.
func (s *Server) Run(ctx context.Context) error {
	defer s.closeAudit()
	defer s.tokens.close()
	// The parts that requests under way depend on outlive ctx until these requests are done.
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	s.storage.run(background)
	go s.ledger.Run(background)
	defer s.storage.stopChecks()
	defer s.storage.closeUnserved.close()
	if err := s.prepare(ctx, background); err != nil {
		_ = deadline.Run(closeTimeout, "close what was prepared", func() error { s.closeUnserved(); return nil })
		return err
	}
	defer context.AfterFunc(ctx, func() {
		time.Sleep(s.handler.server.ShutdownDelayDuration)
		close(s.handler.stopping)
	})()
	go s.tokens.run(background)
	s.controllers.run(background)
	go s.streams.Run(background)
	if s.issuers != nil {
		go s.issuers.Run(background)
	}

	prepared := s.handler.server.PrepareRun()
	s.handler.server.ShutdownTimeout = drainTimeout
	go s.announce(ctx)
	err := s.serve(ctx, prepared.RunWithContext)
	s.writeUses(background)
	if err != nil {
		return fmt.Errorf("serve on %s: %w", s.handler.server.SecureServingInfo.Listener.Addr(), err)
	}
	return nil
}

// writeUses writes when credentials were last used.
func (s *Server) writeUses(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, writeUsesTimeout)
	defer cancel()
	if err := s.ledger.WriteUses(ctx); err != nil {
		klog.ErrorS(err, "The last uses of credentials within the last minute may be lost")
	}
}

// StopTimeout returns how long Run may go on after its context has ended.
func (s *Server) StopTimeout() time.Duration {
	return s.drainLimit() + writeUsesTimeout + closeCallsTimeout + closeTimeout + time.Second
}

// drainLimit returns how long the library's server may take to stop.
func (s *Server) drainLimit() time.Duration {
	return s.handler.server.ShutdownDelayDuration + drainTimeout + closeTimeout
}

// serve runs the library's server. That server, when it stops, waits for requests under way and for the audit log
// without a limit; serve cuts off requests that are still waiting for etcd after drainLimit.
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

// closeUnserved closes what the library's server closes after it has served, and ends the controllers, which did not run.
func (s *Server) closeUnserved() {
	_ = s.handler.server.SecureServingInfo.Listener.Close()
	s.controllers.close()
	s.handler.server.Destroy()
	s.keys.close()
}

func (s *Server) closeAudit() {
	// Calls of controllers that are still under way are audited too.
	err := deadline.Run(closeCallsTimeout, "end the calls of controllers", func() error { s.loopback.Stop(); return nil })
	if err != nil {
		klog.ErrorS(err, "The audit log may lack calls of controllers")
	}
	if err := deadline.Run(closeTimeout, "close the audit log", s.audit.Close); err != nil {
		klog.ErrorS(err, "The audit log may lack its last events")
	}
}

// prepare reads the stored objects and makes the default ones. What it begins in the background ends with that context.
func (s *Server) prepare(ctx, background context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, errors.New("etcd did not answer in time"))
	defer cancel()
	if err := s.storage.mirror.WaitSynced(ctx); err != nil {
		return err
	}
	s.ledger.Synced(background)
	if err := s.tokens.prepare(ctx); err != nil {
		return err
	}
	return writeDefaults(ctx, &s.storage, s.addDefaults)
}

// announce closes ready once the server's readiness check succeeds. The check of the audit log is left out: the calls of
// controllers at the start are audited, and a server whose audit log cannot be written still starts.
func (s *Server) announce(ctx context.Context) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "/readyz?exclude=audit-log", nil)
	if err != nil {
		klog.ErrorS(err, "Could not make the readiness request")
		return
	}
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		answer := &statusOnly{}
		s.handler.server.Handler.Director.ServeHTTP(answer, request)
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
