//go:build linux

package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/util/workqueue"
	compbasemetrics "k8s.io/component-base/metrics"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"lanyard.dev/internal/nodeaccess"
	"lanyard.dev/internal/tokenvolume"
)

// Objects keeps the objects that pods name, as *objects.Store does.
type Objects interface {
	tokenvolume.Objects
	// Hold keeps the objects that the pod names until Release.
	Hold(pod *corev1.Pod)
	Release(pod types.UID)
	// OnChange registers a function that is called when an object that a pod holds was created, changed or deleted.
	OnChange(func(namespace string, objectChanged nodeaccess.Reference))
	// Account returns the UID of a service account that a pod holds, or "" if the UID is not known or the account does not exist.
	Account(namespace, name string) types.UID
}

// Config configures Volumes. Root, Objects and Request are required.
type Config struct {
	// Root is the directory of all pods' volumes. Volumes makes it if it is missing, and makes it accessible to root alone.
	Root    string
	Objects Objects
	Request tokenvolume.Request
	// Review, where not nil, finds out whether the authority still accepts the tokens.
	Review tokenvolume.Review
	// Clock is the real clock if nil.
	Clock clock.WithTicker
	// Allocatable are the node's resources. A container without a limit has these as its limits in the downward API.
	Allocatable corev1.ResourceList
	// Metrics, where not nil, is where the metrics of token renewal are registered.
	Metrics compbasemetrics.KubeRegistry
	// Failed is called when a token cannot be renewed, or a volume cannot be updated while the pod runs: once for each new
	// reason. The error is the text of an event. Failed must not block.
	Failed func(pod *corev1.Pod, err error)
	// Refused is called with the reason when the authority no longer accepts a pod's token, before the token is replaced. It
	// must not block.
	Refused func(pod *corev1.Pod, why string)
}

// Volumes makes, refreshes and removes the volumes of pods.
type Volumes struct {
	config   Config
	tokens   *tokenvolume.Tokens
	renderer *tokenvolume.Renderer
	// queue contains the pods whose API-backed volumes may be out of date.
	queue workqueue.TypedRateLimitingInterface[types.UID]

	mu        sync.Mutex
	pods      map[types.UID]*tracked
	listeners []func(pod *corev1.Pod, volumes []string)
}

// tracked is a pod whose volumes are kept up to date.
type tracked struct {
	// gone ends, by remove, when the pod's volumes are torn down.
	gone   context.Context
	remove context.CancelFunc
	// writeMu is held while files of the pod are changed. It guards failure.
	writeMu sync.Mutex
	// failure is the last failure that was reported.
	failure string

	// Guarded by Volumes.mu.
	pod        *corev1.Pod
	references map[nodeaccess.Reference]bool
}

// New returns the volumes of a node without pods. It registers a listener with config.Objects.
func New(config Config) *Volumes {
	if config.Clock == nil {
		config.Clock = clock.RealClock{}
	}
	v := &Volumes{config: config, pods: map[types.UID]*tracked{}, queue: newQueue(config.Clock)}
	v.tokens = tokenvolume.NewTokens(tokenvolume.TokensConfig{
		Request: config.Request, Review: config.Review, Account: config.Objects.Account, Clock: config.Clock,
		Metrics: config.Metrics, Renewed: v.queue.Add, Failed: v.tokenFailed, Refused: v.tokenRefused,
	})
	v.renderer = &tokenvolume.Renderer{Objects: config.Objects, Token: v.tokens.Get, Allocatable: config.Allocatable}
	config.Objects.OnChange(v.objectChanged)
	return v
}

// OnRenew registers f, which is called when a token in a pod's volumes has been replaced, after the files have been written.
// f must not block.
func (v *Volumes) OnRenew(f func(pod *corev1.Pod, volumes []string)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.listeners = append(v.listeners, f)
}

