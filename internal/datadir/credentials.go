package datadir

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/utils/clock"

	"lanyard.dev/internal/files"
	"lanyard.dev/internal/pki"
)

const (
	authorityName = "lanyard-ca"
	nodesCAName   = "lanyard-nodes-ca"

	// adminName and adminGroup are the subject of the administrator's client
	// certificate. Members of system:masters are not subject to RBAC.
	adminName  = "lanyard-admin"
	adminGroup = "system:masters"

	// nodeClientName is the user that the authority is to the agents of nodes; the default policy lets it use them.
	nodeClientName = "kube-apiserver-kubelet-client"
)

// Certificates is what an instance presents and trusts.
type Certificates struct {
	CA      *pki.Authority
	NodesCA *pki.Authority // of what nodes serve with
	Serving *pki.Pair
	Admin   *pki.Pair
}

// EnsureCertificates returns the directory's certificates and makes those
// that are missing. The serving and the client certificates are renewed when
// they are due or do not fit: see pki.Authority. The serving certificate
// vouches for bindAddress and this machine's names.
func (d *Dir) EnsureCertificates(bindAddress string, c clock.PassiveClock) (*Certificates, error) {
	now := c.Now()
	ca, err := pki.EnsureAuthority(d.CACert(), d.CAKey(), authorityName, now)
	if err != nil {
		return nil, err
	}
	// A machine without a name is served under its addresses.
	hostname, _ := os.Hostname()
	serving, err := ca.EnsureServing(d.ServingCert(), d.ServingKey(), pki.ServingNames(hostname, bindAddress), now)
	if err != nil {
		return nil, err
	}
	admin, err := ca.EnsureClient(d.AdminCert(), d.AdminKey(), adminName, []string{adminGroup}, now)
	if err != nil {
		return nil, err
	}
	if _, err := ca.EnsureClient(d.NodeClientCert(), d.NodeClientKey(), nodeClientName, nil, now); err != nil {
		return nil, err
	}
	nodes, err := pki.EnsureAuthority(d.NodesCACert(), d.NodesCAKey(), nodesCAName, now)
	if err != nil {
		return nil, err
	}
	return &Certificates{CA: ca, NodesCA: nodes, Serving: serving, Admin: admin}, nil
}

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

const (
	nodePrefix = "system:node:"
	nodeGroup  = "system:nodes"
	// nodeUser is what the kubeconfig calls its user, whatever the node's name.
	nodeUser = "lanyard-node"

	nodeKeyName        = "node.key"
	nodeServingKeyName = "node-serving.key"
	nodeKubeconfigName = "node.kubeconfig"
)

// NodeFiles are what an agent of this machine needs to run as a node.
type NodeFiles struct {
	// Kubeconfig names the files of the node's own client certificate, so that
	// clients see a renewal, with the way to the authority; it is 0600.
	Kubeconfig string
	// ServingCert and ServingKey are what the agent serves with.
	ServingCert, ServingKey string
	// ClientCA is the CA of those who may connect to the agent.
	ClientCA string
}

// EnsureNode makes the files of the node called name, which is reached under
// addresses and by its name, for the authority at url; those that fit are kept, as by
// EnsureCertificates, which must have been called. There is one node: the files
// of another name are replaced, and so are certificates that are valid since before
// earliest, when the node was evicted.
func (d *Dir) EnsureNode(name string, addresses []net.IP, url string, earliest time.Time, c clock.PassiveClock) (NodeFiles, error) {
	now, files := c.Now(), NodeFiles{
		Kubeconfig: d.join(nodeKubeconfigName), ClientCA: d.CACert(),
		ServingCert: d.join("node-serving.crt"), ServingKey: d.join(nodeServingKeyName),
	}
	ca, err := pki.EnsureAuthority(d.CACert(), d.CAKey(), authorityName, now)
	if err != nil {
		return NodeFiles{}, err
	}
	user, groups := nodePrefix+name, []string{nodeGroup}
	client := &clientcmdapi.AuthInfo{ClientCertificate: d.join("node.crt"), ClientKey: d.join(nodeKeyName)}
	if _, err := ca.From(earliest).EnsureClient(client.ClientCertificate, client.ClientKey, user, groups, now); err != nil {
		return NodeFiles{}, err
	}
	nodes, err := pki.EnsureAuthority(d.NodesCACert(), d.NodesCAKey(), nodesCAName, now)
	if err != nil {
		return NodeFiles{}, err
	}
	names := pki.Names{DNS: []string{name}, IPs: addresses}
	if _, err := nodes.From(earliest).EnsureNodeServing(files.ServingCert, files.ServingKey, user, groups, names, now); err != nil {
		return NodeFiles{}, err
	}
	if err := ensureKubeconfig(files.Kubeconfig, entry{url, ca.CertPEM(), nodeUser, client}); err != nil {
		return NodeFiles{}, err
	}
	return files, nil
}
