package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/connrotation"

	"lanyard.dev/internal/files"
)

// Server is the API server as clients inside the command see it.
type Server struct {
	URL *url.URL
	// CA holds the certificates in PEM that the server's certificate is verified with. If it is empty, clients use the
	// certificates of the machine.
	CA []byte
	// Name is the name in the server's certificate if it differs from the host of URL.
	Name string
	// Insecure disables verification of the certificate. Only a kubeconfig can express it.
	Insecure bool
}

// ServerOf returns the server of a client configuration. It returns an error for a server without TLS.
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
		if s.CA, err = files.Read(config.CAFile, files.MaxPEM); err != nil {
			return Server{}, fmt.Errorf("read the CA of %s: %w", config.Host, err)
		}
	}
	return s, nil
}

// TrackConnections changes config so that the connections of its clients can be closed, with the function it returns. If the
// server disappears without closing a connection, every request on it waits until HTTP/2 gives the connection up, after 45
// seconds.
func TrackConnections(config *rest.Config) (closeConnections func()) {
	dial := config.Dial
	if dial == nil {
		dial = (&net.Dialer{Timeout: dialTimeout, KeepAlive: dialTimeout}).DialContext
	}
	connections := connrotation.NewDialer(dial)
	config.Dial = connections.DialContext
	return connections.CloseAll
}

const dialTimeout = 30 * time.Second

// environment returns the variables in which in-cluster clients find the server. They contain a host and a port only, so it
// returns an error for a server whose URL has a path.
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

// loadCA returns the CA that pods of the namespace get, or the CA of the kubeconfig if the caller may not read the former.
func (s Server) loadCA(ctx context.Context, client kubernetes.Interface, namespace string) []byte {
	published, err := client.CoreV1().ConfigMaps(namespace).Get(ctx, rootCAConfigMap, metav1.GetOptions{})
	if err == nil && published.Data[caFile] != "" {
		return []byte(published.Data[caFile])
	}
	return s.CA
}

// Probe reports whether the API server accepts a token. An error means that the server did not decide.
type Probe func(ctx context.Context, token string) (accepted bool, err error)

// maxAnswer is the number of bytes of an answer that are read, so that its connection can be reused.
const maxAnswer = 64 << 10

// NewProbe returns a Probe that requests /version with the token. The caller of lanyard exec rarely has permission to create a
// TokenReview. A server authenticates a request before it authorizes it, so only status 401 means that the token is refused.
func NewProbe(config *rest.Config) (Probe, error) {
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
