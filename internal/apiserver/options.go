package apiserver

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"lanyard.dev/internal/apiserver/auditlog"
	"lanyard.dev/internal/apiserver/nodeclient"
	"lanyard.dev/internal/controller/certificates"
	"lanyard.dev/internal/signingkey"
	"lanyard.dev/internal/signingkey/rotation"
	"lanyard.dev/internal/token"
)

// Options are the settings of one authority. Files are read once, at the start, except for certificates and the keys of
// tokens, which are read again when they change.
type Options struct {
	// Listener accepts the connections that the authority serves. Run closes it.
	Listener net.Listener

	// TLSCertFile and TLSPrivateKeyFile are the serving certificate with its chain, and its key, in PEM.
	TLSCertFile, TLSPrivateKeyFile string
	// ClientCAFile holds the CAs of client certificates; empty accepts none.
	ClientCAFile string
	// AuthenticationConfig is a file with an apiserver.config.k8s.io AuthenticationConfiguration: the issuers of the
	// tokens that users sign in with. It is read again when it changes.
	AuthenticationConfig string
	// AdmissionConfig is a file with an apiserver.config.k8s.io AdmissionConfiguration: the Pod Security Standard of
	// namespaces whose labels choose none.
	AdmissionConfig string
	// RootCAFile holds the CA that workloads verify the server with. It is published as kube-root-ca.crt in every
	// namespace.
	RootCAFile string

	Etcd Etcd
	// ShutdownDelay is how long the server still serves requests after ctx ends. /readyz fails during this time, so that load
	// balancers stop sending requests to the server.
	ShutdownDelay time.Duration
	// EncryptionProviderConfig is a file with an apiserver.config.k8s.io/v1 EncryptionConfiguration.
	EncryptionProviderConfig string

	ServiceAccounts ServiceAccounts
	Signing         Signing
	Audit           auditlog.Options
	// Nodes holds the credentials for connections to the agents of nodes, for logs and exec.
	Nodes nodeclient.Config
}

// Etcd is the store of objects.
type Etcd struct {
	Servers []string
	// CAFile, CertFile and KeyFile secure the connection. They are empty for a unix socket.
	CAFile, CertFile, KeyFile string
	// SoleWriter is true if no other process writes to this etcd.
	SoleWriter bool
	// MaxLag replaces mirror.MaxLag if it is not 0. Only tests set it.
	MaxLag time.Duration
}

// ServiceAccounts are the settings of service account tokens.
type ServiceAccounts struct {
	// Issuers are URLs or names. New tokens carry the first; tokens of all are accepted.
	Issuers []string
	// SigningKeyFiles hold the keys that sign tokens, one in each file and at most one for each algorithm. The first signs by
	// default. If there are none, the authority makes the keys itself, keeps them in etcd and replaces them, as Keys says. Tokens
	// signed by the keys in KeyFiles are accepted too.
	SigningKeyFiles []string
	KeyFiles        []string
	Keys            Keys
	// SigningEndpoint is the unix socket of an external signer. It excludes SigningKeyFiles, KeyFiles and AudienceAlgorithms, because
	// the signer has all keys and chooses the one that signs.
	SigningEndpoint string
	// AudienceAlgorithms names the algorithms that audiences need. If the keys are in files, there must be one for each algorithm.
	AudienceAlgorithms token.AlgorithmPolicy
	// APIAudiences are the audiences that identify this server; empty means Issuers.
	APIAudiences []string
	// MaxTokenExpiration limits the life of a token; 0 sets no limit. A request for a longer one is answered with a
	// shorter one.
	MaxTokenExpiration time.Duration
	// MinTokenExpiration is the shortest life that a client may request; 0 means Kubernetes' 10 minutes. Only tests set
	// it.
	MinTokenExpiration time.Duration
	// AcceptUnrecorded makes the server accept tokens that the ledger has no record of. It is for the time of a takeover from
	// another issuer with the same keys: without records, whoever has a key can make tokens.
	AcceptUnrecorded bool
	// JWKSURI replaces the URL of the key set in the discovery document.
	JWKSURI string
}

// Keys are the settings of the keys that are kept in etcd.
type Keys struct {
	// Algorithm is the algorithm of tokens whose audience needs no other; "" is that of the key that signs, and
	// signingkey.DefaultAlgorithm if there is none.
	Algorithm signingkey.Algorithm
	// RotationPeriod is how long a key signs; 0 replaces keys on request only.
	RotationPeriod time.Duration
	// TakeOverFiles have the private keys with which the tokens of this authority were signed before its keys were kept in etcd.
	// Those that exist are stored in etcd; the caller may remove them when the server is ready.
	TakeOverFiles []string
	// Lead and Linger replace how long a key is published before it signs, and accepted after, if they are not 0. Only tests set
	// them.
	Lead, Linger time.Duration
}

