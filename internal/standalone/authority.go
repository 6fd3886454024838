package standalone

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"slices"
	"strconv"
	"syscall"
	"time"

	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"lanyard.dev/internal/apiserver"
	"lanyard.dev/internal/apiserver/auditlog"
	"lanyard.dev/internal/apiserver/nodeclient"
	"lanyard.dev/internal/datadir"
	"lanyard.dev/internal/deadline"
	"lanyard.dev/internal/etcd"
	"lanyard.dev/internal/hint"
	"lanyard.dev/internal/signingkey"
	"lanyard.dev/internal/token"
)

// Config configures an authority.
type Config struct {
	DataDir     string
	BindAddress string
	// Port is the port to serve on. 0 means a free one.
	Port int
	// Log receives the warnings and errors of etcd.
	Log io.Writer

	// MinTokenExpiration and UnsafeNoFsync are for tests: tokens that expire during a test, and writes that do not wait for the
	// disk.
	MinTokenExpiration time.Duration
	UnsafeNoFsync      bool
	// AcceptUnrecorded accepts tokens that the authority has no record of, while it takes over from another issuer.
	AcceptUnrecorded bool
	// Unannounced keeps other commands of this user from finding the authority and using it by default.
	Unannounced bool
	// AuthenticationConfig is a file with the issuers whose tokens identify users.
	AuthenticationConfig string
	// AdmissionConfig is a file with the Pod Security Standard of namespaces that have no label for one.
	AdmissionConfig string
	// AuditLogMode is one of auditlog.Modes; empty means auditlog.Blocking.
	AuditLogMode string
	// clock determines which certificates are due. nil means the real clock.
	clock clock.Clock
	// Issuers are the issuers of tokens. The first one issues tokens, and the tokens of all are accepted. If there are none, they
	// are the URL of the authority and apiserver.DefaultIssuer.
	Issuers []string
	// JWKSURI replaces the URL of the key set in the discovery document.
	JWKSURI string
	// SigningAlgorithm is the algorithm of the signing key that the first start creates, or of the existing key. If it is empty, a
	// new key has signingkey.DefaultAlgorithm, and an existing key may have any.
	SigningAlgorithm signingkey.Algorithm
	// AudienceAlgorithms names the algorithms that audiences need. A key for each is created.
	AudienceAlgorithms token.AlgorithmPolicy
	// AcceptedKeyFiles have further keys whose tokens are accepted.
	AcceptedKeyFiles []string
	// MaxTokenExpiration limits the life of tokens. 0 means no limit.
	MaxTokenExpiration time.Duration
	// EncryptionKeyAge is the age at which the key that encrypts secrets is replaced. 0 means never.
	EncryptionKeyAge time.Duration
}

// The rotation of the audit log keeps at most about 1 GB and 30 days.
const auditMaxAge, auditMaxBackups, auditMaxSize = 30, 10, 100

// The limits of the steps of the end. A step that takes longer is left behind. The server has a limit of its own.
const (
	certificatesTimeout = time.Second
	encryptionTimeout   = time.Second
	etcdTimeout         = 4 * time.Second
	directoryTimeout    = time.Second
)

// filesPeriod limits how long writes are still acknowledged after the files were removed.
const filesPeriod = 500 * time.Millisecond

// Authority is a running authority with its own etcd.
type Authority struct {
	// URL is where the API is served.
	URL string

	dir        *datadir.Dir
	certs      *certificates
	encryption *encryptionKeys
	keys       keyFiles
	etcd       *etcd.Server
	server     *apiserver.Server
	stop       context.CancelFunc
	ending     <-chan struct{} // closed when stop is called
	ended      chan struct{}   // closed when the server has ended, with err
	err        error
	lost       chan error // receives an error if the files were removed or replaced
}

// Start locks the data directory, listens on the port, creates the files that are missing, and serves until Stop is called
// or ctx ends. It returns when the API answers. After an error nothing runs and nothing is locked. Files that were created
// are used by the next start.
func Start(ctx context.Context, c Config) (*Authority, error) {
	a := &Authority{ended: make(chan struct{}), lost: make(chan error, 1)}
	if err := a.start(ctx, c); err != nil {
		return nil, errors.Join(err, a.release())
	}
	return a, nil
}

func (a *Authority) start(ctx context.Context, c Config) (err error) {
	// The directory is opened first, because an instance that has locked it also explains a port in use. A new directory is
	// created only when there is a port to serve on.
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
		if c.EncryptionKeyAge > 0 {
			go a.encryption.keep(running)
		}
		if c.Unannounced {
			return nil
		}
		if err := a.dir.Announce(a.URL); err != nil {
			klog.ErrorS(err, "Other commands do not find this authority without --kubeconfig", "kubeconfig", a.Kubeconfig())
		}
		return nil
	case <-a.ended:
		return orCause(ctx, a.err)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// orCause returns err, or the cause of ctx if err is nil.
func orCause(ctx context.Context, err error) error {
	if err == nil {
		return context.Cause(ctx)
	}
	return err
}

// assemble opens the directory, creates its files, starts etcd and builds the server.
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
	if err := a.ensureFiles(c); err != nil {
		return err
	}
	a.etcd, err = etcd.Start(ctx, etcd.Config{Dir: a.dir.EtcdDir(), Log: c.Log, UnsafeNoFsync: c.UnsafeNoFsync})
	if err != nil {
		return err
	}
	if err := a.dir.MarkData(); err != nil {
		return err
	}
	if a.server, err = apiserver.New(a.options(c, listener)); err != nil {
		return err
	}
	client, err := a.etcd.Client()
	if err != nil {
		return err
	}
	a.encryption = &encryptionKeys{dir: a.dir, encryption: a.server.Encryption(), client: client, clock: clockOf(c), age: c.EncryptionKeyAge}
	return nil
}

