package pod

import (
	"bytes"
	"fmt"
	"os"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

const hostsPath = "/etc/hosts"

// hostsFile returns the pod's /etc/hosts: names of its own, or the machine's for a pod with the host's network, and in
// either case its aliases.
func hostsFile(pod *corev1.Pod, ips []string) ([]byte, error) {
	var out bytes.Buffer
	if pod.Spec.HostNetwork {
		host, err := os.ReadFile(hostsPath)
		if err != nil {
			return nil, err
		}
		out.WriteString("# Kubernetes-managed hosts file (host network).\n")
		out.Write(host)
	} else {
		out.WriteString("# Kubernetes-managed hosts file.\n")
		out.WriteString("127.0.0.1\tlocalhost\n")
		out.WriteString("::1\tlocalhost ip6-localhost ip6-loopback\n")
		out.WriteString("fe00::0\tip6-localnet\n")
		out.WriteString("fe00::0\tip6-mcastprefix\n")
		out.WriteString("fe00::1\tip6-allnodes\n")
		out.WriteString("fe00::2\tip6-allrouters\n")
		for _, ip := range ips {
			fmt.Fprintf(&out, "%s\t%s\n", ip, hostname(pod))
		}
	}
	if len(pod.Spec.HostAliases) > 0 {
		out.WriteString("\n# Entries added by HostAliases.\n")
	}
	for _, alias := range pod.Spec.HostAliases {
		fmt.Fprintf(&out, "%s\t%s\n", alias.IP, strings.Join(alias.Hostnames, "\t"))
	}
	return out.Bytes(), nil
}