// minRotationPeriod is the shortest period in which a key can be published for long enough, and then sign for a while.
const minRotationPeriod = 2 * time.Hour

// rotation returns when the keys in etcd change.
func (o *ServiceAccounts) rotation() rotation.Policy {
	k := &o.Keys
	algorithms := append([]signingkey.Algorithm{k.Algorithm}, slices.Sorted(maps.Values(o.AudienceAlgorithms))...)
	return rotation.Policy{
		Algorithms: slices.Compact(algorithms), Period: k.RotationPeriod,
		Lead:   cmp.Or(k.Lead, rotation.Lead(keySetMaxAge)),
		Linger: cmp.Or(k.Linger, rotation.DefaultLinger), Kept: cmp.Or(k.Linger, rotation.DefaultKept),
	}
}

// inEtcd reports whether the keys that sign tokens are in etcd.
func (o *ServiceAccounts) inEtcd() bool {
	return len(o.SigningKeyFiles) == 0 && o.SigningEndpoint == ""
}

func (k *Keys) validate(path *field.Path) field.ErrorList {
	var faults field.ErrorList
	if k.Algorithm != "" && !slices.Contains(signingkey.Algorithms(), k.Algorithm) {
		faults = append(faults, field.Invalid(path.Child("algorithm"), string(k.Algorithm), fmt.Sprintf("must be one of %v", signingkey.Algorithms())))
	}
	if k.RotationPeriod < 0 || k.Lead == 0 && k.RotationPeriod > 0 && k.RotationPeriod < minRotationPeriod {
		faults = append(faults, field.Invalid(path.Child("rotationPeriod"), k.RotationPeriod, fmt.Sprintf("must be 0 or at least %v", minRotationPeriod)))
	}
	return faults
}

// Signing holds the CA that signs certificate requests. Without one, requests stay unsigned.
type Signing struct {
	// CertFile and KeyFile are the CA, in PEM. The authority accepts its client certificates only if ClientCAFile holds
	// the CA.
	CertFile, KeyFile string
	// ServingCertFile and ServingKeyFile are the CA that signs the serving certificates of nodes, if it is another one.
	// Clients of the authority should not trust this CA, so that no node can impersonate the authority.
	ServingCertFile, ServingKeyFile string
	// Duration is how long a certificate is valid at most; 0 means one year.
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

// keyFiles returns the files that hold a private key or an encryption key.
func (o *Options) keyFiles() []string {
	all := []string{
		o.TLSPrivateKeyFile, o.Etcd.KeyFile, o.Signing.KeyFile, o.Signing.ServingKeyFile, o.Nodes.KeyFile, o.EncryptionProviderConfig,
	}
	all = slices.Concat(all, o.ServiceAccounts.SigningKeyFiles, o.ServiceAccounts.Keys.TakeOverFiles)
	return slices.DeleteFunc(all, func(file string) bool { return file == "" })
}

// DefaultIssuer is kube-apiserver's usual issuer name.
const DefaultIssuer = "https://kubernetes.default.svc.cluster.local"

// Validate returns every fault of the options. A field path consists of the names of Options' fields. The text of a
// fault that concerns several fields quotes their paths with backquotes.
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
	if o.ServiceAccounts.inEtcd() && o.EncryptionProviderConfig == "" {
		file, encryption := accounts.Child("signingKeyFiles"), field.NewPath("encryptionProviderConfig")
		faults = append(faults, field.Required(encryption, fmt.Sprintf(
			"`%v` or `%v` is required: without a file, the signing keys are stored in etcd, and must be encrypted there", encryption, file)))
	}
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
	faults = append(faults, o.Keys.validate(path.Child("keys"))...)
	if u, err := url.Parse(o.JWKSURI); o.JWKSURI != "" && (err != nil || u.Scheme != "https") {
		faults = append(faults, field.Invalid(path.Child("jwksURI"), o.JWKSURI, "must be an https URL"))
	}
	if o.MaxTokenExpiration < 0 || o.MaxTokenExpiration > 0 && o.MaxTokenExpiration < o.shortest() {
		faults = append(faults, field.Invalid(path.Child("maxTokenExpiration"), o.MaxTokenExpiration, fmt.Sprintf("must be 0 or at least %v", o.shortest())))
	}
	faults = append(faults, o.validateEndpoint(path)...)
	algorithms := path.Child("audienceAlgorithms")
	for _, audience := range slices.Sorted(maps.Keys(o.AudienceAlgorithms)) {
		alg := o.AudienceAlgorithms[audience]
		if audience == "" {
			faults = append(faults, field.Invalid(algorithms.Key(audience), alg, "names no audience"))
		}
		if !slices.Contains(signingkey.Algorithms(), alg) {
			faults = append(faults, field.Invalid(algorithms.Key(audience), alg, fmt.Sprintf("must be one of %v", signingkey.Algorithms())))
		}
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
