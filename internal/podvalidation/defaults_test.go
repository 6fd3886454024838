package podvalidation

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"
)

// TestSetDefaults compares specs, given as YAML, before and after SetDefaults.
func TestSetDefaults(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ in, want string }{
		"container": {
			in: `{containers: [{name: a, image: a}]}`,
			want: `{containers: [{name: a, image: a, imagePullPolicy: Always, resources: {}, terminationMessagePath: /dev/termination-log,
				terminationMessagePolicy: File}], restartPolicy: Always, dnsPolicy: ClusterFirst, schedulerName: default-scheduler,
				terminationGracePeriodSeconds: 30, securityContext: {}, enableServiceLinks: true}`,
		},
		"account": {
			in:   `{containers: [], serviceAccount: old}`,
			want: tail(`containers: [], serviceAccountName: old, serviceAccount: old`),
		},
		"account twice": {
			in:   `{containers: [], serviceAccountName: new, serviceAccount: old}`,
			want: tail(`containers: [], serviceAccountName: new, serviceAccount: new`),
		},
		"what is set stays": {
			in: `{containers: [], restartPolicy: Never, dnsPolicy: Default, schedulerName: x, terminationGracePeriodSeconds: 0,
				securityContext: {runAsUser: 1}, enableServiceLinks: false}`,
			want: `{containers: [], restartPolicy: Never, dnsPolicy: Default, schedulerName: x, terminationGracePeriodSeconds: 0,
				securityContext: {runAsUser: 1}, enableServiceLinks: false}`,
		},
		"volumes": {
			in: `{containers: [], volumes: [{name: a}, {name: b, secret: {secretName: s}}, {name: c, configMap: {name: m}},
				{name: d, hostPath: {path: /x}}, {name: e, downwardAPI: {items: [{path: p, fieldRef: {fieldPath: metadata.name}}]}},
				{name: f, projected: {sources: [{serviceAccountToken: {path: t}}, {podCertificate: {}}]}},
				{name: g, image: {reference: "a:1"}}, {name: h, ephemeral: {volumeClaimTemplate: {spec: {}}}},
				{name: i, iscsi: {targetPortal: p, iqn: q, lun: 0}}, {name: j, rbd: {monitors: [], image: i}}]}`,
			want: tail(`containers: [], volumes: [{name: a, emptyDir: {}}, {name: b, secret: {secretName: s, defaultMode: 420}},
				{name: c, configMap: {name: m, defaultMode: 420}}, {name: d, hostPath: {path: /x, type: ""}},
				{name: e, downwardAPI: {defaultMode: 420, items: [{path: p, fieldRef: {apiVersion: v1, fieldPath: metadata.name}}]}},
				{name: f, projected: {defaultMode: 420, sources: [{serviceAccountToken: {path: t, expirationSeconds: 3600}},
				{podCertificate: {maxExpirationSeconds: 86400}}]}}, {name: g, image: {reference: "a:1", pullPolicy: IfNotPresent}},
				{name: h, ephemeral: {volumeClaimTemplate: {spec: {volumeMode: Filesystem}}}},
				{name: i, iscsi: {targetPortal: p, iqn: q, lun: 0, iscsiInterface: default}},
				{name: j, rbd: {monitors: [], image: i, pool: rbd, user: admin, keyring: /etc/ceph/keyring}}]`),
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, want := &corev1.Pod{}, corev1.PodSpec{}
			parse(t, c.in, &got.Spec)
			parse(t, c.want, &want)
			SetDefaults(got)
			if diff := cmp.Diff(want, got.Spec); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			again := got.DeepCopy()
			SetDefaults(again)
			if diff := cmp.Diff(got, again); diff != "" {
				t.Errorf("defaults of defaults differ:\n%s", diff)
			}
		})
	}
}

func parse(t *testing.T, text string, into *corev1.PodSpec) {
	t.Helper()
	// YAML forbids tabs in indentation, even within braces.
	if err := yaml.UnmarshalStrict([]byte(strings.ReplaceAll(text, "\t", " ")), into); err != nil {
		t.Fatal(err)
	}
}

// tail adds the defaults that every spec gets.
func tail(fields string) string {
	return `{` + fields + `, restartPolicy: Always, dnsPolicy: ClusterFirst, schedulerName: default-scheduler,
		terminationGracePeriodSeconds: 30, securityContext: {}, enableServiceLinks: true}`
}

func TestPullPolicyFor(t *testing.T) {
	t.Parallel()
	const digest = "@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	for image, want := range map[string]corev1.PullPolicy{
		"web":                 corev1.PullAlways,
		"host:5000/web":       corev1.PullAlways,
		"web:latest":          corev1.PullAlways,
		"web:latest" + digest: corev1.PullAlways,
		"web:1":               corev1.PullIfNotPresent,
		"host:5000/web:1":     corev1.PullIfNotPresent,
		"web" + digest:        corev1.PullIfNotPresent,
		"Not An Image":        corev1.PullIfNotPresent,
		"":                    corev1.PullIfNotPresent,
	} {
		if got := pullPolicyFor(image); got != want {
			t.Errorf("%q: got %s, want %s", image, got, want)
		}
	}
}

func TestSetDefaultsOfContainerParts(t *testing.T) {
	t.Parallel()
	pod := defaulted(both(
		spec(func(s *corev1.PodSpec) { s.HostNetwork = true }),
		main(func(c *corev1.Container) {
			c.Ports = []corev1.ContainerPort{{ContainerPort: 80}}
			c.LivenessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: 1}}}
			c.Lifecycle = &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{HTTPGet: &corev1.HTTPGetAction{Port: intstr.FromInt32(1)}}}
			c.Resources = corev1.ResourceRequirements{Limits: list("cpu", "1", "memory", "0.1m"), Requests: list("cpu", "500m")}
		})))
	c := pod.Spec.Containers[0]
	if got, want := c.Ports[0], (corev1.ContainerPort{ContainerPort: 80, HostPort: 80, Protocol: "TCP"}); got != want {
		t.Errorf("port: got %+v, want %+v", got, want)
	}
	wantProbe := &corev1.Probe{TimeoutSeconds: 1, PeriodSeconds: 10, SuccessThreshold: 1, FailureThreshold: 3,
		ProbeHandler: corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: 1, Service: ptr.To("")}}}
	if diff := cmp.Diff(wantProbe, c.LivenessProbe); diff != "" {
		t.Errorf("probe (-want +got)\n%s", diff)
	}
	if get := c.Lifecycle.PostStart.HTTPGet; get.Path != "/" || get.Scheme != "HTTP" {
		t.Errorf("hook: got %+v", get)
	}
	if diff := cmp.Diff(list("cpu", "500m", "memory", "1m"), c.Resources.Requests); diff != "" {
		t.Errorf("requests (-want +got)\n%s", diff)
	}
}

func TestSetDefaultsOfPodResources(t *testing.T) {
	t.Parallel()
	pod := defaulted(both(limits(list("cpu", "2"), list("cpu", "1")), spec(func(s *corev1.PodSpec) {
		s.Resources = &corev1.ResourceRequirements{Limits: list("cpu", "4", "memory", "1Gi")}
	})))
	if diff := cmp.Diff(list("cpu", "1", "memory", "1Gi"), pod.Spec.Resources.Requests); diff != "" {
		t.Errorf("requests (-want +got)\n%s", diff)
	}
}
