package cli

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/pflag"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"lanyard.dev/internal/datadir"
)

// connection says which server to talk to, and as whom.
type connection struct {
	kubeconfig string
	context    string
}

func (c *connection) addFlags(f *pflag.FlagSet) {
	f.StringVar(&c.kubeconfig, "kubeconfig", "", "kubeconfig to use (default: $KUBECONFIG, the authority that runs here, or ~/.kube/config)")
	f.StringVar(&c.context, "context", "", "context in the kubeconfig to use (default: its current one)")
}

// config reads the kubeconfig. Warnings of the server go to words.
func (c *connection) config(words io.Writer) (*rest.Config, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	file, err := c.file()
	if err != nil {
		return nil, err
	}
	rules.ExplicitPath = file
	loaded := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: c.context})
	config, err := loaded.ClientConfig()
	if clientcmd.IsEmptyConfig(err) {
		return nil, withHint(errors.New("there is no server to talk to"), "start one with lanyard up, or name a kubeconfig with --kubeconfig")
	}
	if err != nil {
		return nil, fmt.Errorf("read the kubeconfig: %w", err)
	}
	config.WarningHandler = rest.NewWarningWriter(words, rest.WarningWriterOptions{Deduplicate: true})
	return config, nil
}

// file is the kubeconfig that was named or that belongs to the authority that runs here; empty leaves the choice to the
// usual rules.
func (c *connection) file() (string, error) {
	if c.kubeconfig != "" || os.Getenv(kubeconfigEnv) != "" {
		return c.kubeconfig, nil
	}
	running, err := datadir.FindOne()
	if errors.Is(err, datadir.ErrNoneRunning) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return running.Kubeconfig(), nil
}
