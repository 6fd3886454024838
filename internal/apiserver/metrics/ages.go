package metrics

import (
	"crypto/x509"
	"os"
	"time"

	compbasemetrics "k8s.io/component-base/metrics"
	"k8s.io/klog/v2"

	"lanyard.dev/internal/files"
	"lanyard.dev/internal/pki"
)

// gauges is a metric with a value for each value of its label. The values are read when they are scraped.
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

// ProofAge is a feed that proves that it is up to date.
type ProofAge interface {
	// ProofAge returns the age of the latest proof.
	ProofAge() time.Duration
}

// WatchFeeds adds the age of the latest proof of each feed, by resource. The caller omits feeds that need no proof because no
// other process writes.
func (m *Metrics) WatchFeeds(feeds map[string]ProofAge) {
	m.addGauges("lanyard_feed_proof_age_seconds",
		"Seconds since the feed of a resource was last proved to be up to date. Once this is too long, requests cannot be decided and are refused with 503.",
		"resource", func(set func(float64, string)) {
			for resource, feed := range feeds {
				set(feed.ProofAge().Seconds(), resource)
			}
		})
}

// WatchEncryption adds the number of stored secrets by the name of the key that encrypts them.
func (m *Metrics) WatchEncryption(stored func() map[string]int) {
	m.addGauges("lanyard_encrypted_secrets",
		"Secrets in the store, by the name of the key that encrypts them, counted every ten minutes; none means unencrypted.",
		"key", func(set func(float64, string)) {
			for key, count := range stored() {
				set(float64(count), key)
			}
		})
}

// KeyFile is a file that holds keys of service account tokens.
type KeyFile struct {
	Path string
	// IDs are the key ids (kid) of the keys in the file.
	IDs []string
}

// KeyFiles are the files of the keys in force.
type KeyFiles interface {
	Files() []KeyFile
	// Stale returns how long the files have differed from the keys in force; 0 if they do not.
	Stale() time.Duration
}

// WatchKeys adds the age of each key, by key id, and for how long the keys have differed from their files. The age of a key is the
// time since its file was written last. If several files contain a key, the first one is used.
func (m *Metrics) WatchKeys(keys KeyFiles) {
	m.registry.RawMustRegister(compbasemetrics.NewGaugeFunc(&compbasemetrics.GaugeOpts{
		Name: "lanyard_service_account_key_files_stale_seconds", StabilityLevel: compbasemetrics.ALPHA,
		Help: "Seconds since a key file was changed to something that cannot be used, so that the earlier keys stay in force; 0 if the keys are those of the files.",
	}, func() float64 { return keys.Stale().Seconds() }))
	m.addGauges("lanyard_service_account_key_age_seconds",
		"Seconds since the file of a key that signs or verifies service account tokens was last written.",
		"kid", func(set func(float64, string)) {
			seen := map[string]bool{}
			for _, file := range keys.Files() {
				info, err := os.Stat(file.Path)
				if err != nil {
					klog.V(2).InfoS("Could not read the age of a key file", "file", file.Path, "err", err)
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

// Certificate is a certificate of which the age is a metric.
type Certificate struct {
	Name string
	// Read returns the current certificate in PEM.
	Read func() ([]byte, error)
}

// CertificateFile returns a certificate that is read from a file.
func CertificateFile(name, path string) Certificate {
	return Certificate{Name: name, Read: func() ([]byte, error) { return files.Read(path, files.MaxPEM) }}
}

// WatchCertificates adds the age and the remaining life of each certificate. Of a bundle or a chain, it uses the
// certificate that expires first. It omits a certificate that cannot be read.
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
		"Seconds until a certificate of the authority expires; negative if it has expired.",
		"certificate", each(func(c *x509.Certificate) time.Duration { return time.Until(c.NotAfter) }))
}

// first returns the certificate that expires first.
func (c Certificate) first() (*x509.Certificate, bool) {
	text, err := c.Read()
	if err != nil {
		klog.V(2).InfoS("Could not read the age of a certificate", "certificate", c.Name, "err", err)
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
