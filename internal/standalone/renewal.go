package standalone

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"time"

	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"lanyard.dev/internal/datadir"
)

// renewalPeriod is far below the third of a certificate's life at which it is renewed, which is four months.
const renewalPeriod = 12 * time.Hour

// certificates are what an authority presents, and what the agent beside it does. The authority and the agent read the files
// again when they change.
type certificates struct {
	dir         *datadir.Dir
	url         string
	bindAddress string

	mu   sync.Mutex
	ca   []byte // what is trusted since the start
	node func(clock.PassiveClock) (datadir.NodeFiles, error)
}

// ensure makes what is missing, and what is due anew, at the start.
func (c *certificates) ensure(now clock.PassiveClock) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	made, err := c.own(now)
	if err != nil {
		return err
	}
	c.ca = made.CA.CertPEM()
	return nil
}

// own are the authority's certificates, and its administrator's kubeconfig.
func (c *certificates) own(now clock.PassiveClock) (*datadir.Certificates, error) {
	made, err := c.dir.EnsureCertificates(c.bindAddress, now)
	if err != nil {
		return nil, err
	}
	return made, c.dir.EnsureKubeconfig(c.url, made)
}

// ensureNode does it for the files of this machine's node, and from now on.
func (c *certificates) ensureNode(name string, addresses []net.IP, now clock.PassiveClock) (datadir.NodeFiles, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.node = func(now clock.PassiveClock) (datadir.NodeFiles, error) {
		return c.dir.EnsureNode(name, addresses, c.url, now)
	}
	return c.node(now)
}

// renew makes anew what is due. A CA that was taken away, for another at the next start, is left to that start: what runs
// trusts the one it began with.
func (c *certificates) renew(now clock.PassiveClock) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if found, err := os.ReadFile(c.dir.CACert()); err != nil || !bytes.Equal(found, c.ca) {
		return errors.New(c.dir.CACert() + " is not what this authority started with: start it again")
	}
	if _, err := c.own(now); err != nil || c.node == nil {
		return err
	}
	_, err := c.node(now)
	return err
}

// keep renews until ctx ends.
func (c *certificates) keep(ctx context.Context) {
	tick := time.NewTicker(renewalPeriod)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err := c.renew(clock.RealClock{}); err != nil {
				klog.ErrorS(err, "Certificates are not renewed; trying again", "in", renewalPeriod)
			}
		}
	}
}
