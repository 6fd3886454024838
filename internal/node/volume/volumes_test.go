//go:build linux

package volume

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
)

// checkAccess checks the mode, the owner and the group of a file.
func checkAccess(t *testing.T, path string, mode fs.FileMode, uid, gid uint32) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Error(err)
		return
	}
	stat := info.Sys().(*syscall.Stat_t)
	if got := info.Mode() & (fs.ModePerm | fs.ModeSetgid); got != mode || stat.Uid != uid || stat.Gid != gid {
		t.Errorf("%s: %v %d:%d, want %v %d:%d", filepath.Base(path), got, stat.Uid, stat.Gid, mode, uid, gid)
	}
}

func mountOf(t *testing.T, path string) *mountinfo.Info {
	t.Helper()
	mounts, err := mountinfo.GetMounts(func(i *mountinfo.Info) (skip, stop bool) { return i.Mountpoint != path, false })
	if err != nil || len(mounts) != 1 {
		t.Fatalf("%d mounts at %s, %v", len(mounts), path, err)
	}
	return mounts[0]
}

func TestVolumesOfAPod(t *testing.T) {
	asRoot(t)
	w := newFakeCluster(t)
	v := w.volumes()
	host := t.TempDir()
	pod := dashboard(
		volumeOf("login", corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "login", DefaultMode: number[int32](0o400)}}),
		volumeOf("scripts", corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
			LocalObjectReference: corev1.LocalObjectReference{Name: "kube-root-ca.crt"}, DefaultMode: number[int32](0o755)}}),
		volumeOf("self", corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{Items: []corev1.DownwardAPIVolumeFile{
			{Path: "name", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}}}}),
		volumeOf("disk", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}),
		volumeOf("memory", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: "Memory", SizeLimit: number(resource.MustParse("1Mi"))}}),
		volumeOf("unnamed", corev1.VolumeSource{}),
		volumeOf("host", corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: host, Type: number(corev1.HostPathDirectory)}}),
	)
	pod.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: number[int64](1000)}
	paths := setUp(t, v, pod)

	checkAccess(t, w.root, 0o700, 0, 0)
	checkAccess(t, filepath.Join(w.root, string(pod.UID)), 0o700, 0, 0)
	checkAccess(t, paths["access"], 0o755, 0, 0)
	checkAccess(t, filepath.Join(paths["access"], "token"), 0o600, 1000, 0)
	checkAccess(t, filepath.Join(paths["access"], "ca.crt"), 0o644, 0, 0)
	checkAccess(t, filepath.Join(paths["login"], "user"), 0o400, 0, 0)
	checkAccess(t, filepath.Join(paths["scripts"], "ca.crt"), 0o755, 0, 0)
	checkAccess(t, paths["disk"], 0o777, 0, 0)
	checkAccess(t, paths["memory"], 0o777, 0, 0)
	checkAccess(t, paths["unnamed"], 0o777, 0, 0)
	if got := content(t, filepath.Join(paths["self"], "name")); got != "dashboard" {
		t.Errorf("name is %q", got)
	}
	if paths["host"] != host {
		t.Errorf("the host's directory is %s", paths["host"])
	}
	for name, options := range map[string][]string{"access": {"nosuid", "nodev", "noexec"}, "login": {"nosuid", "nodev", "noexec"}, "scripts": {"nosuid", "nodev"}} {
		mount := mountOf(t, paths[name])
		for _, option := range []string{"nosuid", "nodev", "noexec"} {
			if got := slices.Contains(strings.Split(mount.Options, ","), option); got != slices.Contains(options, option) {
				t.Errorf("%s is mounted %s; %s = %v", name, mount.Options, option, got)
			}
		}
		if mount.FSType != "tmpfs" || !strings.Contains(mount.VFSOptions, "size=") {
			t.Errorf("%s is %s %s", name, mount.FSType, mount.VFSOptions)
		}
	}
	if err := os.WriteFile(filepath.Join(paths["memory"], "big"), make([]byte, 2<<20), 0o600); err == nil {
		t.Error("more was written to memory than its limit")
	}
}

