package cli

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"

	"github.com/spf13/pflag"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/transport"

	"lanyard.dev/internal/datadir"
	"lanyard.dev/internal/process"
	"lanyard.dev/internal/version"
)

var (
	errNoServer    = errors.New("there is no server to talk to")
	errEmptyConfig = errors.New("the kubeconfig names none")
)

// noServer is errNoServer, with why no authority was found if one was looked
// for.
func noServer(none error) error {
	if none == nil {
		return withHint(fmt.Errorf("%w: %w", errNoServer, errEmptyConfig), "name another kubeconfig with --kubeconfig or KUBECONFIG")
	}
	return withHint(fmt.Errorf("%w: %w", errNoServer, none), hintOf(none))
}

// connection says which server to talk to, and as whom. It is found as lanyard kubectl finds it: a kubeconfig that is
// named, else the authority that runs here, else the user's own kubeconfig.
type connection struct {
	kubeconfig string
	context    string
}

func (c *connection) addFlags(f *pflag.FlagSet) {
	f.StringVar(&c.kubeconfig, "kubeconfig", "", "kubeconfig to use (default: $KUBECONFIG, the authority that runs here, or ~/.kube/config)")
	f.StringVar(&c.context, "context", "", "context in the kubeconfig to use (default: its current one)")
}

// named reports whether a server was named on the command line.
func (c *connection) named() bool { return c.kubeconfig != "" || c.context != "" }

// config reads the kubeconfig. Warnings of the server go to words. namespace is the kubeconfig's, or "default".
func (c *connection) config(words io.Writer) (config *rest.Config, namespace string, err error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath, err = c.file()
	none := err
	if err != nil && !errors.Is(err, datadir.ErrNoneRunning) {
		return nil, "", err
	}
	loaded := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: c.context})
	config, err = loaded.ClientConfig()
	if err == nil {
		namespace, _, err = loaded.Namespace()
	}
	switch {
	case clientcmd.IsEmptyConfig(err):
		return nil, "", noServer(none)
	case err != nil:
		return nil, "", fmt.Errorf("read the kubeconfig: %w", err)
	}
	config.UserAgent = version.Current().UserAgent()
	config.WarningHandler = rest.NewWarningWriter(words, rest.WarningWriterOptions{Deduplicate: true})
	return config, namespace, nil
}

// client connects to the server.
func (c *connection) client(words io.Writer) (kubernetes.Interface, *rest.Config, error) {
	config, _, err := c.config(words)
	if err != nil {
		return nil, nil, err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, nil, fmt.Errorf("connect to %s: %w", config.Host, err)
	}
	return client, config, nil
}

// file is the kubeconfig that was named or that belongs to the authority that runs here. Empty leaves the choice to the
// usual rules, with datadir.ErrNoneRunning as well if no authority was found.
func (c *connection) file() (string, error) {
	if c.kubeconfig != "" || os.Getenv(kubeconfigEnv) != "" {
		return c.kubeconfig, nil
	}
	if isWorkload() {
		return noKubeconfig, nil
	}
	running, err := datadir.FindOne()
	if err != nil {
		return "", err
	}
	return running.Kubeconfig(), nil
}

// isWorkload tells whether this process runs under lanyard exec. Then it is to act as its account, or not at all: neither
// as the administrator of the authority that happens to run here, nor as whoever owns ~/.kube/config.
func isWorkload() bool { return os.Getenv(process.PodNameEnv) != "" }

// noKubeconfig is a kubeconfig with nothing in it. With it, clients are what the environment of a pod says, or nobody.
const noKubeconfig = os.DevNull

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
