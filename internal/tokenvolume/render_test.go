package tokenvolume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
)

// fakeObjects are the objects that exist, by KIND/NAMESPACE/NAME.
type fakeObjects map[string]map[string]string

func (s fakeObjects) find(kind, namespace, name string) (map[string]string, error) {
	if data, ok := s[kind+"/"+namespace+"/"+name]; ok {
		return data, nil
	}
	return nil, apierrors.NewNotFound(corev1.Resource(kind), name)
}

func (s fakeObjects) Secret(_ context.Context, namespace, name string) (*corev1.Secret, error) {
	found, err := s.find("secret", namespace, name)
	secret := &corev1.Secret{Data: map[string][]byte{}}
	for key, value := range found {
		secret.Data[key] = []byte(value)
	}
	return secret, err
}

func (s fakeObjects) ConfigMap(_ context.Context, namespace, name string) (*corev1.ConfigMap, error) {
	found, err := s.find("configmap", namespace, name)
	return &corev1.ConfigMap{Data: found, BinaryData: map[string][]byte{"binary": {0, 1}}}, err
}

func renderer() *Renderer {
	return &Renderer{
		Objects: fakeObjects{
			"secret/shop/login":               {"user": "u", "password": "p"},
			"configmap/shop/kube-root-ca.crt": {"ca.crt": "CA"},
			"configmap/shop/more":             {"user": "other"},
			"secret/shop/bad":                 {"..data": "x"},
		},
		Token: func(_ context.Context, pod *corev1.Pod, source *corev1.ServiceAccountTokenProjection) (string, error) {
			if source.Audience == "away" {
				return "", errors.New("failed to fetch token: connection refused")
			}
			return "token of " + pod.Name + " for " + source.Audience, nil
		},
		Allocatable: corev1.ResourceList{"cpu": resource.MustParse("4")},
	}
}

func number[T any](n T) *T { return &n }

func keyTo(key, path string, mode *int32) []corev1.KeyToPath {
	return []corev1.KeyToPath{{Key: key, Path: path, Mode: mode}}
}

func named(name string) corev1.LocalObjectReference { return corev1.LocalObjectReference{Name: name} }

// show returns the files as "MODE UID:GID CONTENT", by path.
func show(files map[string]File) map[string]string {
	shown := map[string]string{}
	for name, f := range files {
		shown[name] = fmt.Sprintf("%04o %d:%d %s", uint32(f.Mode&fs.ModePerm), f.UID, f.GID, f.Data)
	}
	return shown
}

func projected(mode *int32, sources ...corev1.VolumeProjection) corev1.VolumeSource {
	return corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{DefaultMode: mode, Sources: sources}}
}

// access is the volume that admission adds to every pod.
func access() corev1.VolumeSource {
	return projected(number[int32](0o644),
		corev1.VolumeProjection{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token"}},
		corev1.VolumeProjection{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: named("kube-root-ca.crt"), Items: keyTo("ca.crt", "ca.crt", nil)}},
		corev1.VolumeProjection{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{{
			Path: "namespace", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.namespace"}}}}})
}

func secretSource(name string, items []corev1.KeyToPath, optional *bool) corev1.VolumeSource {
	return corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: name, Items: items, Optional: optional}}
}

func configSource(name string, items []corev1.KeyToPath, optional *bool) corev1.VolumeSource {
	return corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: named(name), Items: items, Optional: optional}}
}

