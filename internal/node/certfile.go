package node

import (
	"crypto/tls"
	"fmt"
	"sync"

	"k8s.io/klog/v2"
)

// certificateFiles are a certificate and its key, read again for each connection: whoever renews them tells nobody.
type certificateFiles struct {
	certFile, keyFile string

	mu        sync.Mutex
	last      *tls.Certificate
	complaint string // said already
}

// openCertificateFiles fails if there is no certificate in them now.
func openCertificateFiles(certFile, keyFile string) (*certificateFiles, error) {
	f := &certificateFiles{certFile: certFile, keyFile: keyFile}
	var err error
	f.last, err = f.read()
	return f, err
}

func (f *certificateFiles) read() (*tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(f.certFile, f.keyFile)
	if err != nil {
		return nil, fmt.Errorf("serving certificate %s with key %s: %w", f.certFile, f.keyFile, err)
	}
	return &pair, nil
}

// current is what the files hold, or the last that they held: there is a moment when one of them has been renewed.
func (f *certificateFiles) current() (*tls.Certificate, error) {
	now, err := f.read()
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case err == nil:
		f.last, f.complaint = now, ""
	case err.Error() != f.complaint:
		f.complaint = err.Error()
		klog.ErrorS(err, "Serving with the certificate that was there before")
	}
	return f.last, nil
}
