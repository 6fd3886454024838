package cli

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"lanyard.dev/internal/datadir"
)

// connectOptions name the API that a command talks to.
type connectOptions struct {
	kubeconfig string
	context    string
}

func (o *connectOptions) addFlags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.kubeconfig, "kubeconfig", "", "kubeconfig to use; default $KUBECONFIG, else the authority that runs here, else ~/.kube/config")
	cmd.Flags().StringVar(&o.context, "context", "", "context of the kubeconfig to use")
}

// config finds the API as lanyard kubectl does: a kubeconfig that is named, else the authority that runs here, else
// the user's own kubeconfig.
func (o *connectOptions) config() (*rest.Config, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = o.kubeconfig
	if o.kubeconfig == "" && os.Getenv(kubeconfigEnv) == "" {
		running, err := datadir.FindOne()
		switch {
		case err == nil:
			rules.ExplicitPath = running.Kubeconfig()
		case !errors.Is(err, datadir.ErrNoneRunning):
			return nil, err
		}
	}
	overrides := &clientcmd.ConfigOverrides{CurrentContext: o.context}
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, overrides).ClientConfig()
	switch {
	case clientcmd.IsEmptyConfig(err):
		return nil, withHint(errors.New("no authority is running here and no kubeconfig is named"),
			"start one with lanyard up, or name a kubeconfig with --kubeconfig")
	case err != nil:
		return nil, fmt.Errorf("read the kubeconfig: %w", err)
	}
	return config, nil
}

func (o *connectOptions) client() (kubernetes.Interface, *rest.Config, error) {
	config, err := o.config()
	if err != nil {
		return nil, nil, err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, nil, fmt.Errorf("connect to %s: %w", config.Host, err)
	}
	return client, config, nil
}
