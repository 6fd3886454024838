package scheme

import (
	"fmt"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// fieldLabels are the fields that a field selector may name besides metadata.name and metadata.namespace.
var fieldLabels = map[schema.GroupVersionKind][]string{
	corev1.SchemeGroupVersion.WithKind("Pod"): {
		"spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName", "spec.hostNetwork",
		"status.phase", "status.podIP", "status.podIPs", "status.nominatedNodeName",
	},
	corev1.SchemeGroupVersion.WithKind("Node"):                              {"spec.unschedulable"},
	corev1.SchemeGroupVersion.WithKind("Namespace"):                         {"status.phase", "name"},
	corev1.SchemeGroupVersion.WithKind("Secret"):                            {"type"},
	certificatesv1.SchemeGroupVersion.WithKind("CertificateSigningRequest"): {"spec.signerName"},
	corev1.SchemeGroupVersion.WithKind("Event"): {
		"involvedObject.kind", "involvedObject.namespace", "involvedObject.name", "involvedObject.uid",
		"involvedObject.apiVersion", "involvedObject.resourceVersion", "involvedObject.fieldPath",
		"reason", "reportingComponent", "source", "type",
	},
}

// eventsV1Labels gives the stored name of the fields that events.k8s.io names otherwise.
var eventsV1Labels = map[string]string{
	"regarding.kind": "involvedObject.kind", "regarding.namespace": "involvedObject.namespace",
	"regarding.name": "involvedObject.name", "regarding.uid": "involvedObject.uid",
	"regarding.apiVersion": "involvedObject.apiVersion", "regarding.resourceVersion": "involvedObject.resourceVersion",
	"regarding.fieldPath": "involvedObject.fieldPath",
	"reason":              "reason", "reportingController": "reportingComponent", "type": "type",
	"metadata.name": "metadata.name", "metadata.namespace": "metadata.namespace",
}

func addFieldLabels(s *runtime.Scheme) error {
	for gvk, labels := range fieldLabels {
		known := map[string]string{"metadata.name": "metadata.name", "metadata.namespace": "metadata.namespace"}
		for _, label := range labels {
			known[label] = label
		}
		if err := s.AddFieldLabelConversionFunc(gvk, converter(known)); err != nil {
			return err
		}
	}
	return s.AddFieldLabelConversionFunc(eventsv1.SchemeGroupVersion.WithKind("Event"), converter(eventsV1Labels))
}

func converter(known map[string]string) runtime.FieldLabelConversionFunc {
	return func(label, value string) (string, string, error) {
		stored, ok := known[label]
		if !ok {
			return "", "", fmt.Errorf("field label not supported: %s", label)
		}
		return stored, value, nil
	}
}
