// Package metrics has the metrics of an authority: tokens issued, verifications of tokens by result, watches and sessions that were
// ended, the age of the proof of each feed, and the ages of keys and certificates.
//
// Every authority has a registry of its own, because a process may have several. Handler adds the library's metrics, which
// belong to the process: requests, latencies, events and errors of the audit log, and etcd. No metric contains a token, the
// name of an account, or other text of a request.
package metrics

import (
	"context"
	"errors"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	compbasemetrics "k8s.io/component-base/metrics"
	"k8s.io/component-base/metrics/legacyregistry"
	"k8s.io/klog/v2"

	"lanyard.dev/internal/apiserver/streams"
	"lanyard.dev/internal/token"
)

// Metrics are the metrics of one authority.
type Metrics struct {
	registry      compbasemetrics.KubeRegistry
	issued        *compbasemetrics.Counter
	verifications map[string]compbasemetrics.CounterMetric // by result
	endedStreams  *compbasemetrics.CounterVec
}

// New returns the metrics, with every counter at 0.
func New() *Metrics {
	verifications := compbasemetrics.NewCounterVec(&compbasemetrics.CounterOpts{
		Name: "lanyard_token_verifications_total", StabilityLevel: compbasemetrics.ALPHA,
		Help: "Verifications of bearer tokens, by result: accepted, or the reason for the refusal. " +
			"foreign counts tokens that are not service account tokens of this issuer; other authenticators decide about them.",
	}, []string{"result"})
	m := &Metrics{
		registry: compbasemetrics.NewKubeRegistry(),
		endedStreams: compbasemetrics.NewCounterVec(&compbasemetrics.CounterOpts{
			Name: "lanyard_streams_ended_total", StabilityLevel: compbasemetrics.ALPHA,
			Help: "Open watches and sessions that this process ended, by reason: the credential of the caller is not accepted any more, " +
				"the caller has lost the rights, or it was unknown for too long whether it has them (undecided).",
		}, []string{"reason"}),
		issued: compbasemetrics.NewCounter(&compbasemetrics.CounterOpts{
			Name: "lanyard_tokens_issued_total", StabilityLevel: compbasemetrics.ALPHA,
			Help: "Service account tokens issued by this process.",
		}),
		verifications: map[string]compbasemetrics.CounterMetric{},
	}
	m.registry.MustRegister(m.issued, verifications, m.endedStreams)
	for _, result := range append([]string{accepted, other}, refusalNames()...) {
		m.verifications[result] = verifications.WithLabelValues(result)
	}
	for _, reason := range streams.Reasons() {
		m.endedStreams.WithLabelValues(string(reason))
	}
	return m
}

// CountEndedStreams counts open watches and sessions that were ended.
func (m *Metrics) CountEndedStreams(why streams.Reason, n int) {
	m.endedStreams.WithLabelValues(string(why)).Add(float64(n))
}

// Handler serves the metrics of the authority and of the process, in the format that the scraper accepts.
func (m *Metrics) Handler() http.Handler {
	return compbasemetrics.HandlerFor(m.gatherers(), compbasemetrics.HandlerOpts{ErrorHandling: compbasemetrics.ContinueOnError})
}

func (m *Metrics) gatherers() prometheus.Gatherers {
	return prometheus.Gatherers{legacyregistry.DefaultGatherer, m.registry}
}

// Prime collects all metrics once, while etcd is available. At the first collection the library connects to etcd for the
// size of the database. If etcd is unavailable then, that collection and all later ones take 20 seconds, longer than
// scrapers wait.
func (m *Metrics) Prime() {
	if _, err := m.gatherers().Gather(); err != nil {
		klog.V(2).InfoS("Could not collect the metrics for the first time", "err", err)
	}
}

// These are the results of a verification that are not in refusals.
const (
	accepted = "accepted"
	other    = "other"
)

// refusals has the result for each error of package token. The result of any other error is other.
var refusals = []struct {
	err  error
	name string
}{
	{token.ErrNotJWT, "foreign"},
	{token.ErrForeignIssuer, "foreign"},
	{token.ErrTooLarge, "too_large"},
	{token.ErrMalformed, "malformed"},
	{token.ErrAlgorithm, "algorithm"},
	{token.ErrUnknownKey, "unknown_key"},
	{token.ErrBadSignature, "bad_signature"},
	{token.ErrSubject, "subject"},
	{token.ErrExpired, "expired"},
	{token.ErrNotYetValid, "not_yet_valid"},
	{token.ErrAudience, "audience"},
	{token.ErrAccountGone, "account_gone"},
	{token.ErrPodGone, "pod_gone"},
	{token.ErrSecretGone, "secret_gone"},
	{token.ErrNodeGone, "node_gone"},
	{token.ErrUnrecorded, "unrecorded"},
	{token.ErrRevoked, "revoked"},
	{token.ErrAnchorsStale, "stale"},
	{token.ErrLedgerStale, "stale"},
}

func refusalNames() []string {
	var names []string
	for _, r := range refusals {
		names = append(names, r.name)
	}
	return names
}

// resultOf returns the result of a verification that ended with err.
func resultOf(err error) string {
	if err == nil {
		return accepted
	}
	for _, r := range refusals {
		if errors.Is(err, r.err) {
			return r.name
		}
	}
	return other
}

// Verifier verifies tokens. *token.Verifier implements it.
type Verifier interface {
	Verify(ctx context.Context, text string, audiences []string) (token.Identity, error)
}

// CountVerifications returns a verifier that counts the results of v.
func (m *Metrics) CountVerifications(v Verifier) Verifier { return countingVerifier{v, m} }

type countingVerifier struct {
	Verifier
	metrics *Metrics
}

// Verify implements Verifier.
func (v countingVerifier) Verify(ctx context.Context, text string, audiences []string) (token.Identity, error) {
	id, err := v.Verifier.Verify(ctx, text, audiences)
	v.metrics.verifications[resultOf(err)].Inc()
	return id, err
}

// Issuer issues tokens. *token.Issuer implements it.
type Issuer interface {
	Issue(context.Context, token.Request) (string, *token.Claims, error)
}

// CountIssued returns an issuer that counts the tokens of issuer.
func (m *Metrics) CountIssued(issuer Issuer) Issuer { return countingIssuer{issuer, m} }

type countingIssuer struct {
	Issuer
	metrics *Metrics
}

// Issue implements Issuer.
func (i countingIssuer) Issue(ctx context.Context, r token.Request) (string, *token.Claims, error) {
	text, claims, err := i.Issuer.Issue(ctx, r)
	if err == nil {
		i.metrics.issued.Inc()
	}
	return text, claims, err
}
