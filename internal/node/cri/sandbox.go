//go:build linux

package cri

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/ptr"
)

// RunSandbox creates and starts a sandbox for the pod's containers. The attempt counts the sandboxes of the pod from 0. An
// attempt cannot be repeated.
func (r *Runtime) RunSandbox(ctx context.Context, pod *corev1.Pod, attempt uint32) (id string, err error) {
	config, err := r.sandboxConfig(ctx, pod, attempt)
	if err != nil {
		return "", err
	}
	if err := r.makeLogs(config.LogDirectory); err != nil {
		return "", fmt.Errorf("make the log directory of pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	ctx, rpc, _, err := r.connected(ctx)
	if err != nil {
		return "", err
	}
	id, err = rpc.RunPodSandbox(ctx, config, "")
	if err != nil {
		return "", fmt.Errorf("run the sandbox of pod %s/%s: %w", pod.Namespace, pod.Name, runtimeText(err))
	}
	r.owned.addSandbox(id, attempt)
	return id, nil
}

// StopSandbox stops a sandbox and all its containers. It is no error if the sandbox has ended or does not exist.
func (r *Runtime) StopSandbox(ctx context.Context, id string) error {
	if _, err := r.requireOwnSandbox(ctx, id); err != nil {
		return unlessNotFound(err)
	}
	ctx, rpc, _, err := r.connected(ctx)
	if err != nil {
		return err
	}
	if err := rpc.StopPodSandbox(ctx, id); err != nil && !isNotFound(err) {
		return fmt.Errorf("stop sandbox %s: %w", id, runtimeText(err))
	}
	return nil
}

// RemoveSandbox removes a sandbox with its containers.
func (r *Runtime) RemoveSandbox(ctx context.Context, id string) error {
	if _, err := r.requireOwnSandbox(ctx, id); err != nil {
		return unlessNotFound(err)
	}
	ctx, rpc, _, err := r.connected(ctx)
	if err != nil {
		return err
	}
	if err := rpc.RemovePodSandbox(ctx, id); err != nil && !isNotFound(err) {
		return fmt.Errorf("remove sandbox %s: %w", id, runtimeText(err))
	}
	return nil
}

func unlessNotFound(err error) error {
	if isNotFound(err) {
		return nil
	}
	return err
}

// sandboxConfig returns the configuration of a pod's sandbox in CRI.
func (r *Runtime) sandboxConfig(ctx context.Context, pod *corev1.Pod, attempt uint32) (*runtimeapi.PodSandboxConfig, error) {
	dns, err := r.dnsConfig(pod)
	if err != nil {
		return nil, err
	}
	parent, err := r.cgroupParent(ctx)
	if err != nil {
		return nil, err
	}
	linux, err := sandboxLinux(pod, parent)
	if err != nil {
		return nil, err
	}
	return &runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{Name: pod.Name, Namespace: pod.Namespace, Uid: string(pod.UID), Attempt: attempt},
		Hostname: hostname(pod), LogDirectory: r.podLogs(pod.Namespace, pod.Name, pod.UID), DnsConfig: dns, PortMappings: portMappings(pod),
		Labels: r.sandboxLabels(pod), Annotations: pod.Annotations, Linux: linux,
	}, nil
}

// hostname returns spec.hostname, or the pod's name cut to the length of a host name. "" means the host name of the machine.
func hostname(pod *corev1.Pod) string {
	if pod.Spec.HostNetwork {
		return ""
	}
	if pod.Spec.Hostname != "" {
		return pod.Spec.Hostname
	}
	return strings.TrimRight(pod.Name[:min(len(pod.Name), 63)], "-.")
}

// portMappings returns the host ports of the pod. In the network of the machine no port is mapped.
func portMappings(pod *corev1.Pod) []*runtimeapi.PortMapping {
	if pod.Spec.HostNetwork {
		return nil
	}
	var mapped []*runtimeapi.PortMapping
	for _, container := range slices.Concat(sidecars(pod), pod.Spec.Containers) {
		for _, port := range container.Ports {
			if port.HostPort > 0 {
				mapped = append(mapped, &runtimeapi.PortMapping{
					Protocol: protocol(port.Protocol), ContainerPort: port.ContainerPort, HostPort: port.HostPort, HostIp: port.HostIP,
				})
			}
		}
	}
	return mapped
}

// sidecars returns the init containers that keep running beside the main containers.
func sidecars(pod *corev1.Pod) []corev1.Container {
	return slices.DeleteFunc(slices.Clone(pod.Spec.InitContainers), func(container corev1.Container) bool {
		return ptr.Deref(container.RestartPolicy, "") != corev1.ContainerRestartPolicyAlways
	})
}

func protocol(name corev1.Protocol) runtimeapi.Protocol {
	switch name {
	case corev1.ProtocolUDP:
		return runtimeapi.Protocol_UDP
	case corev1.ProtocolSCTP:
		return runtimeapi.Protocol_SCTP
	}
	return runtimeapi.Protocol_TCP
}

func sandboxLinux(pod *corev1.Pod, parent string) (*runtimeapi.LinuxPodSandboxConfig, error) {
	namespaces, err := namespaceOptions(pod)
	if err != nil {
		return nil, err
	}
	sysctls, err := sysctls(pod)
	if err != nil {
		return nil, err
	}
	context := &runtimeapi.LinuxSandboxSecurityContext{
		NamespaceOptions: namespaces, Privileged: hasPrivileged(pod), SupplementalGroups: supplementalGroups(pod),
		// This is the profile of the runtime's own pause program, whatever the pod requests.
		Seccomp: &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault},
	}
	if security := pod.Spec.SecurityContext; security != nil {
		context.RunAsUser, context.RunAsGroup = int64Value(security.RunAsUser), int64Value(security.RunAsGroup)
		context.SelinuxOptions = selinux(security.SELinuxOptions)
	}
	if context.RunAsUser == nil {
		context.RunAsGroup = nil // CRI accepts no group without a user
	}
	return &runtimeapi.LinuxPodSandboxConfig{CgroupParent: parent, SecurityContext: context, Sysctls: sysctls}, nil
}

