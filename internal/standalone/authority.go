package standalone

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"time"

	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"lanyard.dev/internal/apiserver"
	"lanyard.dev/internal/apiserver/auditlog"
	"lanyard.dev/internal/apiserver/nodeclient"
	"lanyard.dev/internal/datadir"
	"lanyard.dev/internal/deadline"
	"lanyard.dev/internal/etcd"
	"lanyard.dev/internal/files"
	"lanyard.dev/internal/signingkey"
)

// Config says where an authority lives and how it is reached.
type Config struct {
	DataDir     string
	BindAddress string
	// Port 0 takes a free one.
	Port int
	// Log receives what etcd complains about.
	Log io.Writer

	// MinTokenExpiration and UnsafeNoFsync are for tests: tokens that die while a test looks on, and writes that do
	// not wait for the disk.
	MinTokenExpiration time.Duration
	UnsafeNoFsync      bool
	// Unannounced keeps the authority from being found by the other commands of this user, which then do not take it
	// for the one that is meant.
	Unannounced bool
	// AuthenticationConfig is a file that names the issuers by whose tokens people sign in.
	AuthenticationConfig string
	// AdmissionConfig is a file that names the Pod Security Standard for namespaces that choose none.
	AdmissionConfig string
	// AuditLogMode is one of auditlog.Modes; empty means auditlog.Blocking.
	AuditLogMode string
	// clock says which certificates are due; nil is the real one.
	clock clock.Clock
	// Issuers are the issuers of tokens: the first issues, all are accepted. None means the URL of the authority and
	// apiserver.DefaultIssuer.
	Issuers []string
	// JWKSURI replaces the URL of the key set in the discovery document.
	JWKSURI string
	// SigningAlgorithm is that of the signing key that the first start makes, and must be that of one that is there. Empty
	// means signingkey.DefaultAlgorithm, and any.
	SigningAlgorithm signingkey.Algorithm
	// AcceptedKeyFiles hold keys whose tokens are accepted besides those of the signing key.
	AcceptedKeyFiles []string
	// MaxTokenExpiration shortens every longer token; 0 shortens none.
	MaxTokenExpiration time.Duration
}

// Rotation of the audit log: about 1 GB and a month at the most.
const auditMaxAge, auditMaxBackups, auditMaxSize = 30, 10, 100

// How long each step of the end may take, after which the next one begins. The server's limit is its own.
const (
	certificatesTimeout = time.Second
	etcdTimeout         = 4 * time.Second
	directoryTimeout    = time.Second
)

// filesPeriod bounds for how long writes are acknowledged after the files were removed.
const filesPeriod = 500 * time.Millisecond

// Authority is a running authority with its own etcd.
type Authority struct {
	// URL is where the API is served.
	URL string

	dir    *datadir.Dir
	certs  *certificates
	etcd   *etcd.Server
	server *apiserver.Server
	stop   context.CancelFunc
	ending <-chan struct{} // closed when stop is called
	ended  chan struct{}   // closed when the server has ended, with err
	err    error
	lost   chan error // yields why the files are not those that were started with
}

// Start takes the data directory and the port, makes what is missing, and serves until Stop, or until ctx ends. It
// returns when the API answers. After a failure nothing runs and nothing is held; files that were made are found again by
// the next start.
func Start(ctx context.Context, c Config) (*Authority, error) {
	a := &Authority{ended: make(chan struct{}), lost: make(chan error, 1)}
	if err := a.start(ctx, c); err != nil {
		return nil, errors.Join(err, a.release())
	}
	return a, nil
}