func TestRender(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		source corev1.VolumeSource
		group  *int64
		want   map[string]string
	}{
		"the volume of every pod": {access(), nil, map[string]string{
			"token": "0644 -1:-1 token of p for ", "ca.crt": "0644 -1:-1 CA", "namespace": "0644 -1:-1 shop"}},
		"with a group": {access(), number[int64](2000), map[string]string{
			"token": "0640 -1:2000 token of p for ", "ca.crt": "0644 -1:2000 CA", "namespace": "0644 -1:2000 shop"}},
		"whole secret": {secretSource("login", nil, nil), nil, map[string]string{"user": "0644 -1:-1 u", "password": "0644 -1:-1 p"}},
		"one key":      {secretSource("login", keyTo("user", "a/b", number[int32](0o400)), nil), nil, map[string]string{"a/b": "0400 -1:-1 u"}},
		"a mode, and a group that must read": {secretSource("login", keyTo("user", "u", number[int32](0o100)), nil), number[int64](7),
			map[string]string{"u": "0540 -1:7 u"}},
		"whole config map":           {configSource("more", nil, nil), nil, map[string]string{"user": "0644 -1:-1 other", "binary": "0644 -1:-1 \x00\x01"}},
		"no secret, none needed":     {secretSource("none", nil, number(true)), nil, map[string]string{}},
		"no config map, none needed": {configSource("none", keyTo("a", "a", nil), number(true)), nil, map[string]string{}},
		"no key, none needed":        {secretSource("login", keyTo("none", "a", nil), number(true)), nil, map[string]string{}},
		"the later of two whole objects": {projected(nil,
			corev1.VolumeProjection{Secret: &corev1.SecretProjection{LocalObjectReference: named("login")}},
			corev1.VolumeProjection{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: named("more")}}), nil,
			map[string]string{"user": "0644 -1:-1 other", "password": "0644 -1:-1 p", "binary": "0644 -1:-1 \x00\x01"}},
		"the pod's own fields": {corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{DefaultMode: number[int32](0o440), Items: []corev1.DownwardAPIVolumeFile{
			{Path: "labels", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels"}},
			{Path: "cpu", Mode: number[int32](0o444), ResourceFieldRef: &corev1.ResourceFieldSelector{ContainerName: "c", Resource: "limits.cpu"}},
		}}}, nil, map[string]string{"labels": "0440 -1:-1 a=\"1\"\nb=\"x\\\"y\"", "cpu": "0444 -1:-1 4"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pod := podNamed("p")
			pod.Labels = map[string]string{"b": `x"y`, "a": "1"}
			pod.Spec.Containers = []corev1.Container{{Name: "c"}}
			if test.group != nil {
				pod.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: test.group}
			}
			files, err := renderer().Render(t.Context(), pod, &corev1.Volume{Name: "v", VolumeSource: test.source})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, show(files)); diff != "" {
				t.Errorf("files (-want +got)\n%s", diff)
			}
		})
	}
}

// TestTokenMode tests the owners and modes of tokens. They depend on the pod's spec and not on an image, because a program may
// become another user when it starts. The first five cases are from Kubernetes' end-to-end test of tokens.
func TestTokenMode(t *testing.T) {
	t.Parallel()
	runAs := func(user int64) corev1.Container {
		return corev1.Container{SecurityContext: &corev1.SecurityContext{RunAsUser: &user}}
	}
	anyone := corev1.Container{}
	for name, test := range map[string]struct {
		mode             *int32 // of the volume
		shared, group    *int64 // of the pod's security context
		init, containers []corev1.Container
		want             string
	}{
		"the image's user":             {containers: []corev1.Container{anyone}, want: "0644 -1:-1"},
		"the pod's user":               {shared: number[int64](1000), containers: []corev1.Container{anyone, anyone}, want: "0600 1000:-1"},
		"the containers' one user":     {containers: []corev1.Container{runAs(1000)}, init: []corev1.Container{runAs(1000)}, want: "0600 1000:-1"},
		"a group":                      {group: number[int64](2000), containers: []corev1.Container{anyone}, want: "0640 -1:2000"},
		"a user and a group":           {shared: number[int64](0), group: number[int64](2000), containers: []corev1.Container{anyone}, want: "0640 0:2000"},
		"a user for one of two":        {containers: []corev1.Container{runAs(1000), anyone}, want: "0644 -1:-1"},
		"another for the init":         {init: []corev1.Container{runAs(1001)}, containers: []corev1.Container{runAs(1000)}, want: "0644 -1:-1"},
		"none for the init":            {init: []corev1.Container{anyone}, containers: []corev1.Container{runAs(1000)}, want: "0644 -1:-1"},
		"a container's before a pod's": {shared: number[int64](1000), containers: []corev1.Container{runAs(1001), anyone}, want: "0644 -1:-1"},
		"a mode":                       {mode: number[int32](0o440), containers: []corev1.Container{anyone}, want: "0440 -1:-1"},
		"a mode and a user":            {mode: number[int32](0o444), shared: number[int64](1000), containers: []corev1.Container{anyone}, want: "0444 1000:-1"},
		"a mode and a group":           {mode: number[int32](0o400), group: number[int64](2000), containers: []corev1.Container{anyone}, want: "0440 -1:2000"},
		"the API's mode and a user":    {mode: number[int32](0o644), shared: number[int64](1000), containers: []corev1.Container{anyone}, want: "0600 1000:-1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pod := podNamed("p")
			pod.Spec.InitContainers, pod.Spec.Containers = test.init, test.containers
			pod.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: test.shared, FSGroup: test.group}
			source := projected(test.mode, corev1.VolumeProjection{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token"}})
			files, err := renderer().Render(t.Context(), pod, &corev1.Volume{Name: "v", VolumeSource: source})
			if err != nil {
				t.Fatal(err)
			}
			if got, want := show(files)["token"], test.want+" token of p for "; got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		})
	}
}