func TestGroupOfAPod(t *testing.T) {
	asRoot(t)
	v := newFakeCluster(t).volumes()
	pod := dashboard(
		volumeOf("disk", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}),
		volumeOf("memory", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: "Memory"}}))
	pod.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: number[int64](2000)}
	paths := setUp(t, v, pod)
	checkAccess(t, filepath.Join(paths["access"], "token"), 0o640, 0, 2000)
	checkAccess(t, filepath.Join(paths["access"], "ca.crt"), 0o644, 0, 2000)
	checkAccess(t, paths["disk"], 0o777|fs.ModeSetgid, 0, 2000)
	checkAccess(t, paths["memory"], 0o777|fs.ModeSetgid, 0, 2000)
}

// TestTakeOver sets the volumes of a pod up again with a new agent. It mounts nothing, requests no token and removes no file.
func TestTakeOver(t *testing.T) {
	asRoot(t)
	w := newFakeCluster(t)
	pod := dashboard(volumeOf("disk", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}),
		volumeOf("memory", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: "Memory"}}))
	paths := setUp(t, w.volumes(), pod)
	for _, path := range []string{paths["disk"], paths["memory"]} {
		if err := os.Chmod(path, 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(path, "work"), []byte("done"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	token := content(t, filepath.Join(paths["access"], "token"))
	mount := mountOf(t, paths["access"]).ID

	w.do(func() { w.away = true })
	next := w.volumes()
	if uids, err := next.Existing(); err != nil || !slices.Equal(uids, []types.UID{pod.UID}) {
		t.Errorf("found %q, %v", uids, err)
	}
	again := setUp(t, next, pod)
	if again["access"] != paths["access"] || mountOf(t, paths["access"]).ID != mount {
		t.Error("the volume was mounted again")
	}
	if content(t, filepath.Join(paths["access"], "token")) != token || w.count() != 1 {
		t.Errorf("%d tokens were issued, want the one to go on", w.count())
	}
	for _, path := range []string{paths["disk"], paths["memory"]} {
		checkAccess(t, path, 0o750, 0, 0)
		if content(t, filepath.Join(path, "work")) != "done" {
			t.Error("the pod's work is lost")
		}
	}
	// A new agent that can neither reach the authority nor read an object uses the existing content.
	w.do(func() { w.configMaps = nil })
	if _, err := w.volumes().SetUp(t.Context(), pod); err != nil {
		t.Error(err)
	}
}

func TestTearDownLeavesWhatIsNotThePods(t *testing.T) {
	asRoot(t)
	w := newFakeCluster(t)
	v := w.volumes()
	host := t.TempDir()
	treasure := filepath.Join(host, "treasure")
	if err := os.WriteFile(treasure, []byte("untouched"), 0o600); err != nil {
		t.Fatal(err)
	}
	pod := dashboard(volumeOf("disk", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}),
		volumeOf("host", corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: host}}))
	paths := setUp(t, v, pod)
	// A container can leave links to the machine's files in its directory, and, with the right propagation, mounts.
	if err := os.Symlink(host, filepath.Join(paths["disk"], "link")); err != nil {
		t.Fatal(err)
	}
	inner := filepath.Join(paths["disk"], "a mount")
	if err := os.Mkdir(inner, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(host, inner, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	// An open file must not keep the mount or the content of the token's volume.
	token, err := os.Open(filepath.Join(paths["access"], "token"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = token.Close() }()

	tearDown(t, v, pod.UID)
	tearDown(t, v, pod.UID)
	if content(t, treasure) != "untouched" {
		t.Error("a file of the machine was changed")
	}
	if entries, err := os.ReadDir(w.root); err != nil || len(entries) > 0 {
		t.Errorf("%d pods are left, %v", len(entries), err)
	}
	var stat unix.Stat_t
	if err := unix.Fstat(int(token.Fd()), &stat); err != nil || stat.Nlink != 0 {
		t.Errorf("the token still has %d names, %v", stat.Nlink, err)
	}
	if w.held[pod.UID] {
		t.Error("the pod's objects are still held")
	}
}

func TestSetUpRefuses(t *testing.T) {
	asRoot(t)
	for name, test := range map[string]struct {
		change func(*corev1.Pod)
		want   string
	}{
		"no UID":       {func(p *corev1.Pod) { p.UID = "" }, "pod UID has 0 characters"},
		"a way out":    {func(p *corev1.Pod) { p.UID = "../../etc" }, "is not letters, digits and hyphens"},
		"a dot":        {func(p *corev1.Pod) { p.UID = "." }, "is not letters, digits and hyphens"},
		"volume's way": {func(p *corev1.Pod) { p.Spec.Volumes[0].Name = "../x" }, `volume name "../x"`},
		"one twice":    {func(p *corev1.Pod) { p.Spec.Volumes = append(p.Spec.Volumes, p.Spec.Volumes[0]) }, "is used twice"},
		"no object": {func(p *corev1.Pod) { p.Spec.Volumes[0].Projected.Sources[1].ConfigMap.Name = "none" },
			`MountVolume.SetUp failed for volume "access" : configmap "none" not found`},
		"an unsupported type": {func(p *corev1.Pod) {
			p.Spec.Volumes[0].VolumeSource = corev1.VolumeSource{NFS: &corev1.NFSVolumeSource{}}
		}, "volume type is not supported"},
		"an unsupported medium": {func(p *corev1.Pod) {
			p.Spec.Volumes[0].VolumeSource = corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: "HugePages"}}
		}, `unknown storage medium "HugePages"`},
		"no such path": {func(p *corev1.Pod) {
			p.Spec.Volumes[0].VolumeSource = corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/none", Type: number(corev1.HostPathDirectory)}}
		}, "hostPath /none doesn't exist"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := newFakeCluster(t).volumes()
			pod := dashboard()
			test.change(pod)
			if checkUID(pod.UID) == nil {
				t.Cleanup(func() { tearDown(t, v, pod.UID) })
			} else if err := v.TearDown(t.Context(), pod.UID); err == nil {
				t.Error("a pod of that UID was removed")
			}
			if _, err := v.SetUp(t.Context(), pod); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

func TestFilesStayFresh(t *testing.T) {
	asRoot(t)
	synctest.Test(t, func(t *testing.T) {
		w := newFakeCluster(t)
		v := w.volumes()
		run(t, v)
		pod := dashboard()
		paths := setUp(t, v, pod)
		token := filepath.Join(paths["access"], "token")
		first := content(t, token)

		w.setConfigMap("kube-root-ca.crt", map[string]string{"ca.crt": "CA 2"})
		elapse(0)
		if got := content(t, filepath.Join(paths["access"], "ca.crt")); got != "CA 2" {
			t.Errorf("the file holds %q", got)
		}
		if content(t, token) != first || w.count() != 1 {
			t.Error("a new CA took a new token")
		}

		elapse(50 * time.Minute)
		if content(t, token) == first || !slices.Equal(w.recorded(&w.renewed), []string{"dashboard access"}) {
			t.Errorf("reported renewals %q", w.recorded(&w.renewed))
		}
		mounts := mountOf(t, paths["access"])
		entries, err := os.ReadDir(mounts.Mountpoint)
		if err != nil || len(entries) != 4 { // ..data, one version, token, ca.crt
			t.Errorf("the volume holds %v, %v", entries, err)
		}

		w.setConfigMap("kube-root-ca.crt", nil)
		elapse(10 * time.Minute)
		if want := []string{`dashboard MountVolume.SetUp failed for volume "access" : configmap "kube-root-ca.crt" not found`}; !slices.Equal(w.recorded(&w.failed), want) {
			t.Errorf("reported failures %q", w.recorded(&w.failed))
		}

		tearDown(t, v, pod.UID)
		issued := w.count()
		elapse(3 * time.Hour)
		if w.count() != issued {
			t.Error("tokens of a removed pod are renewed")
		}
	})
}

// TestAuthorityAwayAtTheStart takes over a pod whose token has expired. The token is renewed when the authority is back.
func TestAuthorityAwayAtTheStart(t *testing.T) {
	asRoot(t)
	synctest.Test(t, func(t *testing.T) {
		w := newFakeCluster(t)
		pod := dashboard()
		earlier := w.volumes()
		defer earlier.queue.ShutDown()
		token := filepath.Join(setUp(t, earlier, pod)["access"], "token")
		first := content(t, token)
		w.do(func() { w.away = true })
		elapse(2 * time.Hour)

		v := w.volumes()
		run(t, v)
		setUp(t, v, pod)
		if content(t, token) != first {
			t.Error("the token changed")
		}
		elapse(time.Hour)
		if n := len(w.recorded(&w.failed)); n == 0 || n > 2 {
			t.Errorf("reported failures %q", w.recorded(&w.failed))
		}
		w.do(func() { w.away = false })
		elapse(2 * time.Minute)
		if content(t, token) == first || !slices.Equal(w.recorded(&w.renewed), []string{"dashboard access"}) {
			t.Errorf("reported renewals %q", w.recorded(&w.renewed))
		}
	})
}

// TestTearDownDoesNotWait removes a pod while the request for its token hangs.
func TestTearDownDoesNotWait(t *testing.T) {
	asRoot(t)
	w := newFakeCluster(t)
	asked := make(chan struct{})
	config := w.volumes().config
	config.Request = func(ctx context.Context, _, _ string, r *tokenRequest) (*tokenRequest, error) {
		close(asked)
		<-ctx.Done()
		return nil, ctx.Err()
	}
	v := New(config)
	done := make(chan error)
	go func() {
		_, err := v.SetUp(context.Background(), dashboard())
		done <- err
	}()
	<-asked
	tearDown(t, v, dashboard().UID)
	if err := <-done; err == nil {
		t.Error("the volumes of a removed pod were made")
	}
}

func TestHostPath(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file, socket := filepath.Join(dir, "file"), filepath.Join(dir, "socket")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: socket}); err != nil {
		t.Fatal(err)
	}
	none := func(name string) string { return filepath.Join(dir, name) }
	for _, test := range []struct {
		path string
		kind corev1.HostPathType
		want string // "" succeeds
	}{
		{none("none"), "", ""}, {dir, "Directory", ""}, {dir, "DirectoryOrCreate", ""}, {none("a/b"), "DirectoryOrCreate", ""},
		{file, "File", ""}, {file, "FileOrCreate", ""}, {none("made"), "FileOrCreate", ""}, {socket, "Socket", ""}, {"/dev/null", "CharDevice", ""},
		{none("none"), "Directory", "hostPath " + none("none") + " doesn't exist"},
		{none("none"), "File", "hostPath " + none("none") + " doesn't exist"},
		{none("no/dir/file"), "FileOrCreate", "no such file or directory"},
		{file, "Directory", "hostPath type check failed: " + file + " is not a directory, it's a File"},
		{file, "DirectoryOrCreate", "hostPath type check failed: " + file + " is not a directory, it's a File"},
		{dir, "File", "hostPath type check failed: " + dir + " is not a file, it's a Directory"},
		{dir, "FileOrCreate", "hostPath type check failed: " + dir + " is not a file, it's a Directory"},
		{file, "Socket", "hostPath type check failed: " + file + " is not a socket file, it's a File"},
		{socket, "CharDevice", "hostPath type check failed: " + socket + " is not a character device, it's a Socket"},
		{"/dev/null", "BlockDevice", "hostPath type check failed: /dev/null is not a block device, it's a CharDevice"},
		{file, "Folder", "Folder is an invalid volume type"},
		{dir + "/../x", "", "invalid HostPath `" + dir + "/../x`: must not contain '..'"},
		{"etc", "", "invalid HostPath `etc`: must be an absolute path"},
	} {
		err := checkHostPath(&corev1.HostPathVolumeSource{Path: test.path, Type: &test.kind})
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s as %q: got %v, want %q", test.path, test.kind, err, test.want)
		}
	}
	if err := checkHostPath(&corev1.HostPathVolumeSource{Path: none("none")}); err != nil {
		t.Error(err)
	}
}

