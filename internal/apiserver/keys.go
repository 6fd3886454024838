package apiserver

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"lanyard.dev/internal/apiserver/admission/podsecurity"
	"lanyard.dev/internal/apiserver/api"
	"lanyard.dev/internal/apiserver/auditlog"
	"lanyard.dev/internal/apiserver/authn/oidc"
	"lanyard.dev/internal/apiserver/keyfiles"
	"lanyard.dev/internal/controller/certificates"
	"lanyard.dev/internal/files"
	"lanyard.dev/internal/hint"
	"lanyard.dev/internal/pki"
	"lanyard.dev/internal/signingkey"
	"lanyard.dev/internal/signingkey/rotation"
)

// keys are the keys and certificates of an authority.
type keys struct {
	// tokens signs and verifies the tokens of service accounts. The files are read again when they change. It is nil if an external
	// signer has the keys.
	tokens *keyfiles.Keys
	// takeOver are the keys with which an authority signed before its keys were in etcd.
	takeOver []rotation.File

	// serving is the certificate that the authority serves with. The file is read again when it changes.
	serving dynamiccertificates.CertKeyContentProvider
	// clients are the CAs of client certificates; nil if none is accepted. The file is read again when it changes.
	clients dynamiccertificates.CAContentProvider
	// signing returns the CA that signs certificate requests; nil if the authority signs none. The files are read for
	// each certificate, so a new CA takes effect without a restart.
	signing certificates.CA

	// rootCA and nodesCA are the certificates, in PEM, that clients verify the authority and nodes with.
	rootCA, nodesCA []byte
}

// newKeys reads and checks every file with a key or a certificate.
func newKeys(o *Options) (keys, error) {
	private := o.keyFiles()
	for _, file := range files.WorldReadable(private...) {
		klog.ErrorS(nil, "Every user of this machine may read a key file: run chmod o-r", "file", file)
	}
	if err := files.CheckUnwritable(private...); err != nil {
		return keys{}, err
	}
	tokens, err := openKeyFiles(&o.ServiceAccounts)
	if err != nil {
		return keys{}, err
	}
	taken, err := readTakeOver(o.ServiceAccounts.Keys.TakeOverFiles)
	if err != nil {
		return keys{}, err
	}
	signing, err := loadSigningCA(&o.Signing)
	if err != nil {
		return keys{}, err
	}
	if err := checkReloadable(o); err != nil {
		return keys{}, err
	}
	k := keys{tokens: tokens, takeOver: taken, signing: signing}
	if k.rootCA, err = publicCA(o.RootCAFile); err != nil {
		return keys{}, fmt.Errorf("root CA: %w", err)
	}
	// The serving certificates of nodes are verified with the configured CA of nodes or, if there is none, with the CA that signs
	// these certificates.
	if k.nodesCA, err = publicCA(cmp.Or(o.Nodes.CAFile, o.Signing.ServingCertFile, o.Signing.CertFile)); err != nil {
		return keys{}, fmt.Errorf("CA of nodes: %w", err)
	}
	if err := k.openReloaders(o); err != nil {
		return keys{}, err
	}
	return k, nil
}

// checkReloadable reads the files of openReloaders first, for two reasons: a provider that cannot read its file does not end its
// goroutines, and a provider does not limit the size of the file.
func checkReloadable(o *Options) error {
	if _, err := pki.ReadKeyPair(o.TLSCertFile, o.TLSPrivateKeyFile); err != nil {
		return fmt.Errorf("serving certificate %s with key %s: %w", o.TLSCertFile, o.TLSPrivateKeyFile, err)
	}
	if o.ClientCAFile != "" {
		if _, err := pki.ReadRoots(o.ClientCAFile); err != nil {
			return fmt.Errorf("client CA: %w", err)
		}
	}
	return nil
}

// openReloaders makes the providers of the files that are read again when they change.
func (k *keys) openReloaders(o *Options) error {
	if o.ClientCAFile != "" {
		clients, err := dynamiccertificates.NewDynamicCAContentFromFile("client-ca-bundle", o.ClientCAFile)
		if err != nil {
			return fmt.Errorf("client CA: %w", err)
		}
		k.clients = clients
	}
	serving, err := dynamiccertificates.NewDynamicServingContentFromFiles("serving-cert", o.TLSCertFile, o.TLSPrivateKeyFile)
	if err != nil {
		k.close()
		return fmt.Errorf("serving certificate %s with key %s: %w", o.TLSCertFile, o.TLSPrivateKeyFile, err)
	}
	k.serving = serving
	return nil
}

