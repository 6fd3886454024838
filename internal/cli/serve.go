package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"lanyard.dev/internal/apiserver"
	"lanyard.dev/internal/apiserver/auditlog"
	"lanyard.dev/internal/controller/certificates"
	"lanyard.dev/internal/gctune"
	"lanyard.dev/internal/signingkey"
	"lanyard.dev/internal/signingkey/rotation"
	"lanyard.dev/internal/standalone"
)

const serveHelp = `Serve the authority alone, with an etcd, certificates and keys of your own. This
is the mode for production: any number of replicas can use the same etcd. The
flags have the names and meanings of kube-apiserver's.`

const serveExamples = `  lanyard serve \
    --etcd-servers https://10.0.0.1:2379 --etcd-cafile etcd-ca.crt --etcd-certfile etcd.crt --etcd-keyfile etcd.key \
    --tls-cert-file serving.crt --tls-private-key-file serving.key --client-ca-file ca.crt \
    --service-account-issuer https://identity.example.com --service-account-signing-key-file sa.key \
    --encryption-provider-config encryption.yaml --audit-log-path /var/log/lanyard/audit.log`

type serveOptions struct {
	streams
	logging     loggingOptions
	bindAddress string
	port        int
	options     apiserver.Options
}

func newServe(s streams) *cobra.Command {
	o := &serveOptions{streams: s}
	cmd := &cobra.Command{
		Use: "serve", Short: "Serve the authority alone, for production",
		Long: serveHelp, Example: serveExamples, Args: noArgs,
		RunE: checkAndRun(o.validate, o.run),
	}
	o.addFlags(cmd)
	return cmd
}

// authorityFlags are the flags of apiserver.Options, by field. The flags that "up" has in common with "serve" have the same names.
var authorityFlags = fieldFlags{
	"listener":                            "", // made from --bind-address and --secure-port
	"tlsCertFile":                         "tls-cert-file",
	"tlsPrivateKeyFile":                   "tls-private-key-file",
	"clientCAFile":                        "client-ca-file",
	"authenticationConfig":                "authentication-config",
	"admissionConfig":                     "admission-control-config-file",
	"rootCAFile":                          "root-ca-file",
	"shutdownDelay":                       "shutdown-delay-duration",
	"encryptionProviderConfig":            "encryption-provider-config",
	"etcd.servers":                        "etcd-servers",
	"etcd.caFile":                         "etcd-cafile",
	"etcd.certFile":                       "etcd-certfile",
	"etcd.keyFile":                        "etcd-keyfile",
	"etcd.soleWriter":                     "", // set by "up"
	"etcd.maxLag":                         "", // set by tests
	"serviceAccounts.issuers":             "service-account-issuer",
	"serviceAccounts.signingKeyFiles":     "service-account-signing-key-file",
	"serviceAccounts.signingEndpoint":     "service-account-signing-endpoint",
	"serviceAccounts.keyFiles":            "service-account-key-file",
	"serviceAccounts.keys.algorithm":      "service-account-signing-algorithm",
	"serviceAccounts.keys.rotationPeriod": "service-account-key-rotation-period",
	"serviceAccounts.keys.takeOverFiles":  "", // set by "up"
	"serviceAccounts.keys.lead":           "", // set by tests
	"serviceAccounts.keys.linger":         "", // set by tests
	"serviceAccounts.apiAudiences":        "api-audiences",
	"serviceAccounts.audienceAlgorithms":  "service-account-audience-algorithms",
	"serviceAccounts.maxTokenExpiration":  "service-account-max-token-expiration",
	"serviceAccounts.minTokenExpiration":  "", // set by tests
	"serviceAccounts.acceptUnrecorded":    "service-account-accept-unrecorded-tokens",
	"serviceAccounts.jwksURI":             "service-account-jwks-uri",
	"signing.certFile":                    "cluster-signing-cert-file",
	"signing.keyFile":                     "cluster-signing-key-file",
	"signing.servingCertFile":             "cluster-signing-kubelet-serving-cert-file",
	"signing.servingKeyFile":              "cluster-signing-kubelet-serving-key-file",
	"signing.duration":                    "cluster-signing-duration",
	"nodes.certFile":                      "kubelet-client-certificate",
	"nodes.keyFile":                       "kubelet-client-key",
	"nodes.caFile":                        "kubelet-certificate-authority",
	"audit.logPath":                       "audit-log-path",
	"audit.mode":                          "audit-log-mode",
	"audit.maxAge":                        "audit-log-maxage",
	"audit.maxBackups":                    "audit-log-maxbackup",
	"audit.maxSize":                       "audit-log-maxsize",
	"audit.policyFile":                    "audit-policy-file",
}

