package metrics

import (
	"crypto/x509"
	"os"
	"time"

	compbasemetrics "k8s.io/component-base/metrics"
	"k8s.io/klog/v2"

	"lanyard.dev/internal/pki"
)

// gauges are values that are read when they are scraped: one metric, with a value for each label value.
type gauges struct {
	compbasemetrics.BaseStableCollector
	desc *compbasemetrics.Desc
	read func(set func(value float64, label string))
}

func (m *Metrics) addGauges(name, help, label string, read func(set func(value float64, label string))) {
	m.registry.CustomMustRegister(&gauges{
		desc: compbasemetrics.NewDesc(name, help, []string{label}, nil, compbasemetrics.ALPHA, ""), read: read,
	})
}

// DescribeWithStability implements StableCollector.
func (g *gauges) DescribeWithStability(ch chan<- *compbasemetrics.Desc) { ch <- g.desc }

// CollectWithStability implements StableCollector.
func (g *gauges) CollectWithStability(ch chan<- compbasemetrics.Metric) {
	g.read(func(value float64, label string) {
		ch <- compbasemetrics.NewLazyConstMetric(g.desc, compbasemetrics.GaugeValue, value, label)
	})
}

// ProofAge tells how long ago a feed was last known to be up to date.
type ProofAge interface {
	ProofAge() time.Duration
}

// WatchFeeds publishes the age of the last proof of each feed, by resource. Feeds that need no proof, because no other
// process writes, are left out by the caller.
func (m *Metrics) WatchFeeds(feeds map[string]ProofAge) {
	m.addGauges("lanyard_feed_proof_age_seconds",
		"Seconds since the feed of a resource was last proved to hold everything that was written. Tokens and decisions are refused once it is too old.",
		"resource", func(set func(float64, string)) {
			for resource, feed := range feeds {
				set(feed.ProofAge().Seconds(), resource)
			}
		})
}

// KeyFile is a file that holds keys of service account tokens.
type KeyFile struct {
	Path string
	// IDs are the key ids (kid) of the keys in the file.
	IDs []string
}

// WatchKeys publishes the age of each key, by key id: the time since its file was last written. The first file to name a
// key counts.
func (m *Metrics) WatchKeys(files []KeyFile) {
	m.addGauges("lanyard_service_account_key_age_seconds",
		"Seconds since the file of a key that signs or verifies service account tokens was last written.",
		"kid", func(set func(float64, string)) {
			seen := map[string]bool{}
			for _, file := range files {
				info, err := os.Stat(file.Path)
				if err != nil {
					klog.V(2).InfoS("Could not look at a key file for its age", "file", file.Path, "err", err)
					continue
				}
				for _, id := range file.IDs {
					if !seen[id] {
						seen[id] = true
						set(time.Since(info.ModTime()).Seconds(), id)
					}
				}
			}
		})
}

// Certificate is a certificate whose age is published. Read returns PEM as it is now.
type Certificate struct {
	Name string
	Read func() ([]byte, error)
}

// CertificateFile returns the certificate of a file.
func CertificateFile(name, path string) Certificate {
	return Certificate{Name: name, Read: func() ([]byte, error) { return os.ReadFile(path) }}
}

// WatchCertificates publishes the age and the remaining life of each certificate; of a bundle or a chain, those of the
// one that ends first. A certificate that cannot be read is left out.
func (m *Metrics) WatchCertificates(certificates []Certificate) {
	each := func(value func(*x509.Certificate) time.Duration) func(set func(float64, string)) {
		return func(set func(float64, string)) {
			for _, c := range certificates {
				if first, ok := c.first(); ok {
					set(value(first).Seconds(), c.Name)
				}
			}
		}
	}
	m.addGauges("lanyard_certificate_age_seconds", "Seconds since a certificate of the authority became valid.",
		"certificate", each(func(c *x509.Certificate) time.Duration { return time.Since(c.NotBefore) }))
	m.addGauges("lanyard_certificate_remaining_seconds",
		"Seconds until a certificate of the authority ends; below 0 if it has ended.",
		"certificate", each(func(c *x509.Certificate) time.Duration { return time.Until(c.NotAfter) }))
}

// first returns the certificate that ends first.
func (c Certificate) first() (*x509.Certificate, bool) {
	text, err := c.Read()
	if err != nil {
		klog.V(2).InfoS("Could not read a certificate for its age", "certificate", c.Name, "err", err)
		return nil, false
	}
	chain, err := pki.ParseChain(text)
	if err != nil || len(chain) == 0 {
		return nil, false
	}
	first := chain[0]
	for _, other := range chain[1:] {
		if other.NotAfter.Before(first.NotAfter) {
			first = other
		}
	}
	return first, true
}
