package node_test

//lint:file-ignore SA1019 deprecated fields are still decoded, so they are still checked

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"lanyard.dev/internal/apiserver/registry/fieldtest"
	"lanyard.dev/internal/apiserver/registry/node"
)

func taint(key, value, effect string) func(*corev1.Node) {
	return func(n *corev1.Node) {
		n.Spec.Taints = []corev1.Taint{{Key: key, Value: value, Effect: corev1.TaintEffect(effect)}}
	}
}

func capacity(name, quantity string) func(*corev1.Node) {
	return func(n *corev1.Node) { n.Status.Capacity[corev1.ResourceName(name)] = resource.MustParse(quantity) }
}

func cidrs(list ...string) func(*corev1.Node) {
	return func(n *corev1.Node) { n.Spec.PodCIDRs = list }
}

func features(list ...string) func(*corev1.Node) {
	return func(n *corev1.Node) { n.Status.DeclaredFeatures = list }
}

func annotation(key, value string) func(*corev1.Node) {
	return func(n *corev1.Node) { n.Annotations = map[string]string{key: value} }
}

func TestValidate(t *testing.T) {
	t.Parallel()
	const oneEach = "may specify no more than one CIDR for each IP family"
	for _, test := range []struct {
		name   string
		mutate func(*corev1.Node)
		want   []fieldtest.Fault
	}{
		{"valid", func(*corev1.Node) {}, nil},
		{"name", func(n *corev1.Node) { n.Name = "Node" }, []fieldtest.Fault{fieldtest.Invalid("metadata.name", "RFC 1123 subdomain")}},
		{"namespace", func(n *corev1.Node) { n.Namespace = "a" }, []fieldtest.Fault{fieldtest.Forbidden("metadata.namespace", "")}},
		{"taint key", taint("a/b/c", "", "NoExecute"), []fieldtest.Fault{fieldtest.Invalid("metadata.taints[0].key", "label key")}},
		{"taint value", taint("a", "b c", "NoExecute"), []fieldtest.Fault{fieldtest.Invalid("metadata.taints[0].value", "a valid label must be")}},
		{"taint effect", taint("a", "", "Explode"),
			[]fieldtest.Fault{fieldtest.NotSupported("metadata.taints[0].effect", `supported values: "NoSchedule", "PreferNoSchedule", "NoExecute"`)}},
		{"taint without effect", taint("a", "", ""), []fieldtest.Fault{fieldtest.Required("metadata.taints[0].effect", "")}},
		{"taint twice", func(n *corev1.Node) { n.Spec.Taints = append(n.Spec.Taints, n.Spec.Taints[0]) },
			[]fieldtest.Fault{fieldtest.Duplicate("metadata.taints[2]", "taints must be unique by key and effect pair")}},
		{"negative", capacity("cpu", "-1"), []fieldtest.Fault{fieldtest.Invalid("status.capacity.cpu", `"-1": must be greater than or equal to 0`)}},
		{"half a pod", capacity("pods", "500m"), []fieldtest.Fault{fieldtest.Invalid("status.capacity.pods", "must be an integer")}},
		{"half a device", capacity("example.com/gpu", "1500m"), []fieldtest.Fault{fieldtest.Invalid("status.capacity.example.com/gpu", "must be an integer")}},
		{"half of ours", capacity("kubernetes.io/x", "500m"), nil},
		{"many devices", capacity("example.com/gpu", "9223372036854775"), nil},
		{"one family", cidrs("10.0.1.0/24"), nil},
		{"no range", cidrs("10.0.1.0"), []fieldtest.Fault{fieldtest.Invalid("spec.podCIDRs[0]", "must be a valid CIDR value")}},
		{"loose range", cidrs("10.0.1.7/24"), []fieldtest.Fault{fieldtest.Invalid("spec.podCIDRs[0]", "must not have bits set beyond the prefix length")}},
		{"same family", cidrs("10.0.1.0/24", "10.0.2.0/24"), []fieldtest.Fault{fieldtest.Invalid("spec.podCIDRs", oneEach)}},
		{"three", cidrs("10.0.1.0/24", "fd00:1::/64", "10.0.2.0/24"), []fieldtest.Fault{fieldtest.Invalid("spec.podCIDRs", oneEach)}},
		{"twice", cidrs("10.0.1.0/24", "10.0.1.0/24"), []fieldtest.Fault{
			fieldtest.Duplicate("spec.podCIDRs[1]", ""), fieldtest.Invalid("spec.podCIDRs", oneEach),
		}},
		{"one broken", cidrs("10.0.1.0/24", "x"), []fieldtest.Fault{
			fieldtest.Invalid("spec.podCIDRs[1]", "must be a valid CIDR value"), fieldtest.Invalid("spec.podCIDRs", oneEach),
			{Field: "spec.podCIDRs", Type: field.ErrorTypeInternal, Detail: "failed to check with dual stack"},
		}},
		{"preemption", func(n *corev1.Node) { n.Spec.PodPreemptionPolicy = &corev1.NodePodPreemptionPolicy{} },
			[]fieldtest.Fault{fieldtest.Forbidden("spec.podPreemptionPolicy", "")}},
		{"feature order", features("B", "A"), []fieldtest.Fault{fieldtest.Invalid("status.declaredFeatures[1]", "list must be sorted alphabetically")}},
		{"feature twice", features("A", "A"), []fieldtest.Fault{fieldtest.Duplicate("status.declaredFeatures[1]", "")}},
		{"feature form", features("a"), []fieldtest.Fault{fieldtest.Invalid("status.declaredFeatures[0]", "must start with an UpperCamelCase segment")}},
		{"feature long", features("A" + strings.Repeat("a", 253)),
			[]fieldtest.Fault{fieldtest.Invalid("status.declaredFeatures[0]", "must be no more than 253 characters")}},
		{"annotated taint", annotation(corev1.TaintsAnnotationKey, `[{"key":"a","effect":"Explode"}]`),
			[]fieldtest.Fault{fieldtest.NotSupported("metadata.annotations.scheduler.alpha.kubernetes.io/taints[0].effect", "Explode")}},
		{"annotated junk", annotation(corev1.TaintsAnnotationKey, `{`), []fieldtest.Fault{fieldtest.Invalid("metadata.annotations", "unexpected end of JSON input")}},
		{"avoid", annotation(corev1.PreferAvoidPodsAnnotationKey, `{"preferAvoidPods":[{"podSignature":{"podController":{"controller":true}}}]}`), nil},
		{"avoid nothing", annotation(corev1.PreferAvoidPodsAnnotationKey, `{"preferAvoidPods":[{}]}`),
			[]fieldtest.Fault{fieldtest.Required("metadata.annotations.scheduler.alpha.kubernetes.io/preferAvoidPods[0].PodSignature", "")}},
		{"avoid a non-controller", annotation(corev1.PreferAvoidPodsAnnotationKey, `{"preferAvoidPods":[{"podSignature":{"podController":{}}}]}`),
			[]fieldtest.Fault{fieldtest.Invalid("metadata.annotations.scheduler.alpha.kubernetes.io/preferAvoidPods[0].PodSignature.PodController.Controller", "must point to a controller")}},
		{"avoid junk", annotation(corev1.PreferAvoidPodsAnnotationKey, `[]`),
			[]fieldtest.Fault{fieldtest.Invalid("metadata.annotations.AvoidPods", "cannot unmarshal array")}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			n := valid()
			test.mutate(n)
			fieldtest.Check(t, node.Validate(n), test.want...)
		})
	}
}