func (o *serveOptions) addFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.bindAddress, "bind-address", "0.0.0.0", "IP address to serve on")
	f.IntVar(&o.port, "secure-port", defaultPort, "port to serve HTTPS on; 0 takes a free one")
	f.StringSliceVar(&o.options.Etcd.Servers, "etcd-servers", nil, "etcd URLs, comma separated")
	f.StringVar(&o.options.Etcd.CAFile, "etcd-cafile", "", "CA that verifies etcd's certificate")
	f.StringVar(&o.options.Etcd.CertFile, "etcd-certfile", "", "client certificate for etcd")
	f.StringVar(&o.options.Etcd.KeyFile, "etcd-keyfile", "", "key of the client certificate for etcd")
	f.StringVar(&o.options.TLSCertFile, "tls-cert-file", "", "serving certificate with its chain, in PEM")
	f.StringVar(&o.options.TLSPrivateKeyFile, "tls-private-key-file", "", "key of the serving certificate")
	f.StringVar(&o.options.ClientCAFile, "client-ca-file", "", "CAs of client certificates; without it no client certificate is accepted")
	f.StringVar(&o.options.AuthenticationConfig, "authentication-config", "", authenticationConfigUsage)
	f.StringVar(&o.options.AdmissionConfig, "admission-control-config-file", "", admissionConfigUsage)
	f.StringVar(&o.options.RootCAFile, "root-ca-file", "", "CA published as kube-root-ca.crt in every namespace (default: the content of --tls-cert-file)")
	f.StringVar(&o.options.EncryptionProviderConfig, "encryption-provider-config", "", "EncryptionConfiguration file for the encryption of secrets at rest")
	f.DurationVar(&o.options.ShutdownDelay, "shutdown-delay-duration", 0, "time between a signal to stop and the end of serving, during which /readyz fails, so that load balancers stop sending requests")
	o.addServiceAccountFlags(cmd)
	o.addSigningFlags(cmd)
	o.addNodeFlags(cmd)
	o.addAuditFlags(cmd)
	o.logging.addFlags(f)
}

func (o *serveOptions) addServiceAccountFlags(cmd *cobra.Command) {
	f, sa := cmd.Flags(), &o.options.ServiceAccounts
	f.StringArrayVar(&sa.Issuers, "service-account-issuer", nil, issuersUsage)
	f.StringArrayVar(&sa.SigningKeyFiles, "service-account-signing-key-file", nil, "private key that signs tokens: ECDSA or RSA, in PEM; repeatable with keys for other algorithms, and the first signs by default; read again when it changes; without it, the authority makes the keys, keeps them in etcd, and replaces them")
	addKeyFlags(f, &sa.Keys)
	f.StringVar(&sa.SigningEndpoint, "service-account-signing-endpoint", "", "unix socket of an external signer, which signs tokens and has all keys; excludes --service-account-signing-key-file and --service-account-key-file")
	f.StringArrayVar(&sa.KeyFiles, "service-account-key-file", nil, acceptedKeysUsage)
	f.StringSliceVar(&sa.APIAudiences, "api-audiences", nil, "audiences of tokens for this server (default: the issuers)")
	f.DurationVar(&sa.MaxTokenExpiration, "service-account-max-token-expiration", 0, maxTokenExpirationUsage)
	f.BoolVar(&sa.AcceptUnrecorded, "service-account-accept-unrecorded-tokens", false, acceptUnrecordedUsage)
	f.StringVar(&sa.JWKSURI, "service-account-jwks-uri", "", jwksURIUsage)
	f.Var(audienceAlgorithms{&sa.AudienceAlgorithms}, "service-account-audience-algorithms", audienceAlgorithmsUsage)
}