// SetUp makes the pod's volumes and returns their paths on the machine by name. It may be called several times. From the
// first call on, also if it failed, the pod's API-backed volumes are kept up to date until TearDown.
//
// If a volume has content already and cannot be updated, SetUp succeeds and tries again later.
func (v *Volumes) SetUp(ctx context.Context, pod *corev1.Pod) (map[string]string, error) {
	if err := checkNames(pod); err != nil {
		return nil, err
	}
	root, err := v.root()
	if err != nil {
		return nil, err
	}
	v.config.Objects.Hold(pod)
	t := v.track(pod)
	t.writeMu.Lock()
	paths, renewed, err := v.setUp(ctx, t, podAt(root, pod.UID), pod)
	t.writeMu.Unlock()
	v.notifyRenewed(pod, renewed)
	return paths, err
}

func (v *Volumes) setUp(ctx context.Context, t *tracked, dir podDir, pod *corev1.Pod) (paths map[string]string, renewed []string, err error) {
	if err := t.gone.Err(); err != nil {
		return nil, nil, fmt.Errorf("pod %s/%s is being removed", pod.Namespace, pod.Name)
	}
	if err := os.MkdirAll(dir.volumes(), 0o700); err != nil {
		return nil, nil, err
	}
	ctx, cancel := t.untilRemoved(ctx)
	defer cancel()
	paths = map[string]string{}
	var faults []error
	for i := range pod.Spec.Volumes {
		volume := &pod.Spec.Volumes[i]
		path, fresh, err := v.setUpOne(ctx, dir, pod, volume)
		if err != nil {
			faults = append(faults, fmt.Errorf("MountVolume.SetUp failed for volume %q : %w", volume.Name, err))
			continue
		}
		paths[volume.Name] = path
		if fresh {
			renewed = append(renewed, volume.Name)
		}
	}
	return paths, renewed, utilerrors.NewAggregate(faults)
}

func (v *Volumes) setUpOne(ctx context.Context, dir podDir, pod *corev1.Pod, volume *corev1.Volume) (path string, renewed bool, err error) {
	switch source := &volume.VolumeSource; {
	case tokenvolume.IsAPIBacked(volume):
		return v.setUpBacked(ctx, dir, pod, volume)
	case source.HostPath != nil:
		return source.HostPath.Path, false, checkHostPath(source.HostPath)
	case source.EmptyDir != nil, *source == corev1.VolumeSource{}:
		path = dir.volume(emptyDir, volume.Name)
		return path, false, v.makeEmptyDir(path, pod, source.EmptyDir)
	}
	return "", false, errors.New("volume type is not supported")
}

// setUpBacked mounts and fills the volume. A failure to fill a volume that has been filled before is not an error.
func (v *Volumes) setUpBacked(ctx context.Context, dir podDir, pod *corev1.Pod, volume *corev1.Volume) (path string, renewed bool, err error) {
	path = dir.volume(kindOf(volume), volume.Name)
	if err := mountBacked(path, volume); err != nil {
		return "", false, err
	}
	filled := isFilled(path)
	renewed, err = v.fill(ctx, path, pod, volume)
	if err != nil && filled {
		klog.ErrorS(err, "Could not update a volume; its present content stays", "pod", klog.KObj(pod), "volume", volume.Name)
		v.queue.AddRateLimited(pod.UID)
		return path, false, nil
	}
	return path, renewed, err
}

// TearDown removes the pod's volumes with their content, except the paths of hostPath volumes. No container of the pod may be
// running. If the pod has no volumes, TearDown does nothing.
func (v *Volumes) TearDown(_ context.Context, uid types.UID) error {
	if err := checkUID(uid); err != nil {
		return err
	}
	root, err := v.root()
	if err != nil {
		return err
	}
	if t := v.untrack(uid); t != nil {
		t.writeMu.Lock()
		defer t.writeMu.Unlock()
	}
	v.tokens.Forget(uid)
	v.config.Objects.Release(uid)
	if err := podAt(root, uid).remove(); err != nil {
		return fmt.Errorf("remove the volumes of pod %s: %w", uid, err)
	}
	return nil
}

