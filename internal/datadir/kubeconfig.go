package datadir

import (
	"bytes"
	"fmt"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"lanyard.dev/internal/atomicfile"
	"lanyard.dev/internal/pki"
)

// contextName is the name of the cluster and the context in the kubeconfig.
const contextName = "lanyard"

// EnsureKubeconfig makes the administrator's kubeconfig for the server at url
// ("https://127.0.0.1:6443"), or corrects an existing one. All it needs is
// known, so a damaged one is replaced. What a user added, such as another
// context or a default namespace, is kept.
func (d *Dir) EnsureKubeconfig(url string, c *Certificates) error {
	return ensureKubeconfig(d.Kubeconfig(), entry{url, c.CA.CertPEM(), adminName, c.Admin})
}

// entry is what a kubeconfig of this package holds: where the server is, and who its user is there.
type entry struct {
	url   string
	caPEM []byte
	user  string
	pair  *pki.Pair
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
	if err := atomicfile.Write(path, encoded, 0o600); err != nil {
		return unwritable(path, err)
	}
	return nil
}

func (e entry) fits(config *clientcmdapi.Config) bool {
	cluster, user, context := config.Clusters[contextName], config.AuthInfos[e.user], config.Contexts[contextName]
	if cluster == nil || user == nil || context == nil || config.CurrentContext == "" {
		return false
	}
	return cluster.Server == e.url && bytes.Equal(cluster.CertificateAuthorityData, e.caPEM) &&
		bytes.Equal(user.ClientCertificateData, e.pair.CertPEM) && bytes.Equal(user.ClientKeyData, e.pair.KeyPEM) &&
		context.Cluster == contextName && context.AuthInfo == e.user
}

func (e entry) apply(config *clientcmdapi.Config) {
	config.Clusters[contextName] = &clientcmdapi.Cluster{Server: e.url, CertificateAuthorityData: e.caPEM}
	config.AuthInfos[e.user] = &clientcmdapi.AuthInfo{ClientCertificateData: e.pair.CertPEM, ClientKeyData: e.pair.KeyPEM}
	if config.Contexts[contextName] == nil {
		config.Contexts[contextName] = clientcmdapi.NewContext()
	}
	config.Contexts[contextName].Cluster, config.Contexts[contextName].AuthInfo = contextName, e.user
	if config.CurrentContext == "" {
		config.CurrentContext = contextName
	}
}
