package cli

import (
	"bytes"
	"crypto/tls"
	"net/http"
	"sync"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/transport"
)

// lastingClient is a client for a process that may outlive the certificate in its kubeconfig: each new connection presents
// the one that the kubeconfig holds then. client-go itself follows files that a kubeconfig names, and no others.
func lastingClient(config *rest.Config, read func() (*rest.Config, error)) (kubernetes.Interface, error) {
	if len(config.CertData) == 0 {
		return kubernetes.NewForConfig(config)
	}
	first, err := tls.X509KeyPair(config.CertData, config.KeyData)
	if err != nil {
		return nil, err
	}
	settings, err := config.TransportConfig()
	if err != nil {
		return nil, err
	}
	certificate := &kubeconfigCertificate{read: read, last: &first}
	settings.TLS.CertData, settings.TLS.KeyData = nil, nil
	settings.TLS.GetCertHolder = &transport.GetCertHolder{GetCert: certificate.current}
	carrier, err := transport.New(settings)
	if err != nil {
		return nil, err
	}
	return kubernetes.NewForConfigAndClient(config, &http.Client{Transport: carrier, Timeout: config.Timeout})
}

// kubeconfigCertificate is a client certificate in a kubeconfig.
type kubeconfigCertificate struct {
	read func() (*rest.Config, error)

	mu   sync.Mutex
	last *tls.Certificate
}

// current is what the kubeconfig holds, or the last that it held: it may be away for a moment, or for good. Nobody becomes
// somebody else, whatever the kubeconfig's current context is by now.
func (c *kubeconfigCertificate) current() (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if config, err := c.read(); err == nil {
		pair, err := tls.X509KeyPair(config.CertData, config.KeyData)
		if err == nil && bytes.Equal(pair.Leaf.RawSubject, c.last.Leaf.RawSubject) {
			c.last = &pair
		}
	}
	return c.last, nil
}
