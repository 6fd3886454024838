package pod

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

func ref(name string) corev1.LocalObjectReference { return corev1.LocalObjectReference{Name: name} }

func secretKey(name, key string, optional *bool) *corev1.EnvVarSource {
	return &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: ref(name), Key: key, Optional: optional}}
}

func configKey(name, key string, optional *bool) *corev1.EnvVarSource {
	return &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: ref(name), Key: key, Optional: optional}}
}

func fieldRef(path string) *corev1.EnvVarSource {
	return &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: path}}
}

func resourceRef(resourceName, divisor string) *corev1.EnvVarSource {
	r := &corev1.ResourceFieldSelector{Resource: resourceName}
	if divisor != "" {
		r.Divisor = resource.MustParse(divisor)
	}
	return &corev1.EnvVarSource{ResourceFieldRef: r}
}

func testEnvironment() *environment {
	pod := aPod(func(p *corev1.Pod) {
		p.Labels, p.Annotations = map[string]string{"app": "web"}, map[string]string{"a/b": "c"}
		p.Spec.ServiceAccountName = "dashboard-sa"
		p.Spec.Containers[0].Resources = corev1.ResourceRequirements{
			Limits:   corev1.ResourceList{"cpu": resource.MustParse("1500m")},
			Requests: corev1.ResourceList{"memory": resource.MustParse("65Mi")},
		}
	})
	objects := &fakeObjects{
		secrets:    map[string]*corev1.Secret{"default/s": {Data: map[string][]byte{"k": []byte("sv"), "with.dots": []byte("d"), "data-1": []byte("h")}}},
		configMaps: map[string]*corev1.ConfigMap{"default/c": {ObjectMeta: metav1.ObjectMeta{Name: "c"}, Data: map[string]string{"k": "cv"}}},
	}
	pod.Status = corev1.PodStatus{
		HostIP: "192.0.2.1", HostIPs: []corev1.HostIP{{IP: "192.0.2.1"}, {IP: "2001:db8::1"}}, PodIP: "10.0.0.2", PodIPs: []corev1.PodIP{{IP: "10.0.0.2"}, {IP: "fd00::2"}},
	}
	return &environment{
		objects: objects, pod: pod, container: &pod.Spec.Containers[0],
		allocatable: corev1.ResourceList{"cpu": resource.MustParse("8"), "memory": resource.MustParse("1Gi")},
		service:     []corev1.EnvVar{{Name: "KUBERNETES_SERVICE_HOST", Value: "10.96.0.1"}, {Name: "KUBERNETES_SERVICE_PORT", Value: "443"}},
	}
}

