package apiserver

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"lanyard.dev/internal/apiserver/auditlog"
	"lanyard.dev/internal/apiserver/nodeclient"
	"lanyard.dev/internal/controller/certificates"
	"lanyard.dev/internal/token"
)

// Options are the settings of one authority. File names are read once, at the start, but for certificates, which are
// read again when they change.
type Options struct {
	// Listener is where to serve. The server closes it.
	Listener net.Listener

	// TLSCertFile and TLSPrivateKeyFile are the serving certificate with its chain, and its key, in PEM.
	TLSCertFile, TLSPrivateKeyFile string
	// ClientCAFile holds the CAs of client certificates; empty accepts none.
	ClientCAFile string
	// AuthenticationConfig is an apiserver.config.k8s.io AuthenticationConfiguration: the issuers by whose tokens people
	// sign in. It is read again when it changes.
	AuthenticationConfig string
	// AdmissionConfig is an apiserver.config.k8s.io AdmissionConfiguration: which Pod Security Standard namespaces are held to
	// that choose none.
	AdmissionConfig string
	// RootCAFile is what workloads verify the server with: it is published as kube-root-ca.crt in every namespace.
	RootCAFile string

	Etcd Etcd
	// ShutdownDelay is how long a server that was told to stop goes on serving, with /readyz failing, before it stops
	// accepting: load balancers need some time to take it out.
	ShutdownDelay time.Duration
	// EncryptionProviderConfig is an apiserver.config.k8s.io/v1 EncryptionConfiguration.
	EncryptionProviderConfig string

	ServiceAccounts ServiceAccounts
	Signing         Signing
	Audit           auditlog.Options
	// Nodes says how the agents of nodes are connected to, for logs and exec.
	Nodes nodeclient.Config
}

// Etcd names the store.
type Etcd struct {
	Servers []string
	// CAFile, CertFile and KeyFile secure the connection; all empty for a unix socket.
	CAFile, CertFile, KeyFile string
	// SoleWriter says that no other process writes to this etcd.
	SoleWriter bool
	// MaxLag replaces mirror.MaxLag. Tests alone set it.
	MaxLag time.Duration
}

// ServiceAccounts rule tokens.
type ServiceAccounts struct {
	// Issuers are URLs: the first issues, all are accepted.
	Issuers []string
	// SigningKeyFile signs; KeyFiles are accepted besides.
	SigningKeyFile string
	KeyFiles       []string
	// APIAudiences are the server's own names; empty means the issuers.
	APIAudiences []string
	// MaxTokenExpiration shortens every longer token; 0 shortens none.
	MaxTokenExpiration time.Duration
	// MinTokenExpiration is the least that may be asked for; 0 means Kubernetes' 10 minutes. Tests alone set it.
	MinTokenExpiration time.Duration
	// JWKSURI replaces the URL of the key set in the discovery document.
	JWKSURI string
}

// Signing rules the certificates that are made on request. Without a CA requests stay unsigned.
type Signing struct {
	// CertFile and KeyFile are the CA, in PEM. Clients are only known by its certificates if ClientCAFile holds it.
	CertFile, KeyFile string
	// ServingCertFile and ServingKeyFile are the CA that signs what nodes serve with, if it is another. Clients of the
	// authority should not trust it: no node can pass for the authority then.
	ServingCertFile, ServingKeyFile string
	// Duration is how long a certificate is valid at the most; 0 means one year.
	Duration time.Duration
}

func (o *Signing) validate() []error {
	var errs []error
	if (o.CertFile == "") != (o.KeyFile == "") {
		errs = append(errs, errors.New("--cluster-signing-cert-file and --cluster-signing-key-file go together"))
	}
	if (o.ServingCertFile == "") != (o.ServingKeyFile == "") {
		errs = append(errs, errors.New("--cluster-signing-kubelet-serving-cert-file and --cluster-signing-kubelet-serving-key-file go together"))
	}
	if o.ServingCertFile != "" && o.CertFile == "" {
		errs = append(errs, errors.New("--cluster-signing-kubelet-serving-cert-file needs --cluster-signing-cert-file: nodes ask for client certificates first"))
	}
	if o.Duration != 0 && o.Duration < certificates.MinDuration {
		errs = append(errs, fmt.Errorf("--cluster-signing-duration %v: must be at least 10m", o.Duration))
	}
	return errs
}

