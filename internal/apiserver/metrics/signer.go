package metrics

import (
	"time"

	compbasemetrics "k8s.io/component-base/metrics"
)

// Signer are the metrics of calls to an external signer. Their names are those of kube-apiserver.
type Signer struct {
	signed, fetched *compbasemetrics.CounterVec
	duration        *compbasemetrics.HistogramVec
	at, data        *compbasemetrics.Gauge
}

// NewSigner adds the metrics of an external signer.
func (m *Metrics) NewSigner() *Signer {
	counter := func(name, help string) *compbasemetrics.CounterVec {
		return compbasemetrics.NewCounterVec(&compbasemetrics.CounterOpts{
			Name: "apiserver_externaljwt_" + name, Help: help, StabilityLevel: compbasemetrics.ALPHA,
		}, []string{"code"})
	}
	gauge := func(name, help string) *compbasemetrics.Gauge {
		return compbasemetrics.NewGauge(&compbasemetrics.GaugeOpts{
			Name: "apiserver_externaljwt_" + name, Help: help, StabilityLevel: compbasemetrics.ALPHA,
		})
	}
	s := &Signer{
		signed:  counter("sign_request_total", "Tokens that an external signer was asked to sign, by the code of the call; Refused counts answers that were not used."),
		fetched: counter("fetch_keys_request_total", "Attempts to fetch the keys of an external signer, by the code of the call; Refused counts answers that were not used."),
		duration: compbasemetrics.NewHistogramVec(&compbasemetrics.HistogramOpts{
			Name: "apiserver_externaljwt_request_duration_seconds", StabilityLevel: compbasemetrics.ALPHA,
			Help:    "Duration of calls to an external signer.",
			Buckets: []float64{.001, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{"method", "code"}),
		at:   gauge("fetch_keys_success_timestamp", "Unix time at which the keys of an external signer were last fetched, in seconds."),
		data: gauge("fetch_keys_data_timestamp", "Unix time at which an external signer read the keys that were last fetched, in seconds."),
	}
	m.registry.MustRegister(s.signed, s.fetched, s.duration, s.at, s.data)
	return s
}

// Refused is the code of a call whose answer was not used.
const Refused = "Refused"

// Called records a call that ended with a code of gRPC.
func (s *Signer) Called(method, code string, took time.Duration) {
	s.duration.WithLabelValues(method, code).Observe(took.Seconds())
}

// Signed records an attempt to sign a token.
func (s *Signer) Signed(code string) { s.signed.WithLabelValues(code).Inc() }

// Fetched records an attempt to fetch the keys. data is when the signer read them; it is zero if the attempt failed.
func (s *Signer) Fetched(code string, data time.Time) {
	s.fetched.WithLabelValues(code).Inc()
	if !data.IsZero() {
		s.at.Set(float64(time.Now().Unix()))
		s.data.Set(float64(data.UnixNano()) / 1e9)
	}
}