// clockOf returns the clock of a configuration.
func clockOf(c Config) clock.Clock { return cmp.Or[clock.Clock](c.clock, clock.RealClock{}) }

// ensureFiles creates the keys, certificates and the kubeconfig that are missing.
func (a *Authority) ensureFiles(c Config) error {
	a.certs = &certificates{dir: a.dir, url: a.URL, bindAddress: c.BindAddress, clock: clockOf(c)}
	if err := a.certs.ensure(); err != nil {
		return err
	}
	var err error
	if a.keys, err = a.ensureSigningKeys(c); err != nil {
		return err
	}
	return a.dir.EnsureEncryptionConfig()
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
			Issuers: a.issuers(c), JWKSURI: c.JWKSURI, SigningKeyFiles: a.keys.signing,
			KeyFiles: slices.Concat(c.AcceptedKeyFiles, a.keys.accepted), AudienceAlgorithms: c.AudienceAlgorithms,
			MinTokenExpiration: c.MinTokenExpiration, MaxTokenExpiration: c.MaxTokenExpiration,
			AcceptUnrecorded: c.AcceptUnrecorded,
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

// Kubeconfig is the administrator's kubeconfig.
func (a *Authority) Kubeconfig() string { return a.dir.Kubeconfig() }

// EnsureNode creates the files with which an agent on this machine runs as the node called name, reached under addresses:
// see datadir.Dir. From then on they are renewed. If the node was evicted, they are created again, because the machine with
// the data directory may be its own node again.
func (a *Authority) EnsureNode(name string, addresses []net.IP) (datadir.NodeFiles, error) {
	return a.certs.ensureNode(name, addresses, a.server.EarliestOf)
}

// DataDir is the absolute path of the data directory.
func (a *Authority) DataDir() string { return a.dir.Path() }

// Wait returns when the authority has ended: nil after Stop or the end of its context, otherwise the reason.
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

// watchFiles reports files that were removed or replaced. etcd does not detect it: it continues to write to files without a
// name, and acknowledges writes that are lost when the process ends.
func (a *Authority) watchFiles(ctx context.Context) {
	tick := time.NewTicker(filesPeriod)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := cmp.Or(a.dir.CheckInPlace(), a.etcd.CheckInPlace()); err != nil {
			a.lost <- err
			return
		}
	}
}

// Ending returns a channel that is closed when the authority begins to end, for any reason. The authority has ended at most
// StopTimeout later.
func (a *Authority) Ending() <-chan struct{} { return a.ending }

// StopTimeout limits how long the end of the authority takes.
func (a *Authority) StopTimeout() time.Duration {
	return a.server.StopTimeout() + certificatesTimeout + encryptionTimeout + etcdTimeout + directoryTimeout
}

// Stop ends the authority gracefully and waits for its end.
func (a *Authority) Stop() error {
	a.stop()
	return a.Wait()
}

// release undoes Start in reverse order, so that etcd ends when nothing uses it any more. A step that hangs, for example
// because of a broken disk, does not prevent the later ones.
func (a *Authority) release() error {
	var errs []error
	if a.stop != nil {
		a.stop()
		errs = append(errs, deadline.Run(a.server.StopTimeout(), "stop the server", func() error { <-a.ended; return nil }))
	}
	if a.certs != nil {
		errs = append(errs, deadline.Run(certificatesTimeout, "end the renewal of certificates", func() error { a.certs.close(); return nil }))
	}
	if a.encryption != nil {
		errs = append(errs, deadline.Run(encryptionTimeout, "end the replacement of encryption keys", a.encryption.close))
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

// reachable returns the host and port for clients on this machine. They reach an unspecified address by loopback.
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

// Listen listens on the address and port. Port 0 means a free one.
func Listen(address string, port int) (net.Listener, error) {
	target := net.JoinHostPort(address, strconv.Itoa(port))
	l, err := net.Listen("tcp", target)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, portTaken(target, holder(port), err)
	case err != nil:
		return nil, fmt.Errorf("listen on %s: %w", target, err)
	}
	return l, nil
}

// portTaken returns the error for an address on which another process listens. holder describes that process, or is "".
func portTaken(address, holder string, err error) error {
	if holder == "" {
		holder = "another process"
	}
	return hint.New(&portError{address, holder, err}, "choose another port with --secure-port, or end that process first")
}

// portError does not repeat its cause in its text.
type portError struct {
	address, holder string
	cause           error
}

func (e *portError) Error() string { return fmt.Sprintf("%s is taken by %s", e.address, e.holder) }

func (e *portError) Unwrap() error { return e.cause }

// holder describes the process that listens on a port of this machine, or returns "".
func holder(port int) string {
	running, err := datadir.FindRunning()
	if err != nil {
		running = nil
	}
	for _, r := range running {
		if _, p, err := net.SplitHostPort(hostOf(r.URL)); err == nil && p == strconv.Itoa(port) {
			return fmt.Sprintf("lanyard up (process %d, data directory %s)", r.PID, r.DataDir)
		}
	}
	return listenerOf(port)
}