func (a *Authority) start(ctx context.Context, c Config) (err error) {
	// A directory that another instance holds explains a taken port as well. A directory that is to be made is made only
	// once there is a port to serve on.
	if a.dir, err = datadir.OpenExisting(c.DataDir); err != nil {
		return err
	}
	listener, err := Listen(c.BindAddress, c.Port)
	if err != nil {
		return err
	}
	if err := a.assemble(ctx, c, listener); err != nil {
		_ = listener.Close()
		return err
	}
	running, stop := context.WithCancel(ctx)
	a.stop, a.ending = stop, running.Done()
	go a.certs.keep(running)
	go a.watchFiles(running)
	go func() {
		defer close(a.ended)
		a.err = a.server.Run(running)
	}()
	select {
	case <-a.server.Ready():
		if c.Unannounced {
			return nil
		}
		if err := a.dir.Announce(a.URL); err != nil {
			klog.ErrorS(err, "Other commands will not find this authority by themselves", "kubeconfig", a.Kubeconfig())
		}
		return nil
	case <-a.ended:
		return orCause(ctx, a.err)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func orCause(ctx context.Context, err error) error {
	if err == nil {
		return context.Cause(ctx)
	}
	return err
}

// assemble takes the directory, makes the files, starts etcd and puts the server together.
func (a *Authority) assemble(ctx context.Context, c Config, listener net.Listener) error {
	a.URL = "https://" + reachable(listener)
	var err error
	if a.dir == nil {
		if a.dir, err = datadir.Open(c.DataDir); err != nil {
			return err
		}
	}
	if err := a.dir.CheckData(); err != nil {
		return err
	}
	if err := a.furnish(c); err != nil {
		return err
	}
	a.etcd, err = etcd.Start(ctx, etcd.Config{Dir: a.dir.EtcdDir(), Log: c.Log, UnsafeNoFsync: c.UnsafeNoFsync})
	if err != nil {
		return err
	}
	if err := a.dir.MarkData(); err != nil {
		return err
	}
	a.server, err = apiserver.New(a.options(c, listener))
	return err
}

// furnish makes the keys, certificates and the kubeconfig that are not there yet.
func (a *Authority) furnish(c Config) error {
	a.certs = &certificates{dir: a.dir, url: a.URL, bindAddress: c.BindAddress, clock: cmp.Or[clock.Clock](c.clock, clock.RealClock{})}
	if err := a.certs.ensure(); err != nil {
		return err
	}
	if err := a.ensureSigningKey(c.SigningAlgorithm); err != nil {
		return err
	}
	return a.dir.EnsureEncryptionConfig()
}

// ensureSigningKey makes the key, or checks that the one that is there is for the algorithm that was asked for.
func (a *Authority) ensureSigningKey(wanted signingkey.Algorithm) error {
	err := a.dir.EnsureSigningKey(func() ([]byte, error) {
		key, err := signingkey.Generate(wanted)
		if err != nil {
			return nil, err
		}
		return key.MarshalPEM()
	})
	if err != nil || wanted == "" {
		return err
	}
	key, err := signingkey.LoadPrivate(a.dir.SigningKey())
	if err != nil {
		return err
	}
	if found := key.Algorithm(); found != wanted {
		return files.Unusable(a.dir.SigningKey(), fmt.Sprintf("is a key for %s, and %s was asked for", found, wanted), nil,
			"to change the key, move the file elsewhere and name it with --service-account-key-file for as long as its tokens are to be accepted")
	}
	return nil
}

func (a *Authority) options(c Config, listener net.Listener) apiserver.Options {
	return apiserver.Options{
		Listener:    listener,
		TLSCertFile: a.dir.ServingCert(), TLSPrivateKeyFile: a.dir.ServingKey(),
		ClientCAFile: a.dir.CACert(), RootCAFile: a.dir.CACert(),
		Etcd:                     apiserver.Etcd{Servers: []string{a.etcd.Endpoint()}, SoleWriter: true},
		AuthenticationConfig:     c.AuthenticationConfig,
		AdmissionConfig:          c.AdmissionConfig,
		EncryptionProviderConfig: a.dir.EncryptionConfig(),
		ServiceAccounts: apiserver.ServiceAccounts{
			Issuers: a.issuers(c), JWKSURI: c.JWKSURI, SigningKeyFile: a.dir.SigningKey(),
			KeyFiles: c.AcceptedKeyFiles, MinTokenExpiration: c.MinTokenExpiration, MaxTokenExpiration: c.MaxTokenExpiration,
		},
		Signing: apiserver.Signing{
			CertFile: a.dir.CACert(), KeyFile: a.dir.CAKey(), ServingCertFile: a.dir.NodesCACert(), ServingKeyFile: a.dir.NodesCAKey(),
		},
		Nodes: nodeclient.Config{CertFile: a.dir.NodeClientCert(), KeyFile: a.dir.NodeClientKey(), CAFile: a.dir.NodesCACert()},
		Audit: auditlog.Options{LogPath: a.dir.AuditLog(), Mode: c.AuditLogMode, MaxAge: auditMaxAge, MaxBackups: auditMaxBackups, MaxSize: auditMaxSize},
	}
}

func (a *Authority) issuers(c Config) []string {
	if len(c.Issuers) > 0 {
		return c.Issuers
	}
	return []string{a.URL, apiserver.DefaultIssuer}
}

// Kubeconfig is the file that lets kubectl act as the administrator.
func (a *Authority) Kubeconfig() string { return a.dir.Kubeconfig() }

// EnsureNode makes the files with which an agent of this machine runs as the node called name, reached under addresses:
// see datadir.Dir. They are renewed from then on. If the node was evicted, new ones are made: the machine that has the data
// directory may be its own node again.
func (a *Authority) EnsureNode(name string, addresses []net.IP) (datadir.NodeFiles, error) {
	return a.certs.ensureNode(name, addresses, a.server.EarliestOf)
}

// DataDir is the absolute path of the data directory.
func (a *Authority) DataDir() string { return a.dir.Path() }

// Wait returns when the authority ends: nil after Stop or the end of its context, otherwise why.
func (a *Authority) Wait() error {
	var err error
	select {
	case <-a.ended:
		err = a.err
	case err = <-a.etcd.Failed():
	case err = <-a.lost:
	}
	return errors.Join(err, a.release())
}

// watchFiles looks for files that were removed or replaced. etcd does not notice: it goes on with files that have no name
// any more, and acknowledges what ends with the process.
func (a *Authority) watchFiles(ctx context.Context) {
	tick := time.NewTicker(filesPeriod)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := cmp.Or(a.dir.Held(), a.etcd.Held()); err != nil {
			a.lost <- err
			return
		}
	}
}

// Ending is closed when the authority begins to end, for whatever reason. It has ended StopTimeout later at the latest.
func (a *Authority) Ending() <-chan struct{} { return a.ending }

// StopTimeout bounds how long the end of the authority takes.
func (a *Authority) StopTimeout() time.Duration {
	return a.server.StopTimeout() + certificatesTimeout + etcdTimeout + directoryTimeout
}

// Stop ends the authority in order and waits for it.
func (a *Authority) Stop() error {
	a.stop()
	return a.Wait()
}

// release gives back what Start took, in the reverse order: etcd goes once nothing uses it. A step that hangs, as on a
// broken disk, does not keep the later ones from being taken.
func (a *Authority) release() error {
	var errs []error
	if a.stop != nil {
		a.stop()
		errs = append(errs, deadline.Run(a.server.StopTimeout(), "stop the server", func() error { <-a.ended; return nil }))
	}
	if a.certs != nil {
		errs = append(errs, deadline.Run(certificatesTimeout, "end the renewal of certificates", func() error { a.certs.close(); return nil }))
	}
	if a.etcd != nil {
		ctx, cancel := context.WithTimeout(context.Background(), etcdTimeout)
		defer cancel()
		errs = append(errs, a.etcd.Stop(ctx))
	}
	if a.dir != nil {
		errs = append(errs, deadline.Run(directoryTimeout, "release "+a.dir.Path(), a.dir.Close))
	}
	return errors.Join(errs...)
}

// reachable is the host and port that a client on this machine uses: an unspecified address is reached by loopback.
func reachable(l net.Listener) string {
	address := l.Addr().(*net.TCPAddr)
	host := address.IP.String()
	if address.IP.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, fmt.Sprint(address.Port))
}

func hostOf(rawURL string) string {
	u, err := url.Parse(rawURL)
	if err != nil {
		return ""
	}
	return u.Host
}
