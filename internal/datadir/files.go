package datadir

// Path is the directory itself, absolute.
func (d *Dir) Path() string { return d.path }

// CACert is the certificate of the CA; it may be shown to anyone.
func (d *Dir) CACert() string { return d.join("ca.crt") }

// CAKey is the private key of the CA.
func (d *Dir) CAKey() string { return d.join("ca.key") }

// ServingCert is the certificate the API is served with.
func (d *Dir) ServingCert() string { return d.join("serving.crt") }

// ServingKey is the private key of ServingCert.
func (d *Dir) ServingKey() string { return d.join("serving.key") }

// AdminCert is the client certificate in Kubeconfig.
func (d *Dir) AdminCert() string { return d.join("admin.crt") }

// AdminKey is the private key of AdminCert.
func (d *Dir) AdminKey() string { return d.join("admin.key") }

// NodesCACert is the certificate of the CA of what nodes serve with. Clients of
// the authority do not trust it, so no node can pass for the authority.
func (d *Dir) NodesCACert() string { return d.join("nodes-ca.crt") }

// NodesCAKey is the private key of NodesCACert.
func (d *Dir) NodesCAKey() string { return d.join("nodes-ca.key") }

// NodeClientCert is the client certificate that the agents of nodes know the
// authority by.
func (d *Dir) NodeClientCert() string { return d.join("apiserver-kubelet-client.crt") }

// NodeClientKey is the private key of NodeClientCert.
func (d *Dir) NodeClientKey() string { return d.join("apiserver-kubelet-client.key") }

// SigningKey is the private key that signs tokens.
func (d *Dir) SigningKey() string { return d.join("sa.key") }

// EncryptionConfig is the EncryptionConfiguration with the key that secrets
// are stored under.
func (d *Dir) EncryptionConfig() string { return d.join("encryption.yaml") }

// Kubeconfig lets kubectl act as the administrator.
func (d *Dir) Kubeconfig() string { return d.join(kubeconfigName) }

// EtcdDir is the directory of the embedded etcd member.
func (d *Dir) EtcdDir() string { return d.join("etcd") }

// AuditDir holds the audit log and its rotated predecessors.
func (d *Dir) AuditDir() string { return d.join("audit") }

// AuditLog is the audit log.
func (d *Dir) AuditLog() string { return d.join("audit", "audit.log") }

// secrets are the files that hold a key, of which some may be absent.
func (d *Dir) secrets() []string {
	return []string{
		d.CAKey(), d.ServingKey(), d.AdminKey(), d.NodesCAKey(), d.NodeClientKey(), d.SigningKey(), d.EncryptionConfig(), d.Kubeconfig(),
		d.join(nodeKeyName), d.join(nodeServingKeyName), d.join(nodeKubeconfigName),
	}
}

const kubeconfigName = "admin.kubeconfig"