func TestEnvironment(t *testing.T) {
	t.Parallel()
	always := "KUBERNETES_SERVICE_HOST=10.96.0.1 KUBERNETES_SERVICE_PORT=443"
	fromSecret := corev1.EnvFromSource{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: ref("s")}}
	tests := []struct {
		name string
		from []corev1.EnvFromSource
		env  []corev1.EnvVar
		want string
		err  string
	}{
		{name: "nothing", want: always},
		{name: "values", env: []corev1.EnvVar{{Name: "A", Value: "1"}, {Name: "B", Value: "$(A)$(KUBERNETES_SERVICE_PORT)$(C)"}, {Name: "C"}}, want: always + " A=1 B=1443$(C) C="},
		{name: "the last wins", env: []corev1.EnvVar{{Name: "A", Value: "1"}, {Name: "A", Value: "$(A)2"}}, want: always + " A=12"},
		{name: "pod beats service", env: []corev1.EnvVar{{Name: "KUBERNETES_SERVICE_HOST", Value: "mine"}}, want: "KUBERNETES_SERVICE_PORT=443 KUBERNETES_SERVICE_HOST=mine"},
		{name: "from secret", from: []corev1.EnvFromSource{fromSecret}, env: []corev1.EnvVar{{Name: "B", Value: "$(k)"}}, want: always + " data-1=h k=sv with.dots=d B=sv"},
		{name: "from config map with prefix", from: []corev1.EnvFromSource{{Prefix: "P x:", ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: ref("c")}}}, want: always + " P x:k=cv"},
		{name: "from nothing", from: []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: ref("x")}}}, err: `secret "x" not found`},
		{name: "from nothing, optional", from: []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: ref("x"), Optional: ptr.To(true)}}}, want: always},
		{name: "keys", env: []corev1.EnvVar{{Name: "S", ValueFrom: secretKey("s", "k", nil)}, {Name: "C", ValueFrom: configKey("c", "k", nil)}}, want: always + " S=sv C=cv"},
		{name: "no such key", env: []corev1.EnvVar{{Name: "S", ValueFrom: secretKey("s", "x", nil)}}, err: "couldn't find key x in Secret default/s"},
		{name: "no such key, optional", env: []corev1.EnvVar{{Name: "S", ValueFrom: secretKey("s", "x", ptr.To(true))}}, want: always},
		{name: "no such config map", env: []corev1.EnvVar{{Name: "S", ValueFrom: configKey("x", "k", nil)}}, err: `configmap "x" not found`},
		{name: "no such config map, optional", env: []corev1.EnvVar{{Name: "S", ValueFrom: configKey("x", "k", ptr.To(true))}}, want: always},
		{name: "no such key of a config map", env: []corev1.EnvVar{{Name: "S", ValueFrom: configKey("c", "x", nil)}}, err: "couldn't find key x in ConfigMap default/c"},
		{name: "pod fields", env: []corev1.EnvVar{
			{Name: "A", ValueFrom: fieldRef("metadata.name")}, {Name: "B", ValueFrom: fieldRef("metadata.namespace")}, {Name: "C", ValueFrom: fieldRef("metadata.uid")},
			{Name: "D", ValueFrom: fieldRef("metadata.labels['app']")}, {Name: "E", ValueFrom: fieldRef("metadata.annotations['a/b']")}, {Name: "F", ValueFrom: fieldRef("metadata.labels['none']")},
		}, want: always + " A=web B=default C=uid-1 D=web E=c F="},
		{name: "more fields", env: []corev1.EnvVar{
			{Name: "A", ValueFrom: fieldRef("spec.nodeName")}, {Name: "B", ValueFrom: fieldRef("spec.serviceAccountName")}, {Name: "C", ValueFrom: fieldRef("status.hostIP")},
			{Name: "D", ValueFrom: fieldRef("status.hostIPs")}, {Name: "E", ValueFrom: fieldRef("status.podIP")}, {Name: "F", ValueFrom: fieldRef("status.podIPs")},
		}, want: always + " A=node B=dashboard-sa C=192.0.2.1 D=192.0.2.1,2001:db8::1 E=10.0.0.2 F=10.0.0.2,fd00::2"},
		{name: "no such field", env: []corev1.EnvVar{{Name: "A", ValueFrom: fieldRef("spec.restartPolicy")}}, err: "unsupported fieldPath: spec.restartPolicy"},
		{name: "resources", env: []corev1.EnvVar{
			{Name: "A", ValueFrom: resourceRef("limits.cpu", "")}, {Name: "B", ValueFrom: resourceRef("limits.cpu", "1m")}, {Name: "C", ValueFrom: resourceRef("requests.memory", "10Mi")},
			{Name: "D", ValueFrom: resourceRef("limits.memory", "")}, {Name: "E", ValueFrom: resourceRef("requests.cpu", "")},
		}, want: always + " A=2 B=1500 C=7 D=1073741824 E=0"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			e := testEnvironment()
			e.container.EnvFrom, e.container.Env = test.from, test.env
			all, err := e.resolve(t.Context())
			if test.err != "" {
				if err == nil || err.Error() != test.err {
					t.Errorf("error %v, want %q", err, test.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, v := range all {
				got = append(got, v.Name+"="+v.Value)
			}
			if joined := strings.Join(got, " "); joined != test.want {
				t.Errorf("got  %s\nwant %s", joined, test.want)
			}
		})
	}
}

