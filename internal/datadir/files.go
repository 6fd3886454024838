package datadir

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	configv1 "k8s.io/apiserver/pkg/apis/apiserver/v1"
	"sigs.k8s.io/yaml"

	"lanyard.dev/internal/files"
	"lanyard.dev/internal/signingkey"
)

// CACertName is the name of the file of Dir.CACert.
const CACertName = "ca.crt"

const (
	caKeyName       = "ca.key"
	nodesCACertName = "nodes-ca.crt"
	nodesCAKeyName  = "nodes-ca.key"
	signingKeyName  = "sa.key"
	encryptionName  = "encryption.yaml"
	etcdName        = "etcd"
)

// Path returns the absolute path of the directory.
func (d *Dir) Path() string { return d.path }

// CACert is the certificate of the CA. It is not secret.
func (d *Dir) CACert() string { return d.join(CACertName) }

// CAKey is the private key of the CA.
func (d *Dir) CAKey() string { return d.join(caKeyName) }

// ServingCert is the certificate with which the API is served.
func (d *Dir) ServingCert() string { return d.join("serving.crt") }

// ServingKey is the private key of ServingCert.
func (d *Dir) ServingKey() string { return d.join("serving.key") }

// AdminCert is the client certificate in Kubeconfig.
func (d *Dir) AdminCert() string { return d.join("admin.crt") }

// AdminKey is the private key of AdminCert.
func (d *Dir) AdminKey() string { return d.join("admin.key") }

// NodesCACert is the certificate of the CA that signs the serving certificates of nodes. Clients of the authority do not
// trust it, so a node cannot pass itself off as the authority.
func (d *Dir) NodesCACert() string { return d.join(nodesCACertName) }

// NodesCAKey is the private key of NodesCACert.
func (d *Dir) NodesCAKey() string { return d.join(nodesCAKeyName) }

// NodeClientCert is the client certificate by which the agents of nodes identify the authority.
func (d *Dir) NodeClientCert() string { return d.join("apiserver-kubelet-client.crt") }

// NodeClientKey is the private key of NodeClientCert.
func (d *Dir) NodeClientKey() string { return d.join("apiserver-kubelet-client.key") }

// SigningKey is the private key that signs tokens by default.
func (d *Dir) SigningKey() string { return d.join(signingKeyName) }

// SigningKeyFor is the private key that signs tokens with an algorithm if SigningKey is a key for another one.
func (d *Dir) SigningKeyFor(alg signingkey.Algorithm) string {
	return d.join(furtherKeyName(alg))
}

func furtherKeyName(alg signingkey.Algorithm) string {
	return "sa-" + strings.ToLower(string(alg)) + ".key"
}

// EncryptionConfig is the EncryptionConfiguration, with the key that encrypts the secrets in the store.
func (d *Dir) EncryptionConfig() string { return d.join(encryptionName) }

// Kubeconfig is the administrator's kubeconfig.
func (d *Dir) Kubeconfig() string { return d.join(kubeconfigName) }

// EtcdDir is the directory of the embedded etcd member.
func (d *Dir) EtcdDir() string { return d.join(etcdName) }

// AuditLog is the audit log.
func (d *Dir) AuditLog() string { return d.join("audit", "audit.log") }

// secrets returns the files that have a key. Some of them may be absent.
func (d *Dir) secrets() []string {
	all := []string{
		d.CAKey(), d.ServingKey(), d.AdminKey(), d.NodesCAKey(), d.NodeClientKey(), d.SigningKey(), d.EncryptionConfig(), d.Kubeconfig(),
		d.join(nodeKeyName), d.join(nodeServingKeyName), d.join(nodeKubeconfigName),
	}
	for _, alg := range signingkey.Algorithms() {
		all = append(all, d.SigningKeyFor(alg))
	}
	return all
}

const kubeconfigName = "admin.kubeconfig"

const (
	// maxFile is the limit for reading a file. Every file of a data directory is much smaller.
	maxFile = 1 << 20

	restore = "restore the file from a backup"

	secretboxKeySize = 32
)

// EnsureSigningKey creates a key that signs tokens, unless there is one. path is that of SigningKey or SigningKeyFor. generate
// returns the key as PEM. A file without a private key is an error.
func (d *Dir) EnsureSigningKey(path string, generate func() ([]byte, error)) error {
	return ensureFile(path, checkSigningKey, generate)
}