// close ends the goroutines of the reloaders. The server that serves with these keys does the same when it ends.
func (k *keys) close() {
	ended, end := context.WithCancel(context.Background())
	end()
	for _, reloader := range []any{k.serving, k.clients} {
		if r, ok := reloader.(dynamiccertificates.ControllerRunner); ok {
			r.Run(ended, 1)
		}
	}
}

// openKeyFiles returns the keys of tokens that are in files, or nil if an external signer has the keys.
func openKeyFiles(o *ServiceAccounts) (*keyfiles.Keys, error) {
	if o.SigningEndpoint != "" {
		return nil, nil
	}
	return keyfiles.Open(keyfiles.Config{Signing: o.SigningKeyFiles, Accepted: o.KeyFiles, Check: o.checkAlgorithms})
}

// checkAlgorithms returns an error if an audience needs an algorithm that no key of the files signs with. Keys in etcd are made for
// each algorithm.
func (o *ServiceAccounts) checkAlgorithms(set *signingkey.Set) error {
	if o.inEtcd() {
		return nil
	}
	for _, audience := range slices.Sorted(maps.Keys(o.AudienceAlgorithms)) {
		if alg := o.AudienceAlgorithms[audience]; set.Signer(alg) == nil {
			return hint.New(fmt.Errorf("signing keys %s: none is a key for %s, which the audience %q needs", strings.Join(o.SigningKeyFiles, ", "), alg, audience),
				"name a key for "+string(alg)+" with --service-account-signing-key-file too")
		}
	}
	return nil
}

// loadSigningCA returns the CA that signs certificate requests, or nil if none is configured. It reads the files once,
// to report a bad one at the start.
func loadSigningCA(o *Signing) (certificates.CA, error) {
	if o.CertFile == "" {
		return nil, nil
	}
	load := func(signerName string) (*pki.Signer, error) {
		if signerName == certificatesv1.KubeletServingSignerName && o.ServingCertFile != "" {
			return pki.LoadSigner(o.ServingCertFile, o.ServingKeyFile)
		}
		return pki.LoadSigner(o.CertFile, o.KeyFile)
	}
	for _, signerName := range []string{certificatesv1.KubeAPIServerClientSignerName, certificatesv1.KubeletServingSignerName} {
		if _, err := load(signerName); err != nil {
			return nil, err
		}
	}
	return load, nil
}

// signs reports whether this server signs the certificate requests to a signer.
func (k *keys) signs(signerName string) bool {
	return k.signing != nil && certificates.Signs(signerName)
}

// publicCA returns the certificates of a file, in PEM, without a private key that is in the same file. It returns nil
// if no file is named.
func publicCA(file string) ([]byte, error) {
	if file == "" {
		return nil, nil
	}
	return pki.ReadPublic(file)
}

// configuration holds what is read from the operator's configuration files.
type configuration struct {
	issuers     *oidc.Authenticator        // of users; nil without an authentication configuration
	podSecurity *podsecurity.Configuration // for namespaces whose labels choose no standard
	audit       *auditlog.Log              // nil if auditing is off
}

// newConfiguration reads the configuration files and opens the audit log.
func newConfiguration(o *Options, tables api.Tables) (configuration, error) {
	var c configuration
	var err error
	if o.AuthenticationConfig != "" {
		accounts := &o.ServiceAccounts
		c.issuers, err = oidc.Open(oidc.Config{
			File: o.AuthenticationConfig, Issuers: accounts.Issuers, Audiences: accounts.audiences(), Clock: clock.RealClock{},
		})
		if err != nil {
			return configuration{}, err
		}
	}
	if c.podSecurity, err = podsecurity.ReadConfiguration(o.AdmissionConfig); err != nil {
		return configuration{}, err
	}
	if c.audit, err = auditlog.Open(o.Audit, tables.Credentials()); err != nil {
		return configuration{}, err
	}
	return c, nil
}