func TestExpand(t *testing.T) {
	t.Parallel()
	known := func(name string) (string, bool) {
		value, ok := map[string]string{"A": "1", "B": "$(A)", "": "nameless"}[name]
		return value, ok
	}
	tests := map[string]string{
		"":              "",
		"plain":         "plain",
		"$(A)":          "1",
		"x$(A)y$(A)":    "x1y1",
		"$(B)":          "$(A)", // references in a value are not expanded
		"$(NONE)":       "$(NONE)",
		"$$(A)":         "$(A)",
		"$$$(A)":        "$1",
		"$$$$(A)":       "$$(A)",
		"$":             "$",
		"cost: 5$":      "cost: 5$",
		"$A":            "$A",
		"$(A":           "$(A",
		"$(A$(A)":       "$(A$(A)", // names the variable "A$(A"
		"$(":            "$(",
		"$()":           "nameless",
		"$é$(A)":        "$é1",
		"a)$(A)":        "a)1",
		"$(A) $$ $(A)$": "1 $ 1$",
	}
	for in, want := range tests {
		if got := expand(in, known); got != want {
			t.Errorf("expand(%q) = %q, want %q", in, got, want)
		}
	}
	if expandAll(nil, known) != nil {
		t.Error("nothing became something")
	}
}

func FuzzExpand(f *testing.F) {
	for _, in := range []string{"$(A)", "$$(A)", "$($$)", "$(A", "é$(é)"} {
		f.Add(in)
	}
	f.Fuzz(func(t *testing.T, in string) {
		unknown := expand(in, func(string) (string, bool) { return "", false })
		if unknown != strings.ReplaceAll(in, "$$", "$") && !strings.Contains(in, "(") {
			t.Errorf("%q became %q", in, unknown)
		}
		if got := expand(escape(in), func(string) (string, bool) { return "no", true }); got != in {
			t.Errorf("%q escaped became %q", in, got)
		}
	})
}

// escape returns a text that expands to text.
func escape(text string) string { return strings.ReplaceAll(text, "$", "$$") }

// TestEnvironmentIsBounded checks that a pod of a few kilobytes cannot make the agent hold gigabytes: each variable is twice as
// long as the one before, or many variables refer to the same long value.
func TestEnvironmentIsBounded(t *testing.T) {
	t.Parallel()
	doubling := []corev1.EnvVar{{Name: "V0", Value: "0123456789"}}
	for i := 1; i <= 22; i++ {
		doubling = append(doubling, corev1.EnvVar{Name: fmt.Sprintf("V%d", i), Value: fmt.Sprintf("$(V%d)$(V%d)", i-1, i-1)})
	}
	var copies []corev1.EnvVar
	for i := range 100 {
		copies = append(copies, corev1.EnvVar{Name: fmt.Sprintf("V%d", i), ValueFrom: fieldRef("metadata.annotations['long']")})
	}
	for name, env := range map[string][]corev1.EnvVar{"doubling": doubling, "copies": copies} {
		e := testEnvironment()
		e.pod.Annotations["long"] = strings.Repeat("x", 100<<10)
		e.container.Env = env
		all, err := e.resolve(t.Context())
		if err == nil || all != nil {
			size := 0
			for _, v := range all {
				size += len(v.Value)
			}
			t.Errorf("%s: %d bytes, %v", name, size, err)
		}
	}
}

// TestArgumentsAreBounded checks the same for arguments that refer to a variable many times.
func TestArgumentsAreBounded(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.apply(aPod(func(p *corev1.Pod) {
		p.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "LONG", Value: strings.Repeat("x", 100<<10)}}
		p.Spec.Containers[0].Args = []string{strings.Repeat("$(LONG)", 100)}
	}))
	n.awaitPod("container is refused", "web", waitsFor(createContainerConfigError))
}