// EnsureEncryptionConfig creates the configuration that encrypts secrets in the store, with a new key, unless there is one.
// A file that is not such a configuration is an error, and so is a missing file if there is data, because only the missing
// key can decrypt it.
func (d *Dir) EnsureEncryptionConfig() error {
	path := d.EncryptionConfig()
	present, err := exists(path)
	if err != nil {
		return unreadable(path, err)
	}
	stored, err := exists(d.join(etcdName, "member", "wal"))
	if err != nil {
		return unreadable(d.EtcdDir(), err)
	}
	if !present && stored {
		return files.Unusable(path, "is missing, but secrets in "+d.EtcdDir()+" are encrypted with its key", nil, restore)
	}
	return ensureFile(path, checkEncryptionConfig, newEncryptionConfig)
}

// ensureFile creates a file with mode 0600 if it is absent, and otherwise checks its content.
func ensureFile(path string, check func([]byte) string, create func() ([]byte, error)) error {
	data, err := readFile(path)
	if err != nil {
		return err
	}
	if data != nil {
		if problem := check(data); problem != "" {
			return files.Unusable(path, problem, nil, restore)
		}
		return nil
	}
	if data, err = create(); err != nil {
		return fmt.Errorf("create the content of %s: %w", path, err)
	}
	if err := files.Write(path, data, 0o600); err != nil {
		return unwritable(path, err)
	}
	return nil
}

// readFile returns the content of a regular file. It returns nil, without an error, if path does not exist, and otherwise a
// slice that is not nil.
func readFile(path string) ([]byte, error) {
	present, err := exists(path)
	if err != nil {
		return nil, unreadable(path, err)
	}
	if !present {
		return nil, nil
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, unreadable(path, err)
	}
	if !info.Mode().IsRegular() {
		return nil, unreadable(path, fs.ErrInvalid)
	}
	data, err := files.Read(path, maxFile)
	if err != nil {
		return nil, unreadable(path, err)
	}
	return append([]byte{}, data...), nil
}

func unwritable(path string, err error) error {
	return files.Unusable(path, "cannot be written", err,
		"make room or give this user write access, or choose another directory with --data-dir")
}

func unreadable(path string, err error) error {
	return files.Unusable(path, "cannot be read", err, "check that it is a file that this user may read")
}

// checkSigningKey returns what is wrong with the content of a signing key file, or "".
func checkSigningKey(data []byte) string {
	switch _, err := signingkey.ParsePrivatePEM(data); {
	case err == nil:
		return ""
	case errors.Is(err, signingkey.ErrNotPEM):
		return "is corrupt: it is not a PEM file"
	default:
		return fmt.Sprintf("holds no private key to sign tokens with: %v", err)
	}
}

// newEncryptionConfig returns a configuration that encrypts secrets with a new key. The last provider is identity, so that
// values stored before the file existed can still be read.
func newEncryptionConfig() ([]byte, error) {
	key, err := newSecretboxKey("key1")
	if err != nil {
		return nil, err
	}
	return yaml.Marshal(&configv1.EncryptionConfiguration{
		TypeMeta: metav1.TypeMeta{APIVersion: configv1.SchemeGroupVersion.String(), Kind: "EncryptionConfiguration"},
		Resources: []configv1.ResourceConfiguration{{
			Resources: []string{"secrets"},
			Providers: []configv1.ProviderConfiguration{
				{Secretbox: &configv1.SecretboxConfiguration{Keys: []configv1.Key{key}}},
				{Identity: &configv1.IdentityConfiguration{}},
			},
		}},
	})
}

// checkEncryptionConfig returns what is wrong with the content of an EncryptionConfiguration, or "". The text has no part of
// the parser's error, which may quote a key.
func checkEncryptionConfig(data []byte) string {
	var config configv1.EncryptionConfiguration
	switch err := yaml.UnmarshalStrict(data, &config); {
	case len(bytes.TrimSpace(data)) == 0:
		return "is corrupt: it is empty"
	case err != nil:
		return "is corrupt: it is not a valid EncryptionConfiguration"
	case config.APIVersion != configv1.SchemeGroupVersion.String() || config.Kind != "EncryptionConfiguration":
		return "is corrupt: it is not an apiserver.config.k8s.io/v1 EncryptionConfiguration"
	case len(config.Resources) == 0:
		return "encrypts nothing: it names no resources"
	}
	return checkSecretboxKeys(&config)
}

func checkSecretboxKeys(config *configv1.EncryptionConfiguration) string {
	for _, resource := range config.Resources {
		for _, provider := range resource.Providers {
			if provider.Secretbox == nil {
				continue
			}
			for _, key := range provider.Secretbox.Keys {
				if raw, err := base64.StdEncoding.DecodeString(key.Secret); err != nil || len(raw) != secretboxKeySize {
					return fmt.Sprintf("is corrupt: the key %q is not %d bytes in base64", key.Name, secretboxKeySize)
				}
			}
		}
	}
	return ""
}