// FuzzCheckUID checks that an accepted UID is the name of a directory directly below the root.
func FuzzCheckUID(f *testing.F) {
	for _, seed := range []string{"6f1c2f6e-0000-4000-8000-000000000001", "..", "a/b", "", "a\x00"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, uid string) {
		if checkUID(types.UID(uid)) != nil {
			return
		}
		if path := podAt("/pods", types.UID(uid)).path(); path != "/pods/"+uid || filepath.Dir(path) != "/pods" {
			t.Errorf("%q leads to %s", uid, path)
		}
	})
}

// TestIsFilled checks that a link out of a volume, which a container may have made, is not treated as content.
func TestIsFilled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if isFilled(dir) || isFilled(filepath.Join(dir, "absent")) {
		t.Error("nothing was written")
	}
	link := filepath.Join(dir, "..data")
	if err := os.Symlink(t.TempDir(), link); err != nil {
		t.Fatal(err)
	}
	if isFilled(dir) {
		t.Error("a link out of the volume is treated as content")
	}
	if err := errors.Join(os.Remove(link), os.Mkdir(filepath.Join(dir, "..2026"), 0o700), os.Symlink("..2026", link)); err != nil {
		t.Fatal(err)
	}
	if !isFilled(dir) {
		t.Error("the content was not found")
	}
}
