package tokenvolume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
)

// MaxSourceSize is how many bytes a volume may hold for each of its sources. An object has at most 1 MiB, but a source may
// name its keys several times, and the pod's fields any number of times.
const MaxSourceSize = 2 << 20

// maxCountedSources bounds the size of a volume with many sources, because the node holds the files of volumes in memory.
const maxCountedSources = 16

// SizeLimit returns how many bytes the files of a volume may have in all.
func SizeLimit(volume *corev1.Volume) int {
	return MaxSourceSize * min(Sources(volume), maxCountedSources)
}

var errTooLarge = fmt.Errorf("volume holds more than %d MiB per source, or %d MiB in all", MaxSourceSize>>20, maxCountedSources*MaxSourceSize>>20)

// Objects reads the objects that a pod's volumes name. If an object does not exist, the error is apierrors.IsNotFound.
type Objects interface {
	Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error)
	ConfigMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error)
}

// Renderer makes the files of API-backed volumes.
type Renderer struct {
	Objects Objects
	// Token returns a pod's token, as Tokens.Get does.
	Token func(context.Context, *corev1.Pod, *corev1.ServiceAccountTokenProjection) (string, error)
	// Allocatable are the node's resources. A container without a limit has these as its limits in the downward API.
	Allocatable corev1.ResourceList
}

// IsAPIBacked reports whether Render makes the files of the volume.
func IsAPIBacked(volume *corev1.Volume) bool {
	return volume.Projected != nil || volume.Secret != nil || volume.ConfigMap != nil || volume.DownwardAPI != nil
}

// Sources returns how many sources the volume has.
func Sources(volume *corev1.Volume) int {
	if volume.Projected == nil {
		return 1
	}
	return max(1, len(volume.Projected.Sources))
}

// TokenSources returns the volume's sources that are tokens.
func TokenSources(volume *corev1.Volume) []*corev1.ServiceAccountTokenProjection {
	var sources []*corev1.ServiceAccountTokenProjection
	if volume.Projected == nil {
		return nil
	}
	for i := range volume.Projected.Sources {
		if source := volume.Projected.Sources[i].ServiceAccountToken; source != nil {
			sources = append(sources, source)
		}
	}
	return sources
}

// Render returns the files of one of the pod's volumes, by path. The error contains every fault.
func (r *Renderer) Render(ctx context.Context, pod *corev1.Pod, volume *corev1.Volume) (map[string]File, error) {
	s := &fileSet{pod: pod, files: map[string]File{}, explicit: map[string]bool{}, defaultMode: apiDefaultMode, user: commonUser(pod), remaining: SizeLimit(volume)}
	if security := pod.Spec.SecurityContext; security != nil {
		s.group = security.FSGroup
	}
	switch {
	case volume.Projected != nil:
		s.mode(volume.Projected.DefaultMode)
		for i := range volume.Projected.Sources {
			s.addFault(r.project(ctx, s, &volume.Projected.Sources[i]))
		}
	case volume.Secret != nil:
		s.mode(volume.Secret.DefaultMode)
		s.addFault(r.secret(ctx, s, volume.Secret.SecretName, volume.Secret.Items, volume.Secret.Optional))
	case volume.ConfigMap != nil:
		s.mode(volume.ConfigMap.DefaultMode)
		s.addFault(r.configMap(ctx, s, volume.ConfigMap.Name, volume.ConfigMap.Items, volume.ConfigMap.Optional))
	case volume.DownwardAPI != nil:
		s.mode(volume.DownwardAPI.DefaultMode)
		r.downward(s, volume.DownwardAPI.Items)
	default:
		return nil, fmt.Errorf("volume %q is not made of the API's objects", volume.Name)
	}
	return s.files, utilerrors.NewAggregate(s.faults)
}

func (r *Renderer) project(ctx context.Context, s *fileSet, source *corev1.VolumeProjection) error {
	switch {
	case source.ServiceAccountToken != nil:
		text, err := r.Token(ctx, s.pod, source.ServiceAccountToken)
		if err != nil {
			return err
		}
		return s.putToken(source.ServiceAccountToken.Path, text)
	case source.Secret != nil:
		return r.secret(ctx, s, source.Secret.Name, source.Secret.Items, source.Secret.Optional)
	case source.ConfigMap != nil:
		return r.configMap(ctx, s, source.ConfigMap.Name, source.ConfigMap.Items, source.ConfigMap.Optional)
	case source.DownwardAPI != nil:
		r.downward(s, source.DownwardAPI.Items)
		return nil
	}
	return errors.New("projected volume source is not supported")
}

func (r *Renderer) secret(ctx context.Context, s *fileSet, name string, items []corev1.KeyToPath, optional *bool) error {
	isOptional := optional != nil && *optional
	secret, err := r.Objects.Secret(ctx, s.pod.Namespace, name)
	if err != nil && isOptional && apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	return s.keys(secret.Data, items, isOptional, "references non-existent secret key: %s")
}

func (r *Renderer) configMap(ctx context.Context, s *fileSet, name string, items []corev1.KeyToPath, optional *bool) error {
	isOptional := optional != nil && *optional
	configMap, err := r.Objects.ConfigMap(ctx, s.pod.Namespace, name)
	if err != nil && isOptional && apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	data := make(map[string][]byte, len(configMap.Data)+len(configMap.BinaryData))
	for key, value := range configMap.BinaryData {
		data[key] = value
	}
	for key, value := range configMap.Data {
		data[key] = []byte(value)
	}
	return s.keys(data, items, isOptional, "configmap references non-existent config key: %s")
}