func TestRenderRefuses(t *testing.T) {
	t.Parallel()
	token := func(path, audience string) corev1.VolumeProjection {
		return corev1.VolumeProjection{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: path, Audience: audience}}
	}
	for name, test := range map[string]struct {
		source corev1.VolumeSource
		want   string
	}{
		"no secret":         {secretSource("none", nil, nil), `secret "none" not found`},
		"no config map":     {configSource("none", nil, number(false)), `configmap "none" not found`},
		"no secret key":     {secretSource("login", keyTo("none", "a", nil), nil), "references non-existent secret key: none"},
		"no config key":     {configSource("more", keyTo("none", "a", nil), nil), "configmap references non-existent config key: none"},
		"path outside":      {secretSource("login", keyTo("user", "../a", nil), nil), `must not contain '..'`},
		"key of ours":       {secretSource("bad", nil, nil), `must not start with '..'`},
		"token outside":     {projected(nil, token("/etc/token", "")), `must be relative path`},
		"one path twice":    {projected(nil, token("a", ""), token("./a", "x")), `conflicting duplicate paths: "a"`},
		"every fault":       {projected(nil, token("a", "away"), token("..", "")), `[failed to fetch token: connection refused, invalid path: must not contain '..': ".."]`},
		"no such field":     {corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{Items: []corev1.DownwardAPIVolumeFile{{Path: "a", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "spec"}}}}}, "unsupported fieldPath: spec"},
		"nothing projected": {projected(nil, corev1.VolumeProjection{}), "source is not supported"},
		"not ours":          {corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}, "not made of the API's objects"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := renderer().Render(t.Context(), podNamed("p"), &corev1.Volume{Name: "v", VolumeSource: test.source})
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

// TestRenderIsBounded renders a small pod's volume that is much larger than its file system may be. Render must not hold all of
// it in memory.
func TestRenderIsBounded(t *testing.T) {
	t.Parallel()
	pod := &corev1.Pod{}
	pod.Annotations = map[string]string{"long": strings.Repeat("x", 100<<10)}
	var items []corev1.DownwardAPIVolumeFile
	for i := range 1000 {
		items = append(items, corev1.DownwardAPIVolumeFile{Path: fmt.Sprint(i), FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.annotations"}})
	}
	for name, source := range map[string]corev1.VolumeSource{
		"downward":  {DownwardAPI: &corev1.DownwardAPIVolumeSource{Items: items}},
		"projected": {Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{{DownwardAPI: &corev1.DownwardAPIProjection{Items: items}}}}},
	} {
		files, err := renderer().Render(t.Context(), pod, &corev1.Volume{Name: "v", VolumeSource: source})
		size := 0
		for _, file := range files {
			size += len(file.Data)
		}
		if err == nil || len(err.Error()) > 200 || size > 2<<20 {
			t.Errorf("%s: %d bytes in %d files, %.200v", name, size, len(files), err)
		}
	}
}