func hasPrivileged(pod *corev1.Pod) bool {
	return slices.ContainsFunc(slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers), func(container corev1.Container) bool {
		return container.SecurityContext != nil && ptr.Deref(container.SecurityContext.Privileged, false)
	})
}

func namespaceOptions(pod *corev1.Pod) (*runtimeapi.NamespaceOption, error) {
	if !ptr.Deref(pod.Spec.HostUsers, true) {
		return nil, &ConfigError{Message: "spec.hostUsers: false is not supported"}
	}
	options := &runtimeapi.NamespaceOption{
		Network: runtimeapi.NamespaceMode_POD, Ipc: runtimeapi.NamespaceMode_POD, Pid: runtimeapi.NamespaceMode_CONTAINER,
	}
	if pod.Spec.HostNetwork {
		options.Network = runtimeapi.NamespaceMode_NODE
	}
	if pod.Spec.HostIPC {
		options.Ipc = runtimeapi.NamespaceMode_NODE
	}
	switch {
	case pod.Spec.HostPID:
		options.Pid = runtimeapi.NamespaceMode_NODE
	case ptr.Deref(pod.Spec.ShareProcessNamespace, false):
		options.Pid = runtimeapi.NamespaceMode_POD
	}
	return options, nil
}

// safeSysctls returns the sysctls that Kubernetes considers safe, and whether they belong to the network namespace. The
// others belong to the IPC namespace.
func safeSysctls() map[string]bool {
	return map[string]bool{
		"kernel.shm_rmid_forced":              false,
		"net.ipv4.ip_local_port_range":        true,
		"net.ipv4.ip_local_reserved_ports":    true,
		"net.ipv4.ip_unprivileged_port_start": true,
		"net.ipv4.ping_group_range":           true,
		"net.ipv4.tcp_fin_timeout":            true,
		"net.ipv4.tcp_keepalive_intvl":        true,
		"net.ipv4.tcp_keepalive_probes":       true,
		"net.ipv4.tcp_keepalive_time":         true,
		"net.ipv4.tcp_rmem":                   true,
		"net.ipv4.tcp_syncookies":             true,
		"net.ipv4.tcp_wmem":                   true,
	}
}

func sysctls(pod *corev1.Pod) (map[string]string, error) {
	if pod.Spec.SecurityContext == nil {
		return nil, nil
	}
	values := map[string]string{}
	var all []error
	for _, sysctl := range pod.Spec.SecurityContext.Sysctls {
		ofNetwork, safe := safeSysctls()[sysctl.Name]
		shared := ofNetwork && pod.Spec.HostNetwork || !ofNetwork && pod.Spec.HostIPC
		if !safe || shared {
			all = append(all, &ConfigError{Message: fmt.Sprintf("forbidden sysctl: %q not allowlisted", sysctl.Name)})
		}
		values[sysctl.Name] = sysctl.Value
	}
	return values, errors.Join(all...)
}

// supplementalGroups returns the pod's supplemental groups, including fsGroup.
func supplementalGroups(pod *corev1.Pod) []int64 {
	security := pod.Spec.SecurityContext
	if security == nil {
		return nil
	}
	var groups []int64
	if security.FSGroup != nil {
		groups = append(groups, *security.FSGroup)
	}
	return append(groups, security.SupplementalGroups...)
}

func int64Value(value *int64) *runtimeapi.Int64Value {
	if value == nil {
		return nil
	}
	return &runtimeapi.Int64Value{Value: *value}
}

func selinux(options *corev1.SELinuxOptions) *runtimeapi.SELinuxOption {
	if options == nil {
		return nil
	}
	return &runtimeapi.SELinuxOption{User: options.User, Role: options.Role, Type: options.Type, Level: options.Level}
}

// localhostProfile returns the path of a profile in the directory of profiles.
func localhostProfile(dir, name string) (string, error) {
	if !filepath.IsLocal(name) {
		return "", &ConfigError{Message: fmt.Sprintf("localhostProfile %q must be a path below %s", name, dir)}
	}
	return filepath.Join(dir, name), nil
}
