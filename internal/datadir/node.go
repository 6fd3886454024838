package datadir

import (
	"net"
	"time"

	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/utils/clock"

	"lanyard.dev/internal/pki"
)

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
