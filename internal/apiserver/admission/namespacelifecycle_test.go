package admission

import (
	"context"
	"errors"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authentication/user"
)

var errAway = errors.New("etcd is away")

func findNamespace(_ context.Context, name string) (*corev1.Namespace, error) {
	phase := corev1.NamespaceActive
	switch name {
	case "missing":
		return nil, apierrors.NewNotFound(corev1.Resource("namespaces"), name)
	case "unlucky":
		return nil, errAway
	case "ending":
		phase = corev1.NamespaceTerminating
	}
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: corev1.NamespaceStatus{Phase: phase}}, nil
}

func namespaceAttributes(gvk schema.GroupVersionKind, resource, namespace, name string, op admission.Operation) admission.Attributes {
	return admission.NewAttributesRecord(nil, nil, gvk, namespace, name, gvk.GroupVersion().WithResource(resource), "", op, nil, false, &user.DefaultInfo{})
}

func TestNamespaceLifecycle(t *testing.T) {
	t.Parallel()
	config := corev1.SchemeGroupVersion.WithKind("ConfigMap")
	review := schema.GroupVersionKind{Group: "authorization.k8s.io", Version: "v1", Kind: "LocalSubjectAccessReview"}
	ns := corev1.SchemeGroupVersion.WithKind("Namespace")
	node := corev1.SchemeGroupVersion.WithKind("Node")
	in := func(namespace string, op admission.Operation) admission.Attributes {
		return namespaceAttributes(config, "configmaps", namespace, "c", op)
	}
	on := func(namespace string, op admission.Operation) admission.Attributes {
		return namespaceAttributes(ns, "namespaces", namespace, namespace, op)
	}
	immortal := func(name string) string {
		return `namespaces "` + name + `" is forbidden: this namespace may not be deleted`
	}
	for _, test := range []struct {
		name string
		ask  admission.Attributes
		want string
	}{
		{"create", in("shop", admission.Create), ""},
		{"update", in("shop", admission.Update), ""},
		{"create in a missing namespace", in("missing", admission.Create), `namespaces "missing" not found`},
		{"update in a missing namespace", in("missing", admission.Update), `namespaces "missing" not found`},
		{"delete in a missing namespace", in("missing", admission.Delete), ""},
		{"lookup failed", in("unlucky", admission.Create), "etcd is away"},
		{"create in an ending namespace", in("ending", admission.Create),
			`configmaps "c" is forbidden: unable to create new content in namespace ending because it is being terminated`},
		{"update in an ending namespace", in("ending", admission.Update), ""},
		{"delete in an ending namespace", in("ending", admission.Delete), ""},
		{"review in a missing namespace", namespaceAttributes(review, "localsubjectaccessreviews", "missing", "", admission.Create), ""},
		{"something in no namespace", namespaceAttributes(node, "nodes", "", "n", admission.Create), ""},
		{"a new namespace", on("missing", admission.Create), ""},
		{"update of an ending namespace", on("ending", admission.Update), ""},
		{"delete of a namespace", on("shop", admission.Delete), ""},
		{"delete of default", on("default", admission.Delete), immortal("default")},
		{"delete of kube-system", on("kube-system", admission.Delete), immortal("kube-system")},
		{"delete of kube-public", on("kube-public", admission.Delete), immortal("kube-public")},
		{"delete of kube-node-lease", on("kube-node-lease", admission.Delete), ""},
		{"delete of a config map named default", namespaceAttributes(config, "configmaps", "shop", "default", admission.Delete), ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			plugin := newNamespaceLifecycle(findNamespace)
			if !plugin.Handles(test.ask.GetOperation()) {
				t.Fatal("the plugin does not handle the operation")
			}
			got := ""
			if err := plugin.Admit(t.Context(), test.ask, nil); err != nil {
				got = err.Error()
			}
			if got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestTerminatingNamespaceIsTheCause(t *testing.T) {
	t.Parallel()
	ask := namespaceAttributes(corev1.SchemeGroupVersion.WithKind("ConfigMap"), "configmaps", "ending", "c", admission.Create)
	err := newNamespaceLifecycle(findNamespace).Admit(t.Context(), ask, nil)
	if !apierrors.IsForbidden(err) || !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		t.Errorf("the error lacks the cause: %#v", err)
	}
}
