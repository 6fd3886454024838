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
	// renewalPeriod is how often is looked whether something is due. It is short for machines that sleep and for clocks that
	// are set; certificates are due a third of their life, four months, before their end.
	renewalPeriod = 10 * time.Minute
	// renewalRetry is short: what failed half-way leaves a certificate beside the key of another.
	renewalRetry = time.Minute
)

var errNotHeld = errors.New("the data directory is not held any more")

// certificates are what an authority presents, and what the agent beside it does. Both read the files again when they change.
type certificates struct {
	dir         *datadir.Dir
	url         string
	bindAddress string
	clock       clock.Clock

	mu     sync.Mutex
	closed bool
	cas    map[string][]byte // of the start, by file
	admin  []byte            // what the kubeconfig was last given
	node   func() (datadir.NodeFiles, error)
}

// ensure makes what is missing, and what is due anew, at the start.
func (c *certificates) ensure() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	made, err := c.own()
	if err != nil {
		return err
	}
	c.cas = map[string][]byte{c.dir.CACert(): made.CA.CertPEM(), c.dir.NodesCACert(): made.NodesCA.CertPEM()}
	return nil
}

// own are the authority's certificates, and its administrator's kubeconfig, which follows them. What else is done to that
// while the authority runs is its user's business.
func (c *certificates) own() (*datadir.Certificates, error) {
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

// ensureNode does it for the files of this machine's node, and from now on.
// earliest tells since when a certificate of the node must be valid to count.
func (c *certificates) ensureNode(name string, addresses []net.IP, earliest func(node string) (time.Time, error)) (datadir.NodeFiles, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return datadir.NodeFiles{}, errNotHeld
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

// renew makes anew what is due. With a CA that is not the one of the start it does nothing: whoever takes one away means
// another to be made by the next start, after which everybody who is to trust it can be told.
func (c *certificates) renew() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return errNotHeld
	}
	for file, text := range c.cas {
		found, err := files.Read(file, files.MaxPEM)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if !bytes.Equal(found, text) {
			return fmt.Errorf("%s is not what this authority started with: start it again", file)
		}
	}
	if _, err := c.own(); err != nil || c.node == nil {
		return err
	}
	_, err := c.node()
	return err
}

// keep renews until ctx ends.
func (c *certificates) keep(ctx context.Context) {
	complaint := ""
	for wait := renewalPeriod; ; {
		select {
		case <-ctx.Done():
			return
		case <-c.clock.After(wait):
		}
		err := c.renew()
		if err == nil {
			wait, complaint = renewalPeriod, ""
			continue
		}
		if wait = renewalRetry; ctx.Err() == nil && err.Error() != complaint {
			complaint = err.Error()
			klog.ErrorS(err, "Certificates are not renewed until this is mended")
		}
	}
}

// close has nothing written any more, before the directory is given back.
func (c *certificates) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
}