func (r *Renderer) downward(s *fileSet, items []corev1.DownwardAPIVolumeFile) {
	for i := range items {
		value, err := r.value(s.pod, &items[i])
		if err == nil {
			err = s.putExplicit(items[i].Path, []byte(value), items[i].Mode)
		}
		s.addFault(err)
		if errors.Is(err, errTooLarge) {
			return
		}
	}
}

func (r *Renderer) value(pod *corev1.Pod, item *corev1.DownwardAPIVolumeFile) (string, error) {
	switch {
	case item.FieldRef != nil:
		return PodField(pod, item.FieldRef.FieldPath)
	case item.ResourceFieldRef != nil:
		return ContainerResource(pod, "", item.ResourceFieldRef, r.Allocatable)
	}
	return "", fmt.Errorf("%q has neither fieldRef nor resourceFieldRef", item.Path)
}

// apiDefaultMode is the mode of files in a volume without a defaultMode.
const apiDefaultMode fs.FileMode = 0o644

// commonUser returns the user that the pod's spec sets for all containers, or nil if they have different users or none. The user
// of an image is ignored, because a program may change it when it starts.
func commonUser(pod *corev1.Pod) *int64 {
	var common *int64
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		user := runAsUser(pod, &c)
		if user == nil || common != nil && *common != *user {
			return nil
		}
		common = user
	}
	return common
}

func runAsUser(pod *corev1.Pod, container *corev1.Container) *int64 {
	if own := container.SecurityContext; own != nil && own.RunAsUser != nil {
		return own.RunAsUser
	}
	if shared := pod.Spec.SecurityContext; shared != nil {
		return shared.RunAsUser
	}
	return nil
}

// fileSet collects the files of one volume.
type fileSet struct {
	pod         *corev1.Pod
	user, group *int64
	defaultMode fs.FileMode
	remaining   int // for more files, in bytes

	files map[string]File
	// explicit are the paths that the pod's spec names. Two sources with the same explicit path are an error. If two whole
	// objects have a key in common, the later source replaces the file of the earlier, as in Kubernetes.
	explicit map[string]bool
	faults   []error
}

func (s *fileSet) addFault(err error) {
	if err != nil {
		s.faults = append(s.faults, err)
	}
}

func (s *fileSet) mode(mode *int32) {
	if mode != nil {
		s.defaultMode = fs.FileMode(*mode) & fs.ModePerm
	}
}

// keys adds the keys of an object: all of them under their own names, or only those in items under their paths. missing is
// the format of the error for an item without a key.
func (s *fileSet) keys(data map[string][]byte, items []corev1.KeyToPath, isOptional bool, missing string) error {
	if len(items) == 0 {
		for key, value := range data {
			if err := s.put(key, value, nil); err != nil {
				return err
			}
		}
		return nil
	}
	for i := range items {
		value, ok := data[items[i].Key]
		if !ok && isOptional {
			continue
		}
		if !ok {
			return fmt.Errorf(missing, items[i].Key)
		}
		if err := s.putExplicit(items[i].Path, value, items[i].Mode); err != nil {
			return err
		}
	}
	return nil
}

func (s *fileSet) putExplicit(name string, data []byte, mode *int32) error {
	clean, err := CleanPath(name)
	if err != nil {
		return err
	}
	if s.explicit[clean] {
		return fmt.Errorf("conflicting duplicate paths: %q", clean)
	}
	s.explicit[clean] = true
	return s.put(clean, data, mode)
}

// put adds a file. If the pod has a group, the file belongs to it and the group can read it. The group need not be able to
// write, because the volume is read-only in containers.
func (s *fileSet) put(name string, data []byte, mode *int32) error {
	clean, err := CleanPath(name)
	if err != nil {
		return err
	}
	file := File{Data: data, Mode: s.defaultMode, UID: -1, GID: -1}
	if mode != nil {
		file.Mode = fs.FileMode(*mode) & fs.ModePerm
	}
	if s.group != nil {
		file.Mode, file.GID = file.Mode|0o440, int(*s.group)
	}
	if s.remaining += len(s.files[clean].Data) - len(data); s.remaining < 0 {
		return errTooLarge
	}
	s.files[clean] = file
	return nil
}

// putToken adds a token. If the pod's spec sets the user or the group of its containers, only that user or group can read the
// file. Otherwise every user of the containers can, because an image may start as root and become another user. If the volume
// sets a mode, the file has that mode, except that the pod's group can always read it. The API sets apiDefaultMode in a volume
// without a mode, so apiDefaultMode is treated as no mode.
func (s *fileSet) putToken(name, text string) error {
	var mode *int32
	if s.defaultMode == apiDefaultMode && (s.user != nil || s.group != nil) {
		private := int32(0o600)
		mode = &private
	}
	if err := s.putExplicit(name, []byte(text), mode); err != nil {
		return err
	}
	if s.user != nil {
		clean, _ := CleanPath(name)
		file := s.files[clean]
		file.UID = int(*s.user)
		s.files[clean] = file
	}
	return nil
}
