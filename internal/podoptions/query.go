package podoptions

import (
	"net/url"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/conversion"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// reader converts parameters of a query by the rules of apimachinery, and keeps the first error. A parameter that is not in
// the query leaves its field unchanged.
type reader struct {
	query url.Values
	err   error
}

func read[T any](r *reader, name string, into *T, convert func(*[]string, *T, conversion.Scope) error) {
	if values, ok := r.query[name]; ok && len(values) > 0 && r.err == nil {
		r.err = convert(&values, into, nil)
	}
}

func (r *reader) text(name string, into *string) {
	read(r, name, into, runtime.Convert_Slice_string_To_string)
}

func (r *reader) flag(name string, into *bool) {
	read(r, name, into, runtime.Convert_Slice_string_To_bool)
}

func (r *reader) number(name string, into **int64) {
	read(r, name, into, runtime.Convert_Slice_string_To_Pointer_int64)
}

func (r *reader) streams(stdin, stdout, stderr, tty *bool) {
	r.flag("stdin", stdin)
	r.flag("stdout", stdout)
	r.flag("stderr", stderr)
	r.flag("tty", tty)
}

// Log reads Kubernetes' parameters of pods/log. The kubelet's have the same form.
func Log(query *url.Values, into *corev1.PodLogOptions) error {
	r := &reader{query: *query}
	r.text("container", &into.Container)
	r.flag("follow", &into.Follow)
	r.flag("previous", &into.Previous)
	r.flag("timestamps", &into.Timestamps)
	r.flag("insecureSkipTLSVerifyBackend", &into.InsecureSkipTLSVerifyBackend)
	r.number("sinceSeconds", &into.SinceSeconds)
	r.number("tailLines", &into.TailLines)
	r.number("limitBytes", &into.LimitBytes)
	read(r, "sinceTime", &into.SinceTime, metav1.Convert_Slice_string_To_Pointer_v1_Time)
	if values := r.query["stream"]; len(values) > 0 {
		into.Stream = &values[0]
	}
	return r.err
}

// Exec reads Kubernetes' parameters of pods/exec.
func Exec(query *url.Values, into *corev1.PodExecOptions) error {
	r := &reader{query: *query}
	r.streams(&into.Stdin, &into.Stdout, &into.Stderr, &into.TTY)
	r.text("container", &into.Container)
	into.Command = r.query["command"]
	return r.err
}

// Attach reads Kubernetes' parameters of pods/attach.
func Attach(query *url.Values, into *corev1.PodAttachOptions) error {
	r := &reader{query: *query}
	r.streams(&into.Stdin, &into.Stdout, &into.Stderr, &into.TTY)
	r.text("container", &into.Container)
	return r.err
}

// PortForward reads Kubernetes' parameters of pods/portforward.
func PortForward(query *url.Values, into *corev1.PodPortForwardOptions) error {
	r := &reader{query: *query}
	read(r, "ports", &into.Ports, metav1.Convert_Slice_string_To_Slice_int32)
	return r.err
}

// ValidateLog returns the faults of log options. The rules are Kubernetes'.
func ValidateLog(o *corev1.PodLogOptions) field.ErrorList {
	var errs field.ErrorList
	if o.TailLines != nil && *o.TailLines < 0 {
		errs = append(errs, field.Invalid(field.NewPath("tailLines"), *o.TailLines, "must be greater than or equal to 0"))
	}
	if o.LimitBytes != nil && *o.LimitBytes < 1 {
		errs = append(errs, field.Invalid(field.NewPath("limitBytes"), *o.LimitBytes, "must be greater than 0"))
	}
	switch {
	case o.SinceSeconds != nil && o.SinceTime != nil:
		errs = append(errs, field.Forbidden(field.NewPath(""), "at most one of `sinceTime` or `sinceSeconds` may be specified"))
	case o.SinceSeconds != nil && *o.SinceSeconds < 1:
		errs = append(errs, field.Invalid(field.NewPath("sinceSeconds"), *o.SinceSeconds, "must be greater than 0"))
	}
	return append(errs, validateStream(o)...)
}

func validateStream(o *corev1.PodLogOptions) field.ErrorList {
	if o.Stream == nil {
		return nil
	}
	switch *o.Stream {
	case corev1.LogStreamAll:
	case corev1.LogStreamStdout, corev1.LogStreamStderr:
		if o.TailLines != nil {
			return field.ErrorList{field.Forbidden(field.NewPath(""), "`tailLines` and specific `stream` are mutually exclusive for now")}
		}
	default:
		all := []string{corev1.LogStreamAll, corev1.LogStreamStderr, corev1.LogStreamStdout}
		return field.ErrorList{field.NotSupported(field.NewPath("stream"), *o.Stream, all)}
	}
	return nil
}
