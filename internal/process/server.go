package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
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

// Probe asks the API server whether it accepts a token. An error means that it did not answer.
type Probe func(ctx context.Context, token string) (accepted bool, err error)

// maxAnswer bounds what is read of an answer, so that its connection can be used again.
const maxAnswer = 64 << 10

// ProbeBy returns a Probe that makes a request with the token itself, since the caller of lanyard exec seldom may review tokens.
// The answer is about the token alone: a server refuses a token before it looks at what is asked for.
func ProbeBy(config *rest.Config) (Probe, error) {
	anonymous := rest.AnonymousClientConfig(config)
	base, _, err := rest.DefaultServerUrlFor(anonymous)
	if err != nil {
		return nil, fmt.Errorf("server %s: %w", config.Host, err)
	}
	client, err := rest.HTTPClientFor(anonymous)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", config.Host, err)
	}
	url := base.JoinPath("version").String()
	return func(ctx context.Context, token string) (bool, error) {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return false, err
		}
		request.Header.Set("Authorization", "Bearer "+token)
		answer, err := client.Do(request)
		if err != nil {
			return false, err
		}
		_, _ = io.Copy(io.Discard, io.LimitReader(answer.Body, maxAnswer))
		_ = answer.Body.Close()
		switch {
		case answer.StatusCode == http.StatusUnauthorized:
			return false, nil
		case answer.StatusCode == http.StatusTooManyRequests || answer.StatusCode >= http.StatusInternalServerError:
			return false, fmt.Errorf("%s answered %s", url, answer.Status)
		}
		return true, nil
	}, nil
}
