package cli

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/pflag"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"lanyard.dev/internal/datadir"
	"lanyard.dev/internal/process"
	"lanyard.dev/internal/version"
)

var (
	errNoServer    = errors.New("there is no server to talk to")
	errEmptyConfig = errors.New("the kubeconfig names none")
)

// noServer is errNoServer, with why no authority was found if one was looked
// for.
func noServer(none error) error {
	if none == nil {
		return withHint(fmt.Errorf("%w: %w", errNoServer, errEmptyConfig), "name another kubeconfig with --kubeconfig or KUBECONFIG")
	}
	return withHint(fmt.Errorf("%w: %w", errNoServer, none), hintOf(none))
}

// connection says which server to talk to, and as whom. It is found as lanyard kubectl finds it: a kubeconfig that is
// named, else the authority that runs here, else the user's own kubeconfig.
type connection struct {
	kubeconfig string
	context    string
}

func (c *connection) addFlags(f *pflag.FlagSet) {
	f.StringVar(&c.kubeconfig, "kubeconfig", "", "kubeconfig to use (default: $KUBECONFIG, the authority that runs here, or ~/.kube/config)")
	f.StringVar(&c.context, "context", "", "context in the kubeconfig to use (default: its current one)")
}

// named reports whether a server was named on the command line.
func (c *connection) named() bool { return c.kubeconfig != "" || c.context != "" }

// config reads the kubeconfig. Warnings of the server go to words. namespace is the kubeconfig's, or "default".
func (c *connection) config(words io.Writer) (config *rest.Config, namespace string, err error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath, err = c.file()
	none := err
	if err != nil && !errors.Is(err, datadir.ErrNoneRunning) {
		return nil, "", err
	}
	loaded := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: c.context})
	config, err = loaded.ClientConfig()
	if err == nil {
		namespace, _, err = loaded.Namespace()
	}
	switch {
	case clientcmd.IsEmptyConfig(err):
		return nil, "", noServer(none)
	case err != nil:
		return nil, "", fmt.Errorf("read the kubeconfig: %w", err)
	}
	config.UserAgent = version.Current().UserAgent()
	config.WarningHandler = rest.NewWarningWriter(words, rest.WarningWriterOptions{Deduplicate: true})
	return config, namespace, nil
}

// client connects to the server.
func (c *connection) client(words io.Writer) (kubernetes.Interface, *rest.Config, error) {
	config, _, err := c.config(words)
	if err != nil {
		return nil, nil, err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, nil, fmt.Errorf("connect to %s: %w", config.Host, err)
	}
	return client, config, nil
}

// file is the kubeconfig that was named or that belongs to the authority that runs here. Empty leaves the choice to the
// usual rules, with datadir.ErrNoneRunning as well if no authority was found.
func (c *connection) file() (string, error) {
	if c.kubeconfig != "" || os.Getenv(kubeconfigEnv) != "" {
		return c.kubeconfig, nil
	}
	if isWorkload() {
		return noKubeconfig, nil
	}
	running, err := datadir.FindOne()
	if err != nil {
		return "", err
	}
	return running.Kubeconfig(), nil
}

// isWorkload tells whether this process runs under lanyard exec. Then it is to act as its account, or not at all: neither
// as the administrator of the authority that happens to run here, nor as whoever owns ~/.kube/config.
func isWorkload() bool { return os.Getenv(process.PodNameEnv) != "" }

// noKubeconfig is a kubeconfig with nothing in it. With it, clients are what the environment of a pod says, or nobody.
const noKubeconfig = os.DevNull
