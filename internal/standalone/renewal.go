package standalone

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"lanyard.dev/internal/datadir"
	"lanyard.dev/internal/files"
)

const (
	// renewalPeriod is the time between two checks for certificates that are due. Certificates are due four months, a third of
	// their life, before they expire. The period is short because machines sleep and clocks are set.
	renewalPeriod = 10 * time.Minute
	// renewalRetry is short because an interrupted renewal may leave a certificate with the key of another one.
	renewalRetry = time.Minute
)

var errUnlocked = errors.New("the data directory is no longer locked")

// certificates are the certificates of an authority and of the node on the same machine. Both read the files again when they
// change.
type certificates struct {
	dir         *datadir.Dir
	url         string
	bindAddress string
	clock       clock.Clock

	mu     sync.Mutex
	closed bool
	cas    map[string][]byte // the CA certificates at the start, by file
	admin  []byte            // the certificate that was last written to the kubeconfig
	node   func() (datadir.NodeFiles, error)
}

// ensure creates the certificates that are missing, and renews those that are due, at the start.
func (c *certificates) ensure() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	made, err := c.ensureOwn()
	if err != nil {
		return err
	}
	c.cas = map[string][]byte{c.dir.CACert(): made.CA.CertPEM(), c.dir.NodesCACert(): made.NodesCA.CertPEM()}
	return nil
}

// ensureOwn ensures the authority's certificates, and the administrator's kubeconfig if its certificate has changed. Other changes
// to the kubeconfig are left to its user.
func (c *certificates) ensureOwn() (*datadir.Certificates, error) {
	made, err := c.dir.EnsureCertificates(c.bindAddress, c.clock)
	if err != nil || bytes.Equal(c.admin, made.Admin.CertPEM) {
		return made, err
	}
	if err := c.dir.EnsureKubeconfig(c.url, made); err != nil {
		return nil, err
	}
	c.admin = made.Admin.CertPEM
	return made, nil
}

// ensureNode ensures the files of this machine's node, and includes them in later renewals. earliest returns the time since
// when a certificate of the node must be valid to be accepted.
func (c *certificates) ensureNode(name string, addresses []net.IP, earliest func(node string) (time.Time, error)) (datadir.NodeFiles, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return datadir.NodeFiles{}, errUnlocked
	}
	c.node = func() (datadir.NodeFiles, error) {
		at, err := earliest(name)
		if err != nil {
			return datadir.NodeFiles{}, err
		}
		return c.dir.EnsureNode(name, addresses, c.url, at, c.clock)
	}
	return c.node()
}

// renew renews what is due. If a CA is not the one of the start, it does nothing: an administrator who removes a CA wants
// the next start to create a new one, and to distribute it then.
func (c *certificates) renew() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return errUnlocked
	}
	for file, text := range c.cas {
		found, err := files.Read(file, files.MaxPEM)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if !bytes.Equal(found, text) {
			return fmt.Errorf("%s was removed or replaced after this authority had started: start the authority again", file)
		}
	}
	if _, err := c.ensureOwn(); err != nil || c.node == nil {
		return err
	}
	_, err := c.node()
	return err
}

// keep renews until ctx ends.
func (c *certificates) keep(ctx context.Context) {
	lastError := ""
	for wait := renewalPeriod; ; {
		select {
		case <-ctx.Done():
			return
		case <-c.clock.After(wait):
		}
		err := c.renew()
		if err == nil {
			wait, lastError = renewalPeriod, ""
			continue
		}
		if wait = renewalRetry; ctx.Err() == nil && err.Error() != lastError {
			lastError = err.Error()
			klog.ErrorS(err, "Certificates are not renewed until this error is fixed")
		}
	}
}

// close ends all writing before the directory is unlocked.
func (c *certificates) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
}
