package pod

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"lanyard.dev/internal/tokenvolume"
)

// environment computes the environment of one container.
type environment struct {
	objects     Objects
	pod         *corev1.Pod // with the current addresses in its status
	container   *corev1.Container
	allocatable corev1.ResourceList
	service     []corev1.EnvVar

	names  []string // in the order in which they were first set
	values map[string]string
	size   int // of the expanded references so far, in bytes
}

// maxEnvironment is the limit of Linux for a program's variables and arguments together, in bytes. References can expand to
// far more than that, also in a small pod, and the agent must not hold that in memory.
const maxEnvironment = 6 << 20

var errEnvironmentTooLong = fmt.Errorf("environment and arguments are longer than the %d MiB that a program can be started with", maxEnvironment>>20)

// resolve returns the complete environment: the service's variables, then envFrom, then env. A later variable replaces an
// earlier one of the same name. References expand to variables that are set before, and to the service's variables.
func (e *environment) resolve(ctx context.Context) ([]corev1.EnvVar, error) {
	e.values = map[string]string{}
	for _, from := range e.container.EnvFrom {
		if err := e.addAll(ctx, &from); err != nil {
			return nil, err
		}
	}
	for _, v := range e.container.Env {
		if err := e.add(ctx, &v); err != nil {
			return nil, err
		}
	}
	var all []corev1.EnvVar
	for _, v := range e.service {
		if _, ok := e.values[v.Name]; !ok {
			all = append(all, corev1.EnvVar{Name: v.Name, Value: v.Value})
		}
	}
	size := 0
	for _, name := range e.names {
		all = append(all, corev1.EnvVar{Name: name, Value: e.values[name]})
		size += len(name) + len(e.values[name])
	}
	if size > maxEnvironment {
		return nil, errEnvironmentTooLong
	}
	return all, nil
}

// expand expands the references in words. It returns nil for nil. It may be called after resolve, for command and arguments.
func (e *environment) expand(words []string) ([]string, error) {
	all := expandAll(words, e.lookup)
	if e.size > maxEnvironment {
		return nil, errEnvironmentTooLong
	}
	return all, nil
}

// lookup returns the variable of a reference. When references have expanded to more than maxEnvironment, it returns "".
func (e *environment) lookup(name string) (string, bool) {
	value, ok := e.find(name)
	if e.size += len(value); e.size > maxEnvironment {
		value = ""
	}
	return value, ok
}

func (e *environment) find(name string) (string, bool) {
	if value, ok := e.values[name]; ok {
		return value, true
	}
	for _, v := range e.service {
		if v.Name == name {
			return v.Value, true
		}
	}
	return "", false
}

func (e *environment) set(name, value string) {
	if _, ok := e.values[name]; !ok {
		e.names = append(e.names, name)
	}
	e.values[name] = value
}

// addAll adds every key of a Secret or ConfigMap. As in Kubernetes from 1.34 on, every key is a valid name.
func (e *environment) addAll(ctx context.Context, from *corev1.EnvFromSource) error {
	values := map[string]string{}
	var err error
	switch {
	case from.ConfigMapRef != nil:
		_, err = e.configMap(ctx, from.ConfigMapRef.Name, from.ConfigMapRef.Optional, values)
	case from.SecretRef != nil:
		_, err = e.secret(ctx, from.SecretRef.Name, from.SecretRef.Optional, values)
	}
	if err != nil {
		return err
	}
	for _, key := range slices.Sorted(maps.Keys(values)) {
		e.set(from.Prefix+key, values[key])
	}
	return nil
}

// configMap copies the data of a ConfigMap. found is false if it does not exist and is optional.
func (e *environment) configMap(ctx context.Context, name string, optional *bool, into map[string]string) (found bool, err error) {
	obj, err := e.objects.ConfigMap(ctx, e.pod.Namespace, name)
	if err != nil {
		return false, readError("configmap", name, optional, err)
	}
	maps.Copy(into, obj.Data)
	return true, nil
}

