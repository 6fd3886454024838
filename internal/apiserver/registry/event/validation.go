package event

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Limits of an event that has an eventTime, in bytes.
const (
	maxWord = 128
	maxNote = 1024
)

// Validate returns the faults of an event that a client wrote through core/v1. It requires little, because of old
// reporters: only an event with an eventTime must have a reporter, an action and a reason.
func Validate(e *corev1.Event) field.ErrorList {
	var errs field.ErrorList
	if !namespaceMatches(e) {
		path := field.NewPath("involvedObject", "namespace")
		errs = append(errs, field.Invalid(path, e.InvolvedObject.Namespace, "does not match event.namespace"))
	}
	if !e.EventTime.IsZero() {
		errs = append(errs, validateReport(e)...)
	}
	return append(errs, invalid(field.NewPath("namespace"), e.Namespace, utilvalidation.IsDNS1123Subdomain(e.Namespace))...)
}

// ValidateUpdate returns the faults of an event that a client updated through core/v1, where every field may change.
func ValidateUpdate(updated, _ *corev1.Event) field.ErrorList { return Validate(updated) }

// ValidateStrict returns the faults of an event that a client wrote through events.k8s.io/v1.
func ValidateStrict(e *corev1.Event) field.ErrorList {
	errs := Validate(e)
	errs = append(errs, validation.ValidateObjectMeta(&e.ObjectMeta, true, validation.NameIsDNSSubdomain, field.NewPath("metadata"))...)
	errs = append(errs, validateSeries(e.Series)...)
	if e.EventTime.IsZero() {
		errs = append(errs, field.Required(field.NewPath("eventTime"), ""))
	}
	if e.Type != corev1.EventTypeNormal && e.Type != corev1.EventTypeWarning {
		errs = append(errs, field.Invalid(field.NewPath("type"), "", fmt.Sprintf("has invalid value: %v", e.Type)))
	}
	return append(errs, validateNoLegacy(e)...)
}

// ValidateUpdateStrict returns the faults of an event that a client updated through events.k8s.io/v1, where only the series
// and the metadata may change.
func ValidateUpdateStrict(updated, old *corev1.Event) field.ErrorList {
	errs := Validate(updated)
	errs = append(errs, validation.ValidateObjectMetaUpdate(&updated.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))...)
	if !equality.Semantic.DeepEqual(updated.Series, old.Series) {
		errs = append(errs, validateSeries(updated.Series)...)
	}
	for _, f := range fixedFields(updated, old) {
		errs = append(errs, validation.ValidateImmutableField(f.updated, f.old, field.NewPath(f.name))...)
	}
	return errs
}

type fixedField struct {
	name         string
	updated, old any
}

func fixedFields(updated, old *corev1.Event) []fixedField {
	return []fixedField{
		{"involvedObject", updated.InvolvedObject, old.InvolvedObject},
		{"reason", updated.Reason, old.Reason},
		{"message", updated.Message, old.Message},
		{"source", updated.Source, old.Source},
		{"firstTimestamp", updated.FirstTimestamp, old.FirstTimestamp},
		{"lastTimestamp", updated.LastTimestamp, old.LastTimestamp},
		{"count", updated.Count, old.Count},
		{"type", updated.Type, old.Type},
		{"eventTime", updated.EventTime, old.EventTime},
		{"action", updated.Action, old.Action},
		{"related", updated.Related, old.Related},
		{"reportingController", updated.ReportingController, old.ReportingController},
		{"reportingInstance", updated.ReportingInstance, old.ReportingInstance},
	}
}

// namespaceMatches reports whether e is in the namespace of its object. Events about objects without a namespace are in
// "default"; those with an eventTime may also be in "kube-system". An event with an eventTime may be about an object in
// another namespace.
func namespaceMatches(e *corev1.Event) bool {
	about := e.InvolvedObject.Namespace
	switch {
	case about != "" && e.EventTime.IsZero():
		return e.Namespace == about
	case about != "":
		return true
	case e.EventTime.IsZero():
		return e.Namespace == metav1.NamespaceNone || e.Namespace == metav1.NamespaceDefault
	default:
		return e.Namespace == metav1.NamespaceDefault || e.Namespace == metav1.NamespaceSystem
	}
}

func validateReport(e *corev1.Event) field.ErrorList {
	controller := field.NewPath("reportingController")
	var errs field.ErrorList
	if e.ReportingController == "" {
		errs = append(errs, field.Required(controller, ""))
	}
	errs = append(errs, invalid(controller, e.ReportingController, utilvalidation.IsQualifiedName(e.ReportingController))...)
	errs = append(errs, validateWord("reportingInstance", e.ReportingInstance)...)
	errs = append(errs, validateWord("action", e.Action)...)
	errs = append(errs, validateWord("reason", e.Reason)...)
	return append(errs, validateLength("message", e.Message, maxNote)...)
}

func validateWord(name, value string) field.ErrorList {
	if value == "" {
		return field.ErrorList{field.Required(field.NewPath(name), "")}
	}
	return validateLength(name, value, maxWord)
}

// validateLength limits the length of a value. The fault does not contain the value.
func validateLength(name, value string, limit int) field.ErrorList {
	if len(value) <= limit {
		return nil
	}
	return field.ErrorList{field.Invalid(field.NewPath(name), "", fmt.Sprintf("can have at most %v characters", limit))}
}

func validateSeries(series *corev1.EventSeries) field.ErrorList {
	if series == nil {
		return nil
	}
	var errs field.ErrorList
	if series.Count < 2 {
		errs = append(errs, field.Invalid(field.NewPath("series", "count"), "", "should be at least 2"))
	}
	if series.LastObservedTime.IsZero() {
		errs = append(errs, field.Required(field.NewPath("series", "lastObservedTime"), ""))
	}
	return errs
}

// validateNoLegacy refuses the fields that were replaced by series and eventTime.
func validateNoLegacy(e *corev1.Event) field.ErrorList {
	var errs field.ErrorList
	unset := func(name string, ok bool) {
		if !ok {
			errs = append(errs, field.Invalid(field.NewPath(name), "", "needs to be unset"))
		}
	}
	unset("firstTimestamp", e.FirstTimestamp.IsZero())
	unset("lastTimestamp", e.LastTimestamp.IsZero())
	unset("count", e.Count == 0)
	unset("source", e.Source == corev1.EventSource{})
	return errs
}

func invalid(path *field.Path, value string, messages []string) field.ErrorList {
	var errs field.ErrorList
	for _, msg := range messages {
		errs = append(errs, field.Invalid(path, value, msg))
	}
	return errs
}
