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

	// adminName and adminGroup are the subject of the administrator's client certificate. RBAC does not apply to members of
	// system:masters.
	adminName  = "lanyard-admin"
	adminGroup = "system:masters"

	// nodeClientName is the user as which the authority connects to the agents of nodes. The default policy permits that.
	nodeClientName = "kube-apiserver-kubelet-client"
)

// Certificates are the authorities and certificates of an instance.
type Certificates struct {
	CA      *pki.Authority
	NodesCA *pki.Authority // signs the serving certificates of nodes
	Serving *pki.Pair
	Admin   *pki.Pair
}

// EnsureCertificates returns the directory's certificates and creates those that are missing. Serving and client
// certificates are renewed when they are due or do not fit: see pki.Authority. The serving certificate is valid for
// bindAddress and the names of this machine.
func (d *Dir) EnsureCertificates(bindAddress string, c clock.PassiveClock) (*Certificates, error) {
	now := c.Now()
	ca, err := pki.EnsureAuthority(d.CACert(), d.CAKey(), authorityName, now)
	if err != nil {
		return nil, err
	}
	// Without a host name the certificate has only addresses.
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

// contextName is the name of the cluster and of the context in a kubeconfig.
const contextName = "lanyard"

// EnsureKubeconfig creates the administrator's kubeconfig for the server at url ("https://127.0.0.1:6443"), or corrects an
// existing one. A damaged file is replaced, because its content can be derived. What a user has added, such as another
// context or a default namespace, is kept.
func (d *Dir) EnsureKubeconfig(url string, c *Certificates) error {
	user := &clientcmdapi.AuthInfo{ClientCertificateData: c.Admin.CertPEM, ClientKeyData: c.Admin.KeyPEM}
	return ensureKubeconfig(d.Kubeconfig(), entry{url, c.CA.CertPEM(), adminName, user})
}

// entry is the part of a kubeconfig that this package manages: the server and the user there.
type entry struct {
	url   string
	caPEM []byte
	name  string
	user  *clientcmdapi.AuthInfo // a certificate with its key, or the files of both
}

// ensureKubeconfig writes the entry to the kubeconfig at path, unless the kubeconfig has it.
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

// fits reports whether the kubeconfig has the entry.
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

// apply sets the entry in the kubeconfig.
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
	// nodeUser is the name of the user in the kubeconfig. It does not depend on the node's name.
	nodeUser = "lanyard-node"

	nodeKeyName        = "node.key"
	nodeServingKeyName = "node-serving.key"
	nodeKubeconfigName = "node.kubeconfig"
)

// NodeFiles are the files that an agent on this machine needs to run as a node.
type NodeFiles struct {
	// Kubeconfig has the address of the authority and the names of the files of the node's client certificate, so that clients
	// read a renewed certificate. Its mode is 0600.
	Kubeconfig string
	// ServingCert and ServingKey are the agent's serving certificate and its key.
	ServingCert, ServingKey string
	// ClientCA is the CA that signs the certificates of the agent's clients.
	ClientCA string
}

// EnsureNode creates the files of the node called name for the authority at url. The node is reached under its name and under
// addresses. Files that fit are kept, as by EnsureCertificates, which must have been called. A directory has the files of one
// node: files of a node with another name are replaced, and so are certificates that are valid since before earliest, the time
// when the node was evicted.
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
