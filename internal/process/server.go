package process

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/connrotation"
)

// Server is the API server as the command is told of it.
type Server struct {
	URL *url.URL
	// CA signed its certificate, in PEM; empty stands for the machine's own CAs.
	CA []byte
	// Name is the certificate's, where that is not the URL's host.
	Name string
	// Insecure leaves the certificate unchecked. Only a kubeconfig can say so.
	Insecure bool
}

// ServerOf reads where a client configuration leads.
func ServerOf(config *rest.Config) (Server, error) {
	base, _, err := rest.DefaultServerUrlFor(config)
	if err != nil {
		return Server{}, fmt.Errorf("server %s: %w", config.Host, err)
	}
	if base.Scheme != "https" {
		return Server{}, fmt.Errorf("server %s: tokens are sent over https only", config.Host)
	}
	s := Server{URL: base, CA: config.CAData, Name: config.ServerName, Insecure: config.Insecure}
	if len(s.CA) == 0 && config.CAFile != "" {
		if s.CA, err = os.ReadFile(config.CAFile); err != nil {
			return Server{}, fmt.Errorf("read the CA of %s: %w", config.Host, err)
		}
	}
	return s, nil
}

// Dial lets connections that are made from the configuration be closed, by the function it returns. One whose other end
// went without a word would keep every request waiting until HTTP/2 gives it up, after 45 seconds.
func Dial(config *rest.Config) (hangUp func()) {
	dial := config.Dial
	if dial == nil {
		dial = (&net.Dialer{Timeout: dialTimeout, KeepAlive: dialTimeout}).DialContext
	}
	connections := connrotation.NewDialer(dial)
	config.Dial = connections.DialContext
	return connections.CloseAll
}

const dialTimeout = 30 * time.Second

// environment returns the variables by which in-cluster clients find the server. They name a host and a port, and nothing
// else.
func (s Server) environment() ([]string, error) {
	if path := strings.Trim(s.URL.Path, "/"); path != "" {
		return nil, errors.New("in-cluster clients cannot reach a server below a path")
	}
	port := s.URL.Port()
	if port == "" {
		port = "443"
	}
	return []string{serviceHost + "=" + s.URL.Hostname(), servicePort + "=" + port, servicePortHTTPS + "=" + port}, nil
}

const (
	serviceHost      = "KUBERNETES_SERVICE_HOST"
	servicePort      = "KUBERNETES_SERVICE_PORT"
	servicePortHTTPS = "KUBERNETES_SERVICE_PORT_HTTPS"

	rootCAConfigMap = "kube-root-ca.crt"
)

// authorities returns the CA that pods of the namespace are given, or, where the caller may not read that, the one of the
// kubeconfig.
func (s Server) authorities(ctx context.Context, client kubernetes.Interface, namespace string) []byte {
	published, err := client.CoreV1().ConfigMaps(namespace).Get(ctx, rootCAConfigMap, metav1.GetOptions{})
	if err == nil && published.Data[caFile] != "" {
		return []byte(published.Data[caFile])
	}
	return s.CA
}
