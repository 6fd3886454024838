package apiserver

import (
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation/field"

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

func (o *Signing) validate(path *field.Path) field.ErrorList {
	faults := together(path, "certFile", o.CertFile, "keyFile", o.KeyFile)
	faults = append(faults, together(path, "servingCertFile", o.ServingCertFile, "servingKeyFile", o.ServingKeyFile)...)
	if o.ServingCertFile != "" && o.CertFile == "" {
		faults = append(faults, field.Required(path.Child("certFile"), fmt.Sprintf(
			"`%v` needs `%v`: nodes ask for client certificates first", path.Child("servingCertFile"), path.Child("certFile"))))
	}
	if o.Duration != 0 && o.Duration < certificates.MinDuration {
		faults = append(faults, field.Invalid(path.Child("duration"), o.Duration, "must be at least 10m"))
	}
	return faults
}

// together returns the fault of two options of which only one is set.
func together(path *field.Path, a, valueOfA, b, valueOfB string) field.ErrorList {
	if (valueOfA == "") == (valueOfB == "") {
		return nil
	}
	missing := a
	if valueOfB == "" {
		missing = b
	}
	return field.ErrorList{field.Required(path.Child(missing), fmt.Sprintf("`%v` and `%v` go together", path.Child(a), path.Child(b)))}
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

// Validate returns every fault of the options. A field path consists of the names of Options' fields. The text of a fault that
// concerns several fields quotes their paths with backquotes.
func (o *Options) Validate() field.ErrorList {
	var faults field.ErrorList
	require := func(value string, path *field.Path) {
		if value == "" {
			faults = append(faults, field.Required(path, ""))
		}
	}
	require(o.TLSCertFile, field.NewPath("tlsCertFile"))
	require(o.TLSPrivateKeyFile, field.NewPath("tlsPrivateKeyFile"))
	require(strings.Join(o.Etcd.Servers, ","), field.NewPath("etcd", "servers"))
	if o.ShutdownDelay < 0 {
		faults = append(faults, field.Invalid(field.NewPath("shutdownDelay"), o.ShutdownDelay, "must not be negative"))
	}
	faults = append(faults, together(field.NewPath("etcd"), "certFile", o.Etcd.CertFile, "keyFile", o.Etcd.KeyFile)...)
	accounts := field.NewPath("serviceAccounts")
	require(strings.Join(o.ServiceAccounts.Issuers, ","), accounts.Child("issuers"))
	require(o.ServiceAccounts.SigningKeyFile, accounts.Child("signingKeyFile"))
	faults = append(faults, o.ServiceAccounts.Validate(accounts)...)
	faults = append(faults, o.Signing.validate(field.NewPath("signing"))...)
	faults = append(faults, o.Audit.Validate(field.NewPath("audit"))...)
	return append(faults, o.Nodes.Validate(field.NewPath("nodes"))...)
}

// Validate returns every fault of the options that are set. It does not report the required ones that are missing.
func (o *ServiceAccounts) Validate(path *field.Path) field.ErrorList {
	var faults field.ErrorList
	for i, issuer := range o.Issuers {
		if u, err := url.Parse(issuer); issuer == "" || strings.Contains(issuer, ":") && (err != nil || u.Scheme != "https") {
			faults = append(faults, field.Invalid(path.Child("issuers").Index(i), issuer, "must be an https URL, or a name without a colon"))
		}
	}
	if u, err := url.Parse(o.JWKSURI); o.JWKSURI != "" && (err != nil || u.Scheme != "https") {
		faults = append(faults, field.Invalid(path.Child("jwksURI"), o.JWKSURI, "must be an https URL"))
	}
	if o.MaxTokenExpiration < 0 || o.MaxTokenExpiration > 0 && o.MaxTokenExpiration < o.shortest() {
		faults = append(faults, field.Invalid(path.Child("maxTokenExpiration"), o.MaxTokenExpiration, fmt.Sprintf("must be 0 or at least %v", o.shortest())))
	}
	return faults
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
