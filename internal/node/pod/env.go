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

// environment makes the environment of one container.
type environment struct {
	objects     Objects
	pod         *corev1.Pod // with the addresses that its status is to have
	container   *corev1.Container
	allocatable corev1.ResourceList
	service     []corev1.EnvVar

	names  []string // in the order they were first set
	values map[string]string
	size   int // of what references stood for so far, in bytes
}

// longestEnvironment is what Linux hands a program at the most, variables and arguments together, in bytes. References can
// make far more than that of a small pod, which the agent must not hold.
const longestEnvironment = 6 << 20

var errLongEnvironment = fmt.Errorf("environment and arguments are longer than the %d MiB that a program can be started with", longestEnvironment>>20)

// resolve returns the complete environment: the service's variables, then envFrom, then env, where what comes later wins.
// References see what is set so far and the service's variables.
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
	if size > longestEnvironment {
		return nil, errLongEnvironment
	}
	return all, nil
}

// expand replaces the references in words; nil stays nil. It may be called after resolve, for command and arguments.
func (e *environment) expand(words []string) ([]string, error) {
	all := expandAll(words, e.lookup)
	if e.size > longestEnvironment {
		return nil, errLongEnvironment
	}
	return all, nil
}

// lookup finds a variable for a reference to it. Once references stood for too much they stand for nothing.
func (e *environment) lookup(name string) (string, bool) {
	value, ok := e.find(name)
	if e.size += len(value); e.size > longestEnvironment {
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

// addAll adds every key of a Secret or ConfigMap. Any key is taken, as since Kubernetes 1.34.
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

// configMap copies the data of a ConfigMap; found is false for an optional one that does not exist.
func (e *environment) configMap(ctx context.Context, name string, optional *bool, into map[string]string) (found bool, err error) {
	obj, err := e.objects.ConfigMap(ctx, e.pod.Namespace, name)
	if err != nil {
		return false, missing("configmap", name, optional, err)
	}
	maps.Copy(into, obj.Data)
	return true, nil
}

// secret copies the data of a Secret; found is false for an optional one that does not exist.
func (e *environment) secret(ctx context.Context, name string, optional *bool, into map[string]string) (found bool, err error) {
	obj, err := e.objects.Secret(ctx, e.pod.Namespace, name)
	if err != nil {
		return false, missing("secret", name, optional, err)
	}
	for key, value := range obj.Data {
		into[key] = string(value)
	}
	return true, nil
}

// missing returns the error of an object that could not be read, nil for an optional one that does not exist.
func missing(kind, name string, optional *bool, err error) error {
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

// valueFrom reads a variable's source; found is false where an optional source is not there.
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
		return e.key("ConfigMap", ref.Name, ref.Key, ref.Optional, values, found, err)
	case from.SecretKeyRef != nil:
		ref, values := from.SecretKeyRef, map[string]string{}
		found, err = e.secret(ctx, ref.Name, ref.Optional, values)
		return e.key("Secret", ref.Name, ref.Key, ref.Optional, values, found, err)
	}
	return "", false, fmt.Errorf("env source is not supported")
}

func (e *environment) key(kind, name, key string, optional *bool, values map[string]string, found bool, err error) (string, bool, error) {
	if err != nil || !found {
		return "", false, err
	}
	value, ok := values[key]
	if !ok && !isTrue(optional) {
		return "", false, fmt.Errorf("couldn't find key %v in %s %v/%v", key, kind, e.pod.Namespace, name)
	}
	return value, ok, nil
}

// expand replaces each $(NAME) that lookup knows. $$ stands for $, and what names nothing known stays as it is, as
// Kubernetes defines for env, command and args.
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

// replacement returns what the start of in, a $ and more, becomes, and how many bytes of in that takes.
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

// expandAll expands each of the words; nil stays nil.
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