// secret copies the data of a Secret. found is false if it does not exist and is optional.
func (e *environment) secret(ctx context.Context, name string, optional *bool, into map[string]string) (found bool, err error) {
	obj, err := e.objects.Secret(ctx, e.pod.Namespace, name)
	if err != nil {
		return false, readError("secret", name, optional, err)
	}
	for key, value := range obj.Data {
		into[key] = string(value)
	}
	return true, nil
}

// readError returns the error for an object that could not be read, or nil if the object does not exist and is optional.
func readError(kind, name string, optional *bool, err error) error {
	switch {
	case !apierrors.IsNotFound(err):
		return fmt.Errorf("read %s %q: %w", kind, name, err)
	case isTrue(optional):
		return nil
	}
	return fmt.Errorf("%s %q not found", kind, name)
}

func isTrue(b *bool) bool { return b != nil && *b }

func (e *environment) add(ctx context.Context, v *corev1.EnvVar) error {
	if v.Value != "" || v.ValueFrom == nil {
		words, err := e.expand([]string{v.Value})
		if err == nil {
			e.set(v.Name, words[0])
		}
		return err
	}
	value, found, err := e.valueFrom(ctx, v.ValueFrom)
	if err == nil && found {
		e.set(v.Name, value)
	}
	return err
}

// valueFrom returns the value of a variable's source. found is false if the source does not exist and is optional.
func (e *environment) valueFrom(ctx context.Context, from *corev1.EnvVarSource) (value string, found bool, err error) {
	switch {
	case from.FieldRef != nil:
		value, err = tokenvolume.PodField(e.pod, from.FieldRef.FieldPath)
		return value, err == nil, err
	case from.ResourceFieldRef != nil:
		value, err = tokenvolume.ContainerResource(e.pod, e.container.Name, from.ResourceFieldRef, e.allocatable)
		return value, err == nil, err
	case from.ConfigMapKeyRef != nil:
		ref, values := from.ConfigMapKeyRef, map[string]string{}
		found, err = e.configMap(ctx, ref.Name, ref.Optional, values)
		return e.valueOfKey("ConfigMap", ref.Name, ref.Key, ref.Optional, values, found, err)
	case from.SecretKeyRef != nil:
		ref, values := from.SecretKeyRef, map[string]string{}
		found, err = e.secret(ctx, ref.Name, ref.Optional, values)
		return e.valueOfKey("Secret", ref.Name, ref.Key, ref.Optional, values, found, err)
	}
	return "", false, fmt.Errorf("env source is not supported")
}

func (e *environment) valueOfKey(kind, name, key string, optional *bool, values map[string]string, found bool, err error) (string, bool, error) {
	if err != nil || !found {
		return "", false, err
	}
	value, ok := values[key]
	if !ok && !isTrue(optional) {
		return "", false, fmt.Errorf("couldn't find key %v in %s %v/%v", key, kind, e.pod.Namespace, name)
	}
	return value, ok, nil
}

// expand replaces each $(NAME) by the value that lookup returns, and $$ by $. A reference that lookup does not know stays
// unchanged. Kubernetes defines this for env, command and args.
func expand(in string, lookup func(name string) (string, bool)) string {
	var out strings.Builder
	for {
		at := strings.IndexByte(in, '$')
		if at < 0 || at+1 == len(in) {
			out.WriteString(in)
			return out.String()
		}
		out.WriteString(in[:at])
		text, length := replacement(in[at:], lookup)
		out.WriteString(text)
		in = in[at+length:]
	}
}

// replacement returns the replacement of the reference at the start of in, which begins with $, and the reference's length.
func replacement(in string, lookup func(string) (string, bool)) (text string, length int) {
	if in[1] == '$' {
		return "$", 2
	}
	end := strings.IndexByte(in, ')')
	if in[1] != '(' || end < 0 {
		return in[:2], 2
	}
	if value, ok := lookup(in[2:end]); ok {
		return value, end + 1
	}
	return in[:end+1], end + 1
}

// expandAll expands each of the words. It returns nil for nil.
func expandAll(words []string, lookup func(string) (string, bool)) []string {
	if words == nil {
		return nil
	}
	out := make([]string, len(words))
	for i, word := range words {
		out[i] = expand(word, lookup)
	}
	return out
}
