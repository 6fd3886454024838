package node

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/certificate"
	"k8s.io/client-go/util/connrotation"
	"k8s.io/klog/v2"
)

const (
	userPrefix = "system:node:"
	nodesGroup = "system:nodes"

	// One agent speaks for hundreds of pods; what protects the authority is how the agent spreads its work.
	clientQPS, clientBurst = 200, 400
)

// identity is how an agent proves to be its node.
type identity struct {
	// config connects to the authority as the node.
	config *rest.Config
	client kubernetes.Interface
	// heartbeats is for the Lease: its requests end in time for another attempt.
	heartbeats kubernetes.Interface
	// connections are those of both.
	connections *connrotation.Dialer
}

// servingPatience is how long an agent waits for a certificate to serve with before it registers without.
const servingPatience = 5 * time.Second

// heartbeatTimeout leaves a Lease time for a second attempt, on a connection that lives, before it has ended.
const heartbeatTimeout = leaseDuration / 4

// join gets the agent its identity. Without a certificate of its own it asks for one by the bootstrap token, and waits.
func join(ctx context.Context, o *Options) (*identity, error) {
	file := o.Kubeconfig
	if file == "" {
		file = o.BootstrapKubeconfig
	}
	config, err := clientcmd.BuildConfigFromFlags("", file)
	if err != nil {
		return nil, fmt.Errorf("read kubeconfig %s: %w", file, err)
	}
	if o.Kubeconfig == "" {
		if config, err = enrol(ctx, o, config); err != nil {
			return nil, err
		}
	}
	return newIdentity(config)
}

func newIdentity(config *rest.Config) (*identity, error) {
	config = rest.CopyConfig(config)
	config.UserAgent = "lanyard-agent"
	config.ContentType, config.AcceptContentTypes = runtime.ContentTypeProtobuf, runtime.ContentTypeProtobuf+","+runtime.ContentTypeJSON
	config.QPS, config.Burst = clientQPS, clientBurst
	connections := connrotation.NewDialer((&net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}).DialContext)
	config.Dial = connections.DialContext
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", config.Host, err)
	}
	soon := rest.CopyConfig(config)
	soon.Timeout = heartbeatTimeout
	heartbeats, err := kubernetes.NewForConfig(soon)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", config.Host, err)
	}
	return &identity{config, client, heartbeats, connections}, nil
}

// enrol has a client certificate for the node made and renewed, and returns a configuration that uses it.
func enrol(ctx context.Context, o *Options, bootstrap *rest.Config) (*rest.Config, error) {
	store, err := certificateStore(o, "client")
	if err != nil {
		return nil, err
	}
	if err := isOf(store, o); err != nil {
		return nil, err
	}
	own := rest.AnonymousClientConfig(bootstrap)
	own.CertFile, own.KeyFile = store.CurrentPath(), store.CurrentPath() // read again as they change
	manager, err := certificate.NewManager(&certificate.Config{
		Ctx: &ctx, Name: "node client certificate", SignerName: certificatesv1.KubeAPIServerClientKubeletSignerName,
		Template: nodeRequest(o.NodeName), GetUsages: certificate.DefaultKubeletClientGetUsages, CertificateStore: store,
		ClientsetFn: func(current *tls.Certificate) (kubernetes.Interface, error) {
			if current == nil {
				return kubernetes.NewForConfig(bootstrap)
			}
			return kubernetes.NewForConfig(own)
		},
	})
	if err != nil {
		return nil, fmt.Errorf("node certificate in %s: %w", certificateDir(o), err)
	}
	manager.Start()
	if manager.Current() == nil {
		klog.InfoS("Asking for a node certificate", "authority", bootstrap.Host, "node", o.NodeName)
	}
	return own, awaitCertificate(ctx, manager)
}

// isOf refuses the certificate of another node: with it, everything would be refused by the authority.
func isOf(store certificate.Store, o *Options) error {
	current, err := store.Current()
	if err != nil || current.Leaf == nil || current.Leaf.Subject.CommonName == userPrefix+o.NodeName {
		return nil // none yet, or one that will be replaced
	}
	return &Error{
		Err:  fmt.Errorf("the certificate in %s is that of %q, not of node %q", certificateDir(o), current.Leaf.Subject.CommonName, o.NodeName),
		Next: "name the node with --node-name as before, or remove that directory to join anew",
	}
}

func awaitCertificate(ctx context.Context, manager certificate.Manager) error {
	err := wait.PollUntilContextCancel(ctx, 100*time.Millisecond, true, func(context.Context) (bool, error) {
		return manager.Current() != nil, nil
	})
	if err != nil {
		return fmt.Errorf("wait for a node certificate: %w", context.Cause(ctx))
	}
	return nil
}

func certificateDir(o *Options) string { return filepath.Join(o.RootDir, "pki") }

func certificateStore(o *Options, name string) (certificate.FileStore, error) {
	dir := certificateDir(o)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make a directory for certificates: %w", err)
	}
	return certificate.NewFileStore("node-"+name, dir, dir, "", "")
}

func nodeRequest(nodeName string) *x509.CertificateRequest {
	return &x509.CertificateRequest{Subject: pkix.Name{CommonName: userPrefix + nodeName, Organization: []string{nodesGroup}}}
}

// serving returns how to find the certificate that the agent serves with. The files that were named are read as they change;
// else the authority is asked for one, and until it has signed, no connection succeeds.
func (id *identity) serving(ctx context.Context, o *Options, addresses []net.IP) (func() (*tls.Certificate, error), error) {
	if o.ServingCertFile != "" {
		files, err := openCertificateFiles(o.ServingCertFile, o.ServingKeyFile)
		if err != nil {
			return nil, err
		}
		return files.current, nil
	}
	store, err := certificateStore(o, "serving")
	if err != nil {
		return nil, err
	}
	template := nodeRequest(o.NodeName)
	template.DNSNames, template.IPAddresses = []string{o.NodeName}, addresses
	manager, err := certificate.NewManager(&certificate.Config{
		Ctx: &ctx, Name: "node serving certificate", SignerName: certificatesv1.KubeletServingSignerName,
		Template: template, GetUsages: certificate.DefaultKubeletServingGetUsages, CertificateStore: store,
		ClientsetFn: func(*tls.Certificate) (kubernetes.Interface, error) { return id.client, nil },
	})
	if err != nil {
		return nil, fmt.Errorf("serving certificate in %s: %w", certificateDir(o), err)
	}
	manager.Start()
	// The node should not be ready before kubectl's logs can reach it; nor should pods wait for somebody's approval.
	soon, cancel := context.WithTimeout(ctx, servingPatience)
	defer cancel()
	if err := awaitCertificate(soon, manager); err != nil && ctx.Err() == nil {
		klog.InfoS("There is no serving certificate yet: kubectl logs and exec do not reach this node until the authority has signed one", "node", o.NodeName)
	}
	return func() (*tls.Certificate, error) {
		if current := manager.Current(); current != nil {
			return current, nil
		}
		return nil, errors.New("the authority has not signed a serving certificate yet")
	}, nil
}

// clientCAs returns the certificates of who may connect to the agent, in PEM.
func (id *identity) clientCAs(o *Options) ([]byte, error) {
	file := o.ClientCAFile
	if file == "" && len(id.config.CAData) > 0 {
		return id.config.CAData, nil
	}
	if file == "" {
		file = id.config.CAFile
	}
	if file == "" {
		return nil, errors.New("the kubeconfig names no CA: name one for those who connect to this node with --client-ca-file")
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("client CA: %w", err)
	}
	return pem, nil
}

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
