package datadir

import (
	"bytes"
	"fmt"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"lanyard.dev/internal/files"
)

// contextName is the name of the cluster and the context in the kubeconfig.
const contextName = "lanyard"

// EnsureKubeconfig makes the administrator's kubeconfig for the server at url
// ("https://127.0.0.1:6443"), or corrects an existing one. All it needs is
// known, so a damaged one is replaced. What a user added, such as another
// context or a default namespace, is kept.
func (d *Dir) EnsureKubeconfig(url string, c *Certificates) error {
	user := &clientcmdapi.AuthInfo{ClientCertificateData: c.Admin.CertPEM, ClientKeyData: c.Admin.KeyPEM}
	return ensureKubeconfig(d.Kubeconfig(), entry{url, c.CA.CertPEM(), adminName, user})
}

// entry is what a kubeconfig of this package holds: where the server is, and who its user is there.
type entry struct {
	url   string
	caPEM []byte
	name  string
	user  *clientcmdapi.AuthInfo // a certificate with its key, or their files
}

func ensureKubeconfig(path string, e entry) error {
	data, err := readFile(path)
	if err != nil {
		return err
	}
	config, err := clientcmd.Load(data)
	if err != nil || data == nil {
		config = clientcmdapi.NewConfig()
	}
	if data != nil && err == nil && e.fits(config) {
		return nil
	}
	e.apply(config)
	encoded, err := clientcmd.Write(*config)
	if err != nil {
		return fmt.Errorf("encode %s: %w", path, err)
	}
	if err := files.Write(path, encoded, 0o600); err != nil {
		return unwritable(path, err)
	}
	return nil
}

func (e entry) fits(config *clientcmdapi.Config) bool {
	cluster, user, context := config.Clusters[contextName], config.AuthInfos[e.name], config.Contexts[contextName]
	if cluster == nil || user == nil || context == nil || config.CurrentContext == "" {
		return false
	}
	return cluster.Server == e.url && bytes.Equal(cluster.CertificateAuthorityData, e.caPEM) &&
		user.ClientCertificate == e.user.ClientCertificate && bytes.Equal(user.ClientCertificateData, e.user.ClientCertificateData) &&
		user.ClientKey == e.user.ClientKey && bytes.Equal(user.ClientKeyData, e.user.ClientKeyData) &&
		context.Cluster == contextName && context.AuthInfo == e.name
}

func (e entry) apply(config *clientcmdapi.Config) {
	config.Clusters[contextName] = &clientcmdapi.Cluster{Server: e.url, CertificateAuthorityData: e.caPEM}
	config.AuthInfos[e.name] = e.user
	if config.Contexts[contextName] == nil {
		config.Contexts[contextName] = clientcmdapi.NewContext()
	}
	config.Contexts[contextName].Cluster, config.Contexts[contextName].AuthInfo = contextName, e.name
	if config.CurrentContext == "" {
		config.CurrentContext = contextName
	}
}