func TestValidateUpdate(t *testing.T) {
	t.Parallel()
	config := func(ref *corev1.ConfigMapNodeConfigSource) *corev1.NodeConfigSource {
		return &corev1.NodeConfigSource{ConfigMap: ref}
	}
	for _, test := range []struct {
		name        string
		both        func(*corev1.Node)
		mutate      func(*corev1.Node)
		want        []fieldtest.Fault
		notOfStatus bool
	}{
		{name: "cordon", mutate: func(n *corev1.Node) { n.Spec.Unschedulable, n.Spec.Taints = true, nil }},
		{name: "fill in", both: func(n *corev1.Node) { n.Spec.PodCIDRs, n.Spec.ProviderID = nil, "" },
			mutate: func(n *corev1.Node) { n.Spec.PodCIDRs, n.Spec.ProviderID = []string{"10.9.0.0/24"}, "own://2" }},
		{name: "old loose range stays", both: cidrs("10.0.1.7/24"), mutate: func(*corev1.Node) {}},
		{name: "range", mutate: cidrs("10.0.1.0/24"),
			want: []fieldtest.Fault{fieldtest.Forbidden("spec.podCIDRs", `node updates may not change podCIDR except from "" to valid`)}},
		{name: "malformed range", both: cidrs(), mutate: cidrs("x"), notOfStatus: true,
			want: []fieldtest.Fault{fieldtest.Invalid("spec.podCIDRs[0]", "must be a valid CIDR value")}},
		{name: "provider", mutate: func(n *corev1.Node) { n.Spec.ProviderID = "" },
			want: []fieldtest.Fault{fieldtest.Forbidden("spec.providerID", `node updates may not change providerID except from "" to valid`)}},
		{name: "external", mutate: func(n *corev1.Node) { n.Spec.DoNotUseExternalID = "x" },
			want: []fieldtest.Fault{fieldtest.Forbidden("spec.externalID", "may not be updated")}},
		{name: "taint", mutate: taint("", "", "NoExecute"),
			want: []fieldtest.Fault{fieldtest.Invalid("metadata.taints[0].key", "")}},
		{name: "address twice", mutate: func(n *corev1.Node) { n.Status.Addresses = append(n.Status.Addresses, n.Status.Addresses[0]) },
			want: []fieldtest.Fault{fieldtest.Duplicate("status.addresses[3]", "node-1")}},
		{name: "allocatable", mutate: func(n *corev1.Node) { n.Status.Allocatable["memory"] = resource.MustParse("-1") },
			want: []fieldtest.Fault{fieldtest.Invalid("status.allocatable.memory", "must be greater than or equal to 0")}},
		{name: "creation", mutate: func(n *corev1.Node) { n.CreationTimestamp = metav1.NewTime(now) },
			want: []fieldtest.Fault{fieldtest.Invalid("metadata.creationTimestamp", "field is immutable")}},
		{name: "config", mutate: func(n *corev1.Node) {
			n.Spec.ConfigSource = config(&corev1.ConfigMapNodeConfigSource{Namespace: "kube-system", Name: "c", KubeletConfigKey: "k"})
		}},
		{name: "empty config", mutate: func(n *corev1.Node) { n.Spec.ConfigSource = config(nil) },
			want: []fieldtest.Fault{fieldtest.Invalid("spec.configSource", "exactly one reference subfield must be non-nil")}},
		{name: "config of status in spec", mutate: func(n *corev1.Node) {
			n.Spec.ConfigSource = config(&corev1.ConfigMapNodeConfigSource{Namespace: "A", UID: "u", ResourceVersion: "1", KubeletConfigKey: "a/b"})
		}, want: []fieldtest.Fault{
			fieldtest.Forbidden("spec.configSource.configMap.uid", "uid must not be set in spec"),
			fieldtest.Forbidden("spec.configSource.configMap.resourceVersion", "resourceVersion must not be set in spec"),
			fieldtest.Invalid("spec.configSource.configMap.namespace", "RFC 1123 label"),
			fieldtest.Required("spec.configSource.configMap.name", "name must be set"),
			fieldtest.Invalid("spec.configSource.configMap.kubeletConfigKey", "a valid config key"),
		}},
		{name: "config in status", mutate: func(n *corev1.Node) {
			n.Status.Config = &corev1.NodeConfigStatus{Assigned: config(&corev1.ConfigMapNodeConfigSource{}), Active: config(nil)}
		}, want: []fieldtest.Fault{
			fieldtest.Required("status.config.assigned.configMap.uid", "uid must be set in status"),
			fieldtest.Required("status.config.assigned.configMap.resourceVersion", "resourceVersion must be set in status"),
			fieldtest.Required("status.config.assigned.configMap.namespace", "namespace must be set"),
			fieldtest.Required("status.config.assigned.configMap.name", "name must be set"),
			fieldtest.Required("status.config.assigned.configMap.kubeletConfigKey", "kubeletConfigKey must be set"),
			fieldtest.Invalid("status.config.active", "exactly one reference subfield must be non-nil"),
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			old := valid()
			if test.both != nil {
				test.both(old)
			}
			updated := old.DeepCopy()
			test.mutate(updated)
			fieldtest.Check(t, node.ValidateUpdate(updated, old), test.want...)
			if test.notOfStatus {
				test.want = nil
			}
			fieldtest.Check(t, node.ValidateStatusUpdate(updated, old), test.want...)
		})
	}
}