// keyFiles are the files that hold a private key, or one that encrypts.
func (o *Options) keyFiles() []string {
	all := []string{
		o.TLSPrivateKeyFile, o.Etcd.KeyFile, o.ServiceAccounts.SigningKeyFile, o.Signing.KeyFile, o.Signing.ServingKeyFile,
		o.Nodes.KeyFile, o.EncryptionProviderConfig,
	}
	return slices.DeleteFunc(all, func(file string) bool { return file == "" })
}

// DefaultIssuer is kube-apiserver's usual issuer name.
const DefaultIssuer = "https://kubernetes.default.svc.cluster.local"

// Validate returns every fault at once, each naming its flag.
func (o *Options) Validate() error {
	var errs []error
	require := func(value, flag string) {
		if value == "" {
			errs = append(errs, fmt.Errorf("%s is required", flag))
		}
	}
	require(o.TLSCertFile, "--tls-cert-file")
	require(o.TLSPrivateKeyFile, "--tls-private-key-file")
	require(strings.Join(o.Etcd.Servers, ","), "--etcd-servers")
	if o.ShutdownDelay < 0 {
		errs = append(errs, fmt.Errorf("--shutdown-delay-duration %v: must not be negative", o.ShutdownDelay))
	}
	if (o.Etcd.CertFile == "") != (o.Etcd.KeyFile == "") {
		errs = append(errs, errors.New("--etcd-certfile and --etcd-keyfile go together"))
	}
	errs = append(errs, o.ServiceAccounts.validate()...)
	errs = append(errs, o.Signing.validate()...)
	errs = append(errs, o.Audit.Validate()...)
	errs = append(errs, o.Nodes.Validate()...)
	return errors.Join(errs...)
}

func (o *ServiceAccounts) validate() []error {
	var errs []error
	if len(o.Issuers) == 0 {
		errs = append(errs, errors.New("--service-account-issuer is required"))
	}
	errs = append(errs, ValidateIssuers(o.Issuers, o.JWKSURI))
	if o.SigningKeyFile == "" {
		errs = append(errs, errors.New("--service-account-signing-key-file is required"))
	}
	if o.MaxTokenExpiration < 0 || o.MaxTokenExpiration > 0 && o.MaxTokenExpiration < o.shortest() {
		errs = append(errs, fmt.Errorf("--service-account-max-token-expiration %v: must be 0 or at least %v", o.MaxTokenExpiration, o.shortest()))
	}
	return errs
}

// ValidateIssuers checks the issuers of tokens, and the URL of their key set if there is one, each naming its flag.
func ValidateIssuers(issuers []string, jwksURI string) error {
	var errs []error
	for _, issuer := range issuers {
		if u, err := url.Parse(issuer); issuer == "" || strings.Contains(issuer, ":") && (err != nil || u.Scheme != "https") {
			errs = append(errs, fmt.Errorf("--service-account-issuer %q: must be an https URL, or a name without a colon", issuer))
		}
	}
	if u, err := url.Parse(jwksURI); jwksURI != "" && (err != nil || u.Scheme != "https") {
		errs = append(errs, fmt.Errorf("--service-account-jwks-uri %q: must be an https URL", jwksURI))
	}
	return errors.Join(errs...)
}

func (o *ServiceAccounts) shortest() time.Duration {
	if o.MinTokenExpiration > 0 {
		return o.MinTokenExpiration
	}
	return token.MinLifetime
}

func (o *ServiceAccounts) audiences() []string {
	if len(o.APIAudiences) > 0 {
		return o.APIAudiences
	}
	return o.Issuers
}
