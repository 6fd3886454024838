package cli

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// clusterName is the name of the cluster in the kubeconfigs of people.
const clusterName = "cluster"

// userKubeconfig returns a kubeconfig that needs no other file and holds nothing of the administrator's.
func userKubeconfig(admin *rest.Config, name string, keyPEM, chain []byte) ([]byte, error) {
	cluster := clientcmdapi.NewCluster()
	cluster.Server, cluster.TLSServerName = admin.Host, admin.ServerName
	cluster.CertificateAuthorityData, cluster.InsecureSkipTLSVerify = admin.CAData, admin.Insecure
	if len(cluster.CertificateAuthorityData) == 0 && admin.CAFile != "" {
		var err error
		if cluster.CertificateAuthorityData, err = os.ReadFile(admin.CAFile); err != nil {
			return nil, fmt.Errorf("read the CA of %s: %w", admin.Host, err)
		}
	}
	user := clientcmdapi.NewAuthInfo()
	user.ClientCertificateData, user.ClientKeyData = chain, keyPEM
	context := clientcmdapi.NewContext()
	context.Cluster, context.AuthInfo = clusterName, name

	config := clientcmdapi.NewConfig()
	config.Clusters[clusterName], config.AuthInfos[name], config.Contexts[name] = cluster, user, context
	config.CurrentContext = name
	data, err := clientcmd.Write(*config)
	if err != nil {
		return nil, fmt.Errorf("encode the kubeconfig: %w", err)
	}
	return data, nil
}

// checkTarget refuses to overwrite anything but an earlier kubeconfig of the same person for the same server: a renewal.
// It is asked before anything is made.
func (o *userKubeconfigOptions) checkTarget(host string) error {
	if o.target == "" {
		return nil
	}
	info, err := os.Lstat(o.target)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && info.Mode().IsRegular() {
		config, err := clientcmd.LoadFromFile(o.target)
		if err == nil && len(config.AuthInfos) == 1 && config.AuthInfos[o.name] != nil &&
			config.Clusters[clusterName] != nil && config.Clusters[clusterName].Server == host {
			return nil
		}
	}
	return withHint(fmt.Errorf("--out %s exists and is no earlier kubeconfig of %s for %s", o.target, o.name, host),
		"choose another file, or remove it")
}

// check holds the certificate against what was asked for, so that nobody is handed another's, and returns its end.
func (o *userKubeconfigOptions) check(keyPEM, chain []byte) (time.Time, error) {
	pair, err := tls.X509KeyPair(chain, keyPEM)
	if err != nil {
		return time.Time{}, fmt.Errorf("the server issued a certificate that does not fit: %w", err)
	}
	subject := pair.Leaf.Subject
	sorted := func(s []string) []string { return slices.Sorted(slices.Values(s)) }
	if subject.CommonName != o.name || !slices.Equal(sorted(subject.Organization), sorted(o.groups)) {
		return time.Time{}, fmt.Errorf("the server issued a certificate for %q of %q instead", subject.CommonName, subject.Organization)
	}
	return pair.Leaf.NotAfter, nil
}