// addKeyFlags adds the flags of the keys that the authority makes itself.
func addKeyFlags(f *pflag.FlagSet, keys *apiserver.Keys) {
	f.StringVar((*string)(&keys.Algorithm), "service-account-signing-algorithm", "", fmt.Sprintf(
		"default algorithm of the signing keys that the authority makes, one of %v (default: that of the key that signs; for the first key %s)",
		signingkey.Algorithms(), signingkey.DefaultAlgorithm))
	f.DurationVar(&keys.RotationPeriod, "service-account-key-rotation-period", rotation.DefaultPeriod,
		"time after which the authority replaces a signing key that it made, at least 2h; 0 replaces it on request only")
}

func (o *serveOptions) addSigningFlags(cmd *cobra.Command) {
	f, signing := cmd.Flags(), &o.options.Signing
	f.StringVar(&signing.CertFile, "cluster-signing-cert-file", "", "CA that signs approved certificate requests; without it no request is signed")
	f.StringVar(&signing.KeyFile, "cluster-signing-key-file", "", "key of the CA that signs certificate requests")
	f.StringVar(&signing.ServingCertFile, "cluster-signing-kubelet-serving-cert-file", "", "CA that signs serving certificates of nodes, which clients should not trust (default: the CA of --cluster-signing-cert-file)")
	f.StringVar(&signing.ServingKeyFile, "cluster-signing-kubelet-serving-key-file", "", "key of the CA that signs serving certificates of nodes")
	f.DurationVar(&signing.Duration, "cluster-signing-duration", certificates.DefaultDuration, "longest lifetime of a requested certificate, at least 10m")
}

func (o *serveOptions) addNodeFlags(cmd *cobra.Command) {
	f, nodes := cmd.Flags(), &o.options.Nodes
	f.StringVar(&nodes.CertFile, "kubelet-client-certificate", "", "client certificate of this server for connections to nodes; without it, logs and exec are not available")
	f.StringVar(&nodes.KeyFile, "kubelet-client-key", "", "key of the client certificate for nodes")
	f.StringVar(&nodes.CAFile, "kubelet-certificate-authority", "", "CA that verifies the certificates of nodes")
}

func (o *serveOptions) addAuditFlags(cmd *cobra.Command) {
	f, audit := cmd.Flags(), &o.options.Audit
	f.StringVar(&audit.LogPath, "audit-log-path", "", `file of the audit log, "-" for standard output; without it there is no audit log`)
	f.StringVar(&audit.Mode, "audit-log-mode", auditlog.Blocking, auditModeUsage)
	f.IntVar(&audit.MaxAge, "audit-log-maxage", 0, "days to keep old audit logs; 0 means no limit")
	f.IntVar(&audit.MaxBackups, "audit-log-maxbackup", 0, "number of old audit logs to keep; 0 means no limit")
	f.IntVar(&audit.MaxSize, "audit-log-maxsize", 100, "size in megabytes at which the audit log is rotated")
	f.StringVar(&audit.PolicyFile, "audit-policy-file", "", "audit.k8s.io/v1 Policy file (default: level Metadata for all requests)")
}

func (o *serveOptions) validate([]string) error {
	if o.options.RootCAFile == "" {
		o.options.RootCAFile = o.options.TLSCertFile
	}
	return errors.Join(validatePort(o.port), validateAddress(o.bindAddress), authorityFlags.errorOf(o.options.Validate()))
}

func (o *serveOptions) run(parent context.Context) (err error) {
	o.logging.apply(o.err)
	gctune.Tune()
	ctx, stop := untilSignal(parent)
	defer stop()
	stopped := o.announceStop(ctx)
	defer func() { stopped(err) }()
	listener, err := standalone.Listen(o.bindAddress, o.port)
	if err != nil {
		return err
	}
	o.options.Listener = listener
	server, err := apiserver.New(o.options)
	if err != nil {
		_ = listener.Close()
		return err
	}
	defer newWatchdog(o.streams).guard(ctx.Done(), server.StopTimeout()+endMargin)()
	go o.announce(ctx, server, listener.Addr())
	return server.Run(ctx)
}

func (o *serveOptions) announce(ctx context.Context, server *apiserver.Server, address net.Addr) {
	start := time.Now()
	select {
	case <-server.Ready():
		fmt.Fprintf(o.err, "lanyard serves https://%s, ready after %v\n", address, time.Since(start).Round(time.Millisecond))
		settleLater()
	case <-ctx.Done():
	}
}