// Existing returns the pods that have volumes on this machine, including those that an earlier agent has made.
func (v *Volumes) Existing() ([]types.UID, error) {
	entries, err := os.ReadDir(v.config.Root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var found []types.UID
	for _, entry := range entries {
		if uid := types.UID(entry.Name()); entry.IsDir() && checkUID(uid) == nil {
			found = append(found, uid)
		}
	}
	return found, err
}

func (v *Volumes) track(pod *corev1.Pod) *tracked {
	references := map[nodeaccess.Reference]bool{}
	for _, ref := range nodeaccess.References(pod) {
		references[ref] = true
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	t := v.pods[pod.UID]
	if t == nil {
		t = &tracked{}
		t.gone, t.remove = context.WithCancel(context.Background())
		v.pods[pod.UID] = t
	}
	t.pod, t.references = pod, references
	return t
}

func (v *Volumes) untrack(uid types.UID) *tracked {
	v.mu.Lock()
	defer v.mu.Unlock()
	t := v.pods[uid]
	delete(v.pods, uid)
	if t != nil {
		t.remove()
	}
	return t
}

// untilRemoved returns a context that also ends when the pod is removed.
func (t *tracked) untilRemoved(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(t.gone, cancel)
	return ctx, func() { stop(); cancel() }
}

// kind is the type of a volume, as the name of a directory.
type kind string

const (
	projected   kind = "projected"
	secret      kind = "secret"
	configMap   kind = "configmap"
	downwardAPI kind = "downward-api"
	emptyDir    kind = "empty-dir"
)

func kindOf(volume *corev1.Volume) kind {
	switch {
	case volume.Projected != nil:
		return projected
	case volume.Secret != nil:
		return secret
	case volume.ConfigMap != nil:
		return configMap
	case volume.DownwardAPI != nil:
		return downwardAPI
	}
	return emptyDir
}

// podDir is the directory of one pod.
type podDir struct{ root, name string }

// podAt returns the directory of a pod. checkUID must have accepted the UID, and root must be a path without links.
func podAt(root string, uid types.UID) podDir { return podDir{root, string(uid)} }

func (d podDir) path() string    { return filepath.Join(d.root, d.name) }
func (d podDir) volumes() string { return filepath.Join(d.path(), "volumes") }

func (d podDir) volume(k kind, name string) string {
	return filepath.Join(d.volumes(), string(k), name)
}

// maxUID is longer than any UID in use; the authority's are 36 characters.
const maxUID = 128

// checkUID returns an error if the UID is not the name of a directory below the root. UIDs come from outside the agent.
func checkUID(uid types.UID) error {
	if len(uid) == 0 || len(uid) > maxUID {
		return fmt.Errorf("pod UID has %d characters, want 1 to %d", len(uid), maxUID)
	}
	for _, c := range []byte(uid) {
		if !strings.ContainsRune("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-", rune(c)) {
			return fmt.Errorf("pod UID %q is not letters, digits and hyphens", uid)
		}
	}
	return nil
}

func checkNames(pod *corev1.Pod) error {
	if err := checkUID(pod.UID); err != nil {
		return err
	}
	seen := map[string]bool{}
	for i := range pod.Spec.Volumes {
		name := pod.Spec.Volumes[i].Name
		if faults := validation.IsDNS1123Label(name); len(faults) > 0 {
			return fmt.Errorf("volume name %q: %s", name, faults[0])
		}
		if seen[name] {
			return fmt.Errorf("volume name %q is used twice", name)
		}
		seen[name] = true
	}
	return nil
}

// root makes the directory of all pods, makes it accessible to this user alone, and returns its path without links: the
// kernel lists mounts by such paths.
func (v *Volumes) root() (string, error) {
	if !filepath.IsAbs(v.config.Root) {
		return "", errors.New("the directory of volumes is not an absolute path")
	}
	if err := os.MkdirAll(v.config.Root, 0o700); err != nil {
		return "", err
	}
	path, err := filepath.EvalSymlinks(v.config.Root)
	if err != nil {
		return "", err
	}
	info, err := os.Lstat(path)
	if err != nil {
		return "", err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.IsDir() || int(stat.Uid) != os.Geteuid() {
		return "", fmt.Errorf("%s is not a directory of this user", path)
	}
	if info.Mode().Perm() != 0o700 {
		return path, os.Chmod(path, 0o700)
	}
	return path, nil
}
