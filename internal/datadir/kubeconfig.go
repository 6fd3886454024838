package datadir

import (
	"bytes"
	"fmt"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"lanyard.dev/internal/atomicfile"
)

// contextName is the name of the cluster and the context in the kubeconfig.
const contextName = "lanyard"

// EnsureKubeconfig makes the administrator's kubeconfig for the server at url
// ("https://127.0.0.1:6443"), or corrects an existing one. All it needs is
// known, so a damaged one is replaced. What a user added, such as another
// context or a default namespace, is kept.
func (d *Dir) EnsureKubeconfig(url string, c *Certificates) error {
	path := d.Kubeconfig()
	data, err := readFile(path)
	if err != nil {
		return err
	}
	config, err := clientcmd.Load(data)
	if err != nil || data == nil {
		config = clientcmdapi.NewConfig()
	}
	if data != nil && err == nil && fits(config, url, c) {
		return nil
	}
	apply(config, url, c)
	encoded, err := clientcmd.Write(*config)
	if err != nil {
		return fmt.Errorf("encode %s: %w", path, err)
	}
	if err := atomicfile.Write(path, encoded, 0o600); err != nil {
		return unwritable(path, err)
	}
	return nil
}

func fits(config *clientcmdapi.Config, url string, c *Certificates) bool {
	cluster, user, context := config.Clusters[contextName], config.AuthInfos[adminName], config.Contexts[contextName]
	if cluster == nil || user == nil || context == nil || config.CurrentContext == "" {
		return false
	}
	return cluster.Server == url && bytes.Equal(cluster.CertificateAuthorityData, c.CA.CertPEM()) &&
		bytes.Equal(user.ClientCertificateData, c.Admin.CertPEM) && bytes.Equal(user.ClientKeyData, c.Admin.KeyPEM) &&
		context.Cluster == contextName && context.AuthInfo == adminName
}

func apply(config *clientcmdapi.Config, url string, c *Certificates) {
	config.Clusters[contextName] = &clientcmdapi.Cluster{Server: url, CertificateAuthorityData: c.CA.CertPEM()}
	config.AuthInfos[adminName] = &clientcmdapi.AuthInfo{ClientCertificateData: c.Admin.CertPEM, ClientKeyData: c.Admin.KeyPEM}
	if config.Contexts[contextName] == nil {
		config.Contexts[contextName] = clientcmdapi.NewContext()
	}
	config.Contexts[contextName].Cluster, config.Contexts[contextName].AuthInfo = contextName, adminName
	if config.CurrentContext == "" {
		config.CurrentContext = contextName
	}
}
