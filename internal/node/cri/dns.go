//go:build linux

package cri

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/ptr"
)

const (
	machineResolvConf = "/etc/resolv.conf"
	// upstreamResolvConf has the servers to which systemd-resolved forwards, where it runs.
	upstreamResolvConf = "/run/systemd/resolve/resolv.conf"
	// maxResolvConf bounds the size of resolv.conf. Resolvers read much less.
	maxResolvConf = 64 << 10
	// maxServers is the limit of resolvers (MAXNS in resolv.conf(5)) and of Kubernetes.
	maxServers = 3
)

// dnsConfig returns the name resolution of the pod. There is no cluster DNS, so ClusterFirst is treated as Default.
func (r *Runtime) dnsConfig(pod *corev1.Pod) (*runtimeapi.DNSConfig, error) {
	config := &runtimeapi.DNSConfig{}
	if pod.Spec.DNSPolicy != corev1.DNSNone {
		var err error
		if config, err = r.machineDNS(pod.Spec.HostNetwork); err != nil {
			return nil, err
		}
	}
	if own := pod.Spec.DNSConfig; own != nil {
		config.Servers = union(config.Servers, own.Nameservers)
		config.Searches = union(config.Searches, own.Searches)
		config.Options = mergeOptions(config.Options, own.Options)
	}
	config.Servers = config.Servers[:min(len(config.Servers), maxServers)]
	return config, nil
}

// machineDNS returns the name resolution of the machine. Only pods in the network of the machine can use a resolver on
// loopback.
func (r *Runtime) machineDNS(hostNetwork bool) (*runtimeapi.DNSConfig, error) {
	if r.config.ResolvConf != "" {
		return readResolvConf(r.config.ResolvConf)
	}
	config, err := readResolvConf(machineResolvConf)
	if err != nil || hostNetwork || !allLoopback(config.Servers) {
		return config, err
	}
	upstream, err := readResolvConf(upstreamResolvConf)
	if err != nil || len(upstream.Servers) == 0 {
		return config, nil
	}
	return upstream, nil
}

func allLoopback(servers []string) bool {
	return !slices.ContainsFunc(servers, func(server string) bool {
		address, err := netip.ParseAddr(server)
		return err != nil || !address.IsLoopback()
	})
}

// readResolvConf reads a file, which need not exist.
func readResolvConf(path string) (*runtimeapi.DNSConfig, error) {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return &runtimeapi.DNSConfig{}, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	config, err := parseResolvConf(io.LimitReader(file, maxResolvConf))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return config, nil
}

// parseResolvConf reads the format of resolv.conf(5): the last search or domain line is used, and options are added.
func parseResolvConf(r io.Reader) (*runtimeapi.DNSConfig, error) {
	config := &runtimeapi.DNSConfig{}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 {
			continue
		}
		switch fields[0] {
		case "nameserver":
			config.Servers = union(config.Servers, fields[1:2])
		case "domain", "search":
			config.Searches = fields[1:]
		case "options":
			config.Options = union(config.Options, fields[1:])
		}
	}
	return config, lines.Err()
}

// union returns the elements of a, followed by the elements of b that are not in a.
func union(a, b []string) []string {
	all := slices.Clone(a)
	for _, item := range b {
		if !slices.Contains(all, item) {
			all = append(all, item)
		}
	}
	return all
}

// mergeOptions adds the pod's options, which replace options of the same name.
func mergeOptions(options []string, own []corev1.PodDNSConfigOption) []string {
	merged := slices.Clone(options)
	for _, option := range own {
		merged = slices.DeleteFunc(merged, func(have string) bool {
			name, _, _ := strings.Cut(have, ":")
			return name == option.Name
		})
		text := option.Name
		if value := ptr.Deref(option.Value, ""); value != "" {
			text += ":" + value
		}
		merged = append(merged, text)
	}
	return merged
}