// TestValidateHugeNode bounds the cost of valid lists that are very long. With quadratic cost the test would run for
// minutes.
func TestValidateHugeNode(t *testing.T) {
	t.Parallel()
	n := valid()
	for i := range 50_000 {
		n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: fmt.Sprint("t", i), Effect: corev1.TaintEffectNoExecute})
		n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: fmt.Sprint(i)})
	}
	fieldtest.Check(t, node.ValidateUpdate(n, n))
}

func FuzzFeatureName(f *testing.F) {
	for _, seed := range []string{"", "A", "Ab/c9", "A/", "/A", "A//b", "A/9", "é", "A\n"} {
		f.Add(seed)
	}
	form := regexp.MustCompile(`\A[A-Z][a-zA-Z0-9]*(/[a-zA-Z][a-zA-Z0-9]*)*\z`)
	f.Fuzz(func(t *testing.T, name string) {
		n := valid()
		features(name)(n)
		if got, want := len(node.Validate(n)) == 0, len(name) <= 253 && form.MatchString(name); got != want {
			t.Errorf("feature %q accepted = %t, want %t", name, got, want)
		}
	})
}

// FuzzAnnotations checks that validation of any annotation ends without a panic.
func FuzzAnnotations(f *testing.F) {
	for _, seed := range []string{"", "null", "[null]", `[{"key":"a"}]`, `{"preferAvoidPods":[null,{"podSignature":{"podController":{"controller":null}}}]}`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, key := range []string{corev1.TaintsAnnotationKey, corev1.PreferAvoidPodsAnnotationKey} {
			n := valid()
			annotation(key, text)(n)
			for _, err := range node.Validate(n) {
				if !strings.HasPrefix(err.Field, "metadata.annotations") {
					t.Errorf("%s=%q: fault elsewhere: %v", key, text, err)
				}
			}
		}
	})
}
