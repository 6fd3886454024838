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
	"lanyard.dev/internal/files"
	"lanyard.dev/internal/hint"
	"lanyard.dev/internal/process"
	"lanyard.dev/internal/version"
)

var (
	errNoServer    = errors.New("there is no server to connect to")
	errEmptyConfig = errors.New("the kubeconfig names none")
)

// noServer returns errNoServer with its reason: notFound if an authority of this machine was looked for, else that the
// kubeconfig is empty.
func noServer(notFound error) error {
	if notFound == nil {
		return hint.New(fmt.Errorf("%w: %w", errNoServer, errEmptyConfig), "name another kubeconfig with --kubeconfig or KUBECONFIG")
	}
	return fmt.Errorf("%w: %w", errNoServer, notFound)
}

// connection selects a server and a user, as lanyard kubectl does: from the kubeconfig that a flag names, else from the
// kubeconfig of the authority that runs on this machine, else from the user's own kubeconfig.
type connection struct {
	kubeconfig string
	context    string
}

func (c *connection) addFlags(f *pflag.FlagSet) {
	f.StringVar(&c.kubeconfig, "kubeconfig", "", "kubeconfig to use (default: $KUBECONFIG, the authority on this machine, or ~/.kube/config)")
	f.StringVar(&c.context, "context", "", "context of the kubeconfig to use (default: its current context)")
}

// named reports whether a flag selects the server.
func (c *connection) named() bool { return c.kubeconfig != "" || c.context != "" }

// config reads the kubeconfig. Warnings of the server go to messages. namespace is the namespace of the kubeconfig's context, or
// "default".
func (c *connection) config(messages io.Writer) (config *rest.Config, namespace string, err error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath, err = c.file()
	notFound := err
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
		return nil, "", noServer(notFound)
	case err != nil:
		return nil, "", fmt.Errorf("read the kubeconfig: %w", err)
	}
	config.UserAgent = version.Current().UserAgent()
	config.WarningHandler = rest.NewWarningWriter(messages, rest.WarningWriterOptions{Deduplicate: true})
	return config, namespace, nil
}

// client returns a client of the server, and its configuration.
func (c *connection) client(messages io.Writer) (kubernetes.Interface, *rest.Config, error) {
	config, _, err := c.config(messages)
	if err != nil {
		return nil, nil, err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, nil, fmt.Errorf("connect to %s: %w", config.Host, err)
	}
	return client, config, nil
}

// loadCA returns the CA of a server, which the kubeconfig contains or names. It is empty if the kubeconfig has none.
func loadCA(config *rest.Config) ([]byte, error) {
	if len(config.CAData) > 0 || config.CAFile == "" {
		return config.CAData, nil
	}
	ca, err := files.Read(config.CAFile, files.MaxPEM)
	if err != nil {
		return nil, fmt.Errorf("read the CA of %s: %w", config.Host, err)
	}
	return ca, nil
}

// file returns the kubeconfig that a flag names, or the kubeconfig of the authority on this machine. An empty path means that
// kubectl's rules select the kubeconfig; the error is datadir.ErrNoneRunning then if no authority was found.
func (c *connection) file() (string, error) {
	if c.kubeconfig != "" || os.Getenv(kubeconfigEnv) != "" {
		return c.kubeconfig, nil
	}
	if runsUnderExec() {
		return noKubeconfig, nil
	}
	running, err := datadir.FindOne()
	if err != nil {
		return "", err
	}
	return running.Kubeconfig(), nil
}

// runsUnderExec reports whether this process runs under lanyard exec. It must then act as the service account, and never as the
// administrator of an authority on this machine or as the user of ~/.kube/config.
func runsUnderExec() bool { return os.Getenv(process.PodNameEnv) != "" }

// noKubeconfig is an empty kubeconfig. With it, clients use the in-cluster configuration, or fail.
const noKubeconfig = os.DevNull

// newReloadingClient returns a client for a process that may outlive the certificate in its kubeconfig. For each new
// connection, it reads the kubeconfig again and presents the certificate of the same user of the same server. client-go reloads
// certificates only from files that a kubeconfig names.
func newReloadingClient(config *rest.Config, read func() (*rest.Config, error)) (kubernetes.Interface, error) {
	if len(config.CertData) == 0 || len(config.KeyData) == 0 {
		return kubernetes.NewForConfig(config)
	}
	config = rest.CopyConfig(config)
	if config.UserAgent == "" {
		config.UserAgent = rest.DefaultKubernetesUserAgent() // NewForConfig does the same.
	}
	certificate := &kubeconfigCertificate{read: read, host: config.Host}
	var err error
	if certificate.last, certificate.subject, err = parseCertificate(config); err != nil {
		return nil, err
	}
	settings, err := config.TransportConfig()
	if err != nil {
		return nil, err
	}
	settings.TLS.CertData, settings.TLS.KeyData = nil, nil
	settings.TLS.GetCertHolder = &transport.GetCertHolder{GetCert: certificate.current}
	roundTripper, err := transport.New(settings)
	if err != nil {
		return nil, err
	}
	return kubernetes.NewForConfigAndClient(config, &http.Client{Transport: roundTripper, Timeout: config.Timeout})
}

// parseCertificate returns the client certificate of a kubeconfig, and the subject of the certificate.
func parseCertificate(config *rest.Config) (pair *tls.Certificate, subject []byte, err error) {
	parsed, err := tls.X509KeyPair(config.CertData, config.KeyData)
	if err != nil {
		return nil, nil, err
	}
	leaf, err := x509.ParseCertificate(parsed.Certificate[0])
	if err != nil {
		return nil, nil, err
	}
	return &parsed, leaf.RawSubject, nil
}

// kubeconfigCertificate is the client certificate of one user of one server in a kubeconfig that is read again.
type kubeconfigCertificate struct {
	read    func() (*rest.Config, error)
	host    string
	subject []byte

	mu   sync.Mutex
	last *tls.Certificate
}

// current returns the certificate that the kubeconfig contains now. If the kubeconfig cannot be read or is for another user or
// server, current returns the last certificate. It compares the server too, since many servers have an administrator of the
// same name.
func (c *kubeconfigCertificate) current() (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if config, err := c.read(); err == nil && config.Host == c.host {
		if pair, subject, err := parseCertificate(config); err == nil && bytes.Equal(subject, c.subject) {
			c.last = pair
		}
	}
	return c.last, nil
}
