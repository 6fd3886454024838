package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// authority is where the API server is, as pods and this machine see it.
type authority struct{ host, port string }

func parseAuthority(server string) (authority, error) {
	u, err := url.Parse(server)
	if err != nil || u.Hostname() == "" {
		return authority{}, fmt.Errorf("the kubeconfig's server %q is no URL with a host", server)
	}
	port := u.Port()
	if port == "" {
		port = "443"
	}
	return authority{u.Hostname(), port}, nil
}

func (a authority) address() string { return net.JoinHostPort(a.host, a.port) }

// env is how clients in a pod find the authority: as if it were the service "kubernetes" in "default".
func (a authority) env() []corev1.EnvVar {
	target := "tcp://" + a.address()
	prefix := "KUBERNETES_PORT_" + a.port + "_TCP"
	return []corev1.EnvVar{
		{Name: "KUBERNETES_SERVICE_HOST", Value: a.host},
		{Name: "KUBERNETES_SERVICE_PORT", Value: a.port},
		{Name: "KUBERNETES_SERVICE_PORT_HTTPS", Value: a.port},
		{Name: "KUBERNETES_PORT", Value: target},
		{Name: prefix, Value: target},
		{Name: prefix + "_PROTO", Value: "tcp"},
		{Name: prefix + "_PORT", Value: a.port},
		{Name: prefix + "_ADDR", Value: a.host},
	}
}

// localAddress is the address of this machine from which it reaches the authority: where the authority can reach it, unless
// something between the two translates addresses.
func (a authority) localAddress(ctx context.Context) (net.IP, error) {
	dialer := net.Dialer{Timeout: 10 * time.Second}
	conn, err := dialer.DialContext(ctx, "tcp", a.address())
	if err != nil {
		return nil, fmt.Errorf("reach the authority: %w", err)
	}
	defer conn.Close()
	local, ok := conn.LocalAddr().(*net.TCPAddr)
	if !ok {
		return nil, errors.New("the connection to the authority is not one of TCP")
	}
	return local.IP, nil
}
