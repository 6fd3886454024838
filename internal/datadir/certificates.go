package datadir

import (
	"os"

	"k8s.io/utils/clock"

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
