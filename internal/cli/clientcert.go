package cli

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"sync"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/transport"
)

// lastingClient is a client for a process that may outlive the certificate in its kubeconfig: each new connection presents
// the one that the kubeconfig, read again, holds then for the same user of the same server. client-go itself follows files
// that a kubeconfig names, and no others.
func lastingClient(config *rest.Config, read func() (*rest.Config, error)) (kubernetes.Interface, error) {
	if len(config.CertData) == 0 || len(config.KeyData) == 0 {
		return kubernetes.NewForConfig(config)
	}
	config = rest.CopyConfig(config)
	if config.UserAgent == "" {
		config.UserAgent = rest.DefaultKubernetesUserAgent() // as NewForConfig does
	}
	certificate := &kubeconfigCertificate{read: read, host: config.Host}
	var err error
	if certificate.last, certificate.subject, err = presented(config); err != nil {
		return nil, err
	}
	settings, err := config.TransportConfig()
	if err != nil {
		return nil, err
	}
	settings.TLS.CertData, settings.TLS.KeyData = nil, nil
	settings.TLS.GetCertHolder = &transport.GetCertHolder{GetCert: certificate.current}
	carrier, err := transport.New(settings)
	if err != nil {
		return nil, err
	}
	return kubernetes.NewForConfigAndClient(config, &http.Client{Transport: carrier, Timeout: config.Timeout})
}

// presented is the certificate in a kubeconfig, and whom it is for.
func presented(config *rest.Config) (pair *tls.Certificate, subject []byte, err error) {
	read, err := tls.X509KeyPair(config.CertData, config.KeyData)
	if err != nil {
		return nil, nil, err
	}
	leaf, err := x509.ParseCertificate(read.Certificate[0])
	if err != nil {
		return nil, nil, err
	}
	return &read, leaf.RawSubject, nil
}

// kubeconfigCertificate is the client certificate of one user of one server in a kubeconfig.
type kubeconfigCertificate struct {
	read    func() (*rest.Config, error)
	host    string
	subject []byte

	mu   sync.Mutex
	last *tls.Certificate
}

// current is what the kubeconfig holds, or the last that it held: it may be away for a moment, or for good, and its current
// context may be another by now. Servers often have an administrator of the same name.
func (c *kubeconfigCertificate) current() (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if config, err := c.read(); err == nil && config.Host == c.host {
		if pair, subject, err := presented(config); err == nil && bytes.Equal(subject, c.subject) {
			c.last = pair
		}
	}
	return c.last, nil
}
