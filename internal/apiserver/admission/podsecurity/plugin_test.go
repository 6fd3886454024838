package podsecurity_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/warning"
	"k8s.io/utils/ptr"

	"lanyard.dev/internal/apiserver/admission/podsecurity"
)

const prefix = "pod-security.kubernetes.io/"

func namespace(name string, labels ...string) *corev1.Namespace {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{}}}
	for i := 0; i < len(labels); i += 2 {
		ns.Labels[prefix+labels[i]] = labels[i+1]
	}
	return ns
}

// plain returns a pod that meets the baseline standard and not the restricted one.
func plain() *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
}

func privileged() *corev1.Pod {
	pod := plain()
	pod.Name = "root"
	pod.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{Privileged: ptr.To(true)}
	return pod
}

func restricted() *corev1.Pod {
	pod := plain()
	pod.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{
		RunAsNonRoot: ptr.To(true), AllowPrivilegeEscalation: ptr.To(false),
		Capabilities:   &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
	return pod
}

func relabelled(pod *corev1.Pod) *corev1.Pod {
	pod.Labels = map[string]string{"x": "y"}
	return pod
}

func reimaged(pod *corev1.Pod) *corev1.Pod {
	pod.Spec.Containers[0].Image = "other"
	return pod
}

// plugin returns a plugin with a few namespaces, each with a privileged pod.
func plugin(t *testing.T, text string) *podsecurity.Plugin {
	t.Helper()
	file := ""
	if text != "" {
		file = write(t, t.TempDir(), "admission.yaml", text)
	}
	defaults, err := podsecurity.ReadConfiguration(file)
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]*corev1.Namespace{
		"loose": namespace("loose"), "unlabelled": namespace("unlabelled"), "free": namespace("free", "enforce", "privileged"),
		"baseline": namespace("baseline", "enforce", "baseline", "warn", "restricted", "audit", "restricted"),
		"strict":   namespace("strict", "enforce", "restricted"), "muddled": namespace("muddled", "enforce", "strict"),
	}
	p, err := podsecurity.New(podsecurity.Config{
		Namespace: func(_ context.Context, name string) (*corev1.Namespace, error) {
			if found := known[name]; found != nil {
				return found, nil
			}
			return nil, errors.New("storage is away")
		},
		Pods: func(context.Context, string) ([]*corev1.Pod, error) {
			return []*corev1.Pod{plain(), privileged()}, nil
		},
		Defaults: defaults,
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// warningRecorder records warnings.
type warningRecorder struct{ text []string }

func (t *warningRecorder) AddWarning(_, text string) { t.text = append(t.text, text) }

type request struct {
	op        admission.Operation
	resource  string
	sub       string
	namespace string
	obj, old  runtime.Object
	who       user.Info
}

// send returns the result of a request.
func send(t *testing.T, p *podsecurity.Plugin, r request) (warnings string, annotations map[string]string, err error) {
	t.Helper()
	if r.op == "" {
		r.op = admission.Create
	}
	kind := schema.GroupVersionKind{Version: "v1", Kind: map[string]string{"pods": "Pod", "namespaces": "Namespace"}[r.resource]}
	name := ""
	if object, ok := r.obj.(metav1.Object); ok {
		name = object.GetName()
	}
	warned := &warningRecorder{}
	ctx := audit.WithAuditContext(warning.WithWarningRecorder(t.Context(), warned))
	noted := notes{}
	attributes := admission.NewAttributesRecord(r.obj, r.old, kind, r.namespace, name, corev1.SchemeGroupVersion.WithResource(r.resource), r.sub, r.op, nil, false, r.who)
	err = p.Validate(ctx, recording{attributes, noted}, nil)
	return strings.Join(warned.text, "\n"), noted, err
}

// recording records the audit annotations of a request.
type recording struct {
	admission.Attributes
	noted notes
}

type notes map[string]string

func (r recording) AddAnnotation(key, value string) error {
	r.noted[key] = value
	return r.Attributes.AddAnnotation(key, value)
}

// TestPods validates pods by the standards of their namespaces.
func TestPods(t *testing.T) {
	t.Parallel()
	p := plugin(t, "")
	for name, test := range map[string]struct {
		request
		refused, warned, audited string
	}{
		"no standard":            {request: request{namespace: "loose", obj: privileged()}},
		"privileged at baseline": {request: request{namespace: "baseline", obj: privileged()}, refused: `pods "root" is forbidden: violates PodSecurity "baseline:latest": privileged (container "c" must not set securityContext.privileged=true)`},
		"plain at baseline": {request: request{namespace: "baseline", obj: plain()}, warned: `would violate PodSecurity "restricted:latest": allowPrivilegeEscalation != false`,
			audited: `would violate PodSecurity "restricted:latest"`},
		"restricted at baseline":          {request: request{namespace: "baseline", obj: restricted()}},
		"plain at restricted":             {request: request{namespace: "strict", obj: plain()}, refused: `runAsNonRoot != true`},
		"restricted at restricted":        {request: request{namespace: "strict", obj: restricted()}},
		"an empty label is the strictest": {request: request{namespace: "muddled", obj: plain()}, refused: `violates PodSecurity "restricted:latest"`},
		"storage away":                    {request: request{namespace: "elsewhere", obj: restricted()}, refused: `failed to lookup namespace "elsewhere"`},
		"not a pod":                       {request: request{namespace: "strict", obj: &corev1.Secret{}}, refused: "failed to decode pod"},
		"no object":                       {request: request{namespace: "strict"}, refused: "failed to decode pod"},
		"new image":                       {request: request{op: admission.Update, namespace: "strict", obj: reimaged(plain()), old: plain()}, refused: `violates PodSecurity "restricted:latest"`},
		"new label":                       {request: request{op: admission.Update, namespace: "strict", obj: relabelled(plain()), old: plain()}},
		"status":                          {request: request{op: admission.Update, sub: "status", namespace: "strict", obj: plain(), old: plain()}},
		"eviction":                        {request: request{sub: "eviction", namespace: "strict", obj: &policyv1.Eviction{}}},
		"an unknown subresource":          {request: request{op: admission.Update, sub: "novelty", namespace: "strict", obj: reimaged(plain()), old: plain()}, refused: `violates PodSecurity "restricted:latest"`},
	} {
		test.resource = "pods"
		warned, noted, err := send(t, p, test.request)
		if test.refused == "" && err != nil || test.refused != "" && (err == nil || !strings.Contains(err.Error(), test.refused)) {
			t.Errorf("%s: %v, want %q", name, err, test.refused)
		}
		if (warned == "") != (test.warned == "") || !strings.Contains(warned, test.warned) {
			t.Errorf("%s: warned %q, want %q", name, warned, test.warned)
		}
		if said := noted[prefix+"audit-violations"]; test.audited != "" && !strings.Contains(said, test.audited) {
			t.Errorf("%s: annotated with %q, want %q", name, noted, test.audited)
		}
	}
	if _, noted, _ := send(t, p, request{resource: "pods", namespace: "strict", obj: restricted()}); noted[prefix+"enforce-policy"] != "restricted:latest" {
		t.Errorf("the audit event has the annotations %v", noted)
	}
}

// TestNamespaces checks that invalid labels are refused, and that a warning lists the pods that do not meet a new standard.
func TestNamespaces(t *testing.T) {
	t.Parallel()
	p := plugin(t, "")
	for name, test := range map[string]struct {
		obj, old        *corev1.Namespace
		refused, warned string
	}{
		"created with a standard":     {obj: namespace("n", "enforce", "baseline", "enforce-version", "v1.30")},
		"created with an invalid one": {obj: namespace("n", "enforce", "strict"), refused: `metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: "strict": must be one of privileged, baseline, restricted`},
		"bad version":                 {obj: namespace("n", "warn-version", "30"), refused: `metadata.labels[pod-security.kubernetes.io/warn-version]: Invalid value: "30"`},
		"labelled with a new standard": {obj: namespace("n", "enforce", "baseline"), old: namespace("n"),
			warned: "existing pods in namespace \"n\" violate the new PodSecurity enforce level \"baseline:latest\"\nroot: privileged"},
		"changed to an invalid one":    {obj: namespace("n", "enforce", "strict"), old: namespace("n"), refused: "must be one of"},
		"an invalid one that was kept": {obj: namespace("n", "enforce", "strict", "x", "y"), old: namespace("n", "enforce", "strict")},
		"let go":                       {obj: namespace("n"), old: namespace("n", "enforce", "restricted")},
	} {
		r := request{resource: "namespaces", namespace: "n", obj: test.obj}
		if test.old != nil {
			r.op, r.old = admission.Update, test.old
		}
		warned, _, err := send(t, p, r)
		if test.refused == "" && err != nil || test.refused != "" && (err == nil || !strings.Contains(err.Error(), test.refused)) {
			t.Errorf("%s: %v, want %q", name, err, test.refused)
		}
		if test.refused != "" && !apierrors.IsInvalid(err) {
			t.Errorf("%s: %v is no Invalid", name, err)
		}
		if (warned == "") != (test.warned == "") || !strings.Contains(warned, test.warned) {
			t.Errorf("%s: warned %q, want %q", name, warned, test.warned)
		}
	}
}

// TestOthers checks that other resources are ignored.
func TestOthers(t *testing.T) {
	t.Parallel()
	if _, _, err := send(t, plugin(t, ""), request{resource: "secrets", namespace: "elsewhere", obj: &corev1.Secret{}}); err != nil {
		t.Error(err)
	}
}
