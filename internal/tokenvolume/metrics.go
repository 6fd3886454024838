package tokenvolume

import compbasemetrics "k8s.io/component-base/metrics"

// metrics count nothing unless they are registered.
type metrics struct{ requests, renewals, reviews *compbasemetrics.CounterVec }

func newMetrics() *metrics {
	return &metrics{
		requests: compbasemetrics.NewCounterVec(&compbasemetrics.CounterOpts{
			Name: "lanyard_token_requests_total", StabilityLevel: compbasemetrics.ALPHA,
			Help: "Tokens that the agent requested from the authority, by reason (initial, renewal) and result (success, error).",
		}, []string{"reason", "result"}),
		renewals: compbasemetrics.NewCounterVec(&compbasemetrics.CounterOpts{
			Name: "lanyard_token_renewals_total", StabilityLevel: compbasemetrics.ALPHA,
			Help: "Renewals of pods' tokens, by result (success, error). Programs that read their token only once are refused some time after a success.",
		}, []string{"result"}),
		reviews: compbasemetrics.NewCounterVec(&compbasemetrics.CounterOpts{
			Name: "lanyard_token_reviews_total", StabilityLevel: compbasemetrics.ALPHA,
			Help: "Reviews of pods' tokens that the agent requested from the authority, by result (accepted, refused, error). Refused tokens are replaced at once.",
		}, []string{"result"}),
	}
}

func (m *metrics) requested(reason string, err error) {
	m.requests.WithLabelValues(reason, result(err)).Inc()
}

func (m *metrics) renewed(err error) { m.renewals.WithLabelValues(result(err)).Inc() }

func (m *metrics) reviewed(accepted bool, err error) {
	switch {
	case err != nil:
		m.reviews.WithLabelValues("error").Inc()
	case accepted:
		m.reviews.WithLabelValues("accepted").Inc()
	default:
		m.reviews.WithLabelValues("refused").Inc()
	}
}

func result(err error) string {
	if err != nil {
		return "error"
	}
	return "success"
}

func (t *Tokens) register(registry compbasemetrics.KubeRegistry) {
	registry.MustRegister(t.metrics.requests, t.metrics.renewals, t.metrics.reviews)
	registry.CustomMustRegister(&expiry{tokens: t, desc: compbasemetrics.NewDesc("lanyard_token_earliest_expiry_seconds",
		"Seconds until the first of the pods' tokens expires; below 0 if one has expired. Absent if there is no token.", nil, nil, compbasemetrics.ALPHA, "")})
}

// expiry computes the time until the first expiry at each collection.
type expiry struct {
	compbasemetrics.BaseStableCollector
	tokens *Tokens
	desc   *compbasemetrics.Desc
}

func (e *expiry) DescribeWithStability(ch chan<- *compbasemetrics.Desc) { ch <- e.desc }

func (e *expiry) CollectWithStability(ch chan<- compbasemetrics.Metric) {
	if left, ok := e.tokens.untilExpiry(); ok {
		ch <- compbasemetrics.NewLazyConstMetric(e.desc, compbasemetrics.GaugeValue, left.Seconds())
	}
}
