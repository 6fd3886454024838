//go:build linux

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

	"lanyard.dev/internal/hint"
	"lanyard.dev/internal/pki"
)

const (
	userPrefix = "system:node:"
	nodesGroup = "system:nodes"

	// One agent sends the requests of hundreds of pods. It protects the authority by spreading its work over time, rather than
	// by a low limit here.
	clientQPS, clientBurst = 200, 400
)

// identity connects to the authority as the node.
type identity struct {
	config    *rest.Config
	authority authority
	client    kubernetes.Interface
	// heartbeats writes the Lease. Its requests have a timeout that leaves time for another attempt.
	heartbeats kubernetes.Interface
	// connections are the connections of both clients.
	connections *connrotation.Dialer
}

// servingTimeout is how long an agent waits for a serving certificate before it registers without one.
const servingTimeout = 5 * time.Second

// heartbeatTimeout bounds a renewal of the Lease, so that the agent can try again on a new connection before the Lease expires.
const heartbeatTimeout = leaseDuration / 4

// join returns the agent's identity. If the options name a bootstrap kubeconfig and the node has no certificate yet, it
// requests one with the bootstrap token, and waits until the authority has signed it.
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
	authority, err := parseAuthority(config.Host)
	if err != nil {
		return nil, err
	}
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
	short := rest.CopyConfig(config)
	short.Timeout = heartbeatTimeout
	heartbeats, err := kubernetes.NewForConfig(short)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", config.Host, err)
	}
	return &identity{config, authority, client, heartbeats, connections}, nil
}

// enrol requests and renews a client certificate for the node, and returns a configuration that uses it.
func enrol(ctx context.Context, o *Options, bootstrap *rest.Config) (*rest.Config, error) {
	store, err := certificateStore(o, "client")
	if err != nil {
		return nil, err
	}
	if err := checkNodeName(store, o); err != nil {
		return nil, err
	}
	own := rest.AnonymousClientConfig(bootstrap)
	own.CertFile, own.KeyFile = store.CurrentPath(), store.CurrentPath() // the client reads them again when they change
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
		klog.InfoS("Requesting a node certificate", "authority", bootstrap.Host, "node", o.NodeName)
	}
	return own, awaitCertificate(ctx, manager)
}

// checkNodeName returns an error if the stored certificate is for another node: with it, the authority would refuse every
// request about this node.
func checkNodeName(store certificate.Store, o *Options) error {
	current, err := store.Current()
	if err != nil || current.Leaf == nil || current.Leaf.Subject.CommonName == userPrefix+o.NodeName {
		return nil // there is no certificate yet, or it will be replaced
	}
	return hint.New(fmt.Errorf("the certificate in %s is for %q, not for node %q", certificateDir(o), current.Leaf.Subject.CommonName, o.NodeName),
		"set --node-name to the former name, or remove that directory to join again")
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

// servingCertificate returns a function that returns the current serving certificate. It is in the files that the options
// name, which are read again when they change. Otherwise the agent requests a certificate, and no connection succeeds before
// the authority has signed it.
func (id *identity) servingCertificate(ctx context.Context, o *Options, addresses []net.IP) (func() (*tls.Certificate, error), error) {
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
	// A ready node should serve logs, but pods should not wait until an administrator approves the request.
	limited, cancel := context.WithTimeout(ctx, servingTimeout)
	defer cancel()
	if err := awaitCertificate(limited, manager); err != nil && ctx.Err() == nil {
		klog.InfoS("There is no serving certificate yet: kubectl logs and exec do not reach this node until the authority has signed one", "node", o.NodeName)
	}
	return func() (*tls.Certificate, error) {
		if current := manager.Current(); current != nil {
			return current, nil
		}
		return nil, errors.New("the authority has not signed a serving certificate yet")
	}, nil
}

// clientCAs returns the CA certificates of the clients that may connect to the agent.
func (id *identity) clientCAs(o *Options) (*x509.CertPool, error) {
	file := o.ClientCAFile
	if file == "" && len(id.config.CAData) > 0 {
		pool, err := pki.ParseRoots(id.config.CAData)
		if err != nil {
			return nil, fmt.Errorf("client CA in the kubeconfig: %w", err)
		}
		return pool, nil
	}
	if file == "" {
		file = id.config.CAFile
	}
	if file == "" {
		return nil, errors.New("the kubeconfig has no CA: set --client-ca-file to the CA of the clients of this node")
	}
	pool, err := pki.ReadRoots(file)
	if err != nil {
		return nil, fmt.Errorf("client CA: %w", err)
	}
	return pool, nil
}

// certificateFiles are a certificate and its key. They are read again for each connection, because the agent is not notified
// when another program renews them.
type certificateFiles struct {
	certFile, keyFile string

	mu     sync.Mutex
	last   *tls.Certificate
	logged string // the last error, so that it is logged once
}

// openCertificateFiles returns an error if the files hold no certificate.
func openCertificateFiles(certFile, keyFile string) (*certificateFiles, error) {
	f := &certificateFiles{certFile: certFile, keyFile: keyFile}
	var err error
	f.last, err = f.read()
	return f, err
}

func (f *certificateFiles) read() (*tls.Certificate, error) {
	pair, err := pki.ReadKeyPair(f.certFile, f.keyFile)
	if err != nil {
		return nil, fmt.Errorf("serving certificate %s with key %s: %w", f.certFile, f.keyFile, err)
	}
	return &pair, nil
}

// current returns the certificate in the files. While the files do not fit together, since only one of them has been renewed,
// it returns the certificate that they held before.
func (f *certificateFiles) current() (*tls.Certificate, error) {
	now, err := f.read()
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case err == nil:
		f.last, f.logged = now, ""
	case err.Error() != f.logged:
		f.logged = err.Error()
		klog.ErrorS(err, "Serving with the certificate that was there before")
	}
	return f.last, nil
}
