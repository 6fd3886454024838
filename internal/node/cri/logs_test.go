//go:build linux

package cri

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/ptr"

	"lanyard.dev/internal/node/crilog"
	"lanyard.dev/internal/podoptions"
)

func TestLogs(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	ran := start(t, r, podOf("log", "one", "two", ";", "sleep", "50ms", ";", "log-stderr", "three"))
	ended := ran.await(ran.id, Exited)
	for name, test := range map[string]struct {
		options corev1.PodLogOptions
		want    string
	}{
		"all":           {corev1.PodLogOptions{}, "one\ntwo\nthree\n"},
		"tail":          {corev1.PodLogOptions{TailLines: ptr.To[int64](2)}, "two\nthree\n"},
		"no tail":       {corev1.PodLogOptions{TailLines: ptr.To[int64](0)}, ""},
		"limit":         {corev1.PodLogOptions{LimitBytes: ptr.To[int64](5)}, "one\nt"},
		"since seconds": {corev1.PodLogOptions{SinceSeconds: ptr.To[int64](3600)}, "one\ntwo\nthree\n"},
		"since then":    {corev1.PodLogOptions{SinceTime: &metav1.Time{Time: ended.StartedAt.Add(-time.Second)}}, "one\ntwo\nthree\n"},
		"since later":   {corev1.PodLogOptions{SinceTime: &metav1.Time{Time: ended.FinishedAt.Add(time.Second)}}, ""},
		"stdout":        {corev1.PodLogOptions{Stream: ptr.To(corev1.LogStreamStdout)}, "one\ntwo\n"},
		"stderr":        {corev1.PodLogOptions{Stream: ptr.To(corev1.LogStreamStderr)}, "three\n"},
		"follow":        {corev1.PodLogOptions{Follow: true}, "one\ntwo\nthree\n"},
	} {
		if got := ran.logs(ran.id, &test.options); got != test.want {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
	for line := range strings.Lines(ran.logs(ran.id, &corev1.PodLogOptions{Timestamps: true})) {
		stamp, text, _ := strings.Cut(line, " ")
		if at, err := time.Parse(time.RFC3339Nano, stamp); err != nil || at.Before(ended.StartedAt.Add(-time.Second)) || !strings.HasSuffix(text, "\n") {
			t.Errorf("line %q: %v", line, err)
		}
	}
}

// TestFollow follows a log until the container ends, and until the reader stops.
func TestFollow(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	ran := start(t, r, podOf("log", "up", ";", "await", "/tmp/go", ";", "log", "gone"))
	ran.awaitLog("up")
	ctx, cancel := context.WithCancel(t.Context())
	given := make(chan error, 1)
	go func() {
		given <- r.Logs(ctx, ran.id, &corev1.PodLogOptions{Follow: true}, &bytes.Buffer{}, &bytes.Buffer{})
	}()
	cancel()
	if err := <-given; !errors.Is(err, context.Canceled) {
		t.Errorf("a reader that has enough gets %v", err)
	}
	var all bytes.Buffer
	go func() { given <- r.Logs(t.Context(), ran.id, &corev1.PodLogOptions{Follow: true}, &all, &all) }()
	if code, _, err := r.Exec(t.Context(), ran.id, []string{"/bin/tool", "write", "/tmp/go", ""}, patience); code != 0 || err != nil {
		t.Fatal(code, err)
	}
	if err := <-given; err != nil || all.String() != "up\ngone\n" {
		t.Errorf("%q, %v", all.String(), err)
	}
}

// TestLogEscape checks that nothing outside of the log directory is read, created, moved or removed through links and
// paths.
func TestLogEscape(t *testing.T) {
	t.Parallel()
	r := &Runtime{config: Config{LogDir: t.TempDir()}}
	const line = "2026-11-01T12:00:00Z stdout F x\n"
	away, beside := t.TempDir(), r.config.LogDir+"-beside"
	outside := writeFile(t, away, "0.log", line)
	inside := writeFile(t, r.config.LogDir, "0.log", line)
	link, dir := filepath.Join(r.config.LogDir, "1.log"), filepath.Join(r.config.LogDir, "linked")
	if err := errors.Join(os.Symlink(outside, link), os.Symlink(away, dir), os.Mkdir(beside, 0o700)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(beside) })
	for path, refused := range map[string]bool{
		inside: false, outside: true, link: true, filepath.Join(dir, "0.log"): true, writeFile(t, beside, "0.log", line): true, "": true, "/none": true,
		filepath.Join(r.config.LogDir, "..", filepath.Base(beside), "0.log"): true, r.config.LogDir: true,
	} {
		var out bytes.Buffer
		err := r.readLog(t.Context(), &runtimeapi.ContainerStatus{LogPath: path}, crilog.Options{Stdout: &out})
		if (err != nil) != refused || refused != (out.Len() == 0) {
			t.Errorf("%s: %q, %v", path, out.String(), err)
		}
	}
	logs, err := os.OpenRoot(r.config.LogDir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = logs.Close() }()
	if err := removeLog(logs, "linked/0.log"); err == nil {
		t.Error("a log that is elsewhere was removed")
	}
	if err := r.makeLogs(filepath.Join(dir, "main")); err == nil {
		t.Error("a directory was created outside")
	}
	if entries, err := os.ReadDir(away); err != nil || len(entries) != 1 || entries[0].Name() != "0.log" {
		t.Errorf("out there is %v, %v", entries, err)
	}
}

func TestRemovePodLogs(t *testing.T) {
	t.Parallel()
	r := &Runtime{config: Config{LogDir: filepath.Join(t.TempDir(), "logs")}}
	kept := filepath.Join(r.config.LogDir, "a_b_uid")
	if err := os.MkdirAll(filepath.Join(kept, "main"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, uid := range []types.UID{"", "/../..", "x/../../..", "x/y"} {
		if err := r.RemovePodLogs("a", "b", uid); err == nil {
			t.Errorf("%q is a pod's", uid)
		}
	}
	if err := r.RemovePodLogs("a", "b", "uid"); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(kept); !os.IsNotExist(err) {
		t.Errorf("%s is still there: %v", kept, err)
	}
}

func TestLoggedPods(t *testing.T) {
	t.Parallel()
	r := &Runtime{config: Config{LogDir: filepath.Join(t.TempDir(), "logs")}}
	if all, err := r.LoggedPods(); len(all) > 0 || err != nil {
		t.Errorf("without a directory: %+v, %v", all, err)
	}
	for _, name := range []string{"a_b.c_uid", "else", "a_b_", "a_b_c_d"} {
		if err := os.MkdirAll(filepath.Join(r.config.LogDir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	writeFile(t, r.config.LogDir, "a_b_file", "")
	if all, err := r.LoggedPods(); err != nil || len(all) != 1 || all[0].Namespace != "a" || all[0].Name != "b.c" || all[0].UID != "uid" {
		t.Errorf("%+v, %v", all, err)
	}
}

// TestStreams exchanges data with a command and with a container through the runtime's streaming server.
func TestStreams(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	pod := podOf("log", "up", ";", "echo-stdin")
	pod.Spec.Containers[0].Stdin, pod.Spec.Containers[0].StdinOnce = true, true
	ran := start(t, r, pod)
	ran.awaitLog("up")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	streams := podoptions.Streams{Stdin: true, Stdout: true, Stderr: true}
	location, err := r.ExecURL(ctx, ran.id, []string{"/bin/tool", "echo-stdin", ";", "exit", "4"}, streams)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := talk(ctx, t, location.String(), "to exec"); got != "to exec" || err == nil || !strings.Contains(err.Error(), "exit code 4") {
		t.Errorf("exec: %q, %v", got, err)
	}
	if location, err = r.AttachURL(ctx, ran.id, streams); err != nil {
		t.Fatal(err)
	}
	if got, err := talk(ctx, t, location.String(), "to attach"); got != "to attach" || err != nil {
		t.Errorf("attach: %q, %v", got, err)
	}
	if location, err = r.PortForwardURL(ctx, ran.sandbox, []int32{80}); err != nil || !strings.HasPrefix(location.Path, "/portforward/") {
		t.Errorf("port forward: %v, %v", location, err)
	}
	ran.await(ran.id, Exited)
}

func talk(ctx context.Context, t *testing.T, location, text string) (string, error) {
	t.Helper()
	request, err := http.NewRequest(http.MethodPost, location, nil)
	if err != nil {
		t.Fatal(err)
	}
	executor, err := remotecommand.NewSPDYExecutor(&rest.Config{Host: request.URL.Host}, http.MethodPost, request.URL)
	if err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer // written concurrently
	err = executor.StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: strings.NewReader(text), Stdout: &stdout, Stderr: &stderr})
	return stdout.String() + stderr.String(), err
}

func TestStreamURL(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "/exec/token", "http://%zz/token", "token"} {
		if got, err := streamURL(text); err == nil || strings.Contains(fmt.Sprint(err), "token") {
			t.Errorf("%q is %v, %v", text, got, err)
		}
	}
}

// TestRotateLogs checks that the log of a container with endless output stays within its bound.
func TestRotateLogs(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	pod := podOf("log", "one", ";", "echo-stdin")
	pod.Spec.Containers[0].Stdin = true
	ran := start(t, r, pod)
	ran.awaitLog("one")
	path := r.LogPath(pod, "main", 0)
	if err := r.rotateLogs(t.Context(), 1<<20); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path + ".1"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a short log was rotated: %v", err)
	}
	elsewhere, dir := t.TempDir(), filepath.Dir(path)
	writeFile(t, elsewhere, "0.log", "not a log")
	if err := errors.Join(os.Rename(dir, dir+".kept"), os.Symlink(elsewhere, dir)); err != nil {
		t.Fatal(err)
	}
	if err := r.rotateLogs(t.Context(), 1); err != nil {
		t.Errorf("where a link leads out of the log directory: %v", err)
	}
	if entries, err := os.ReadDir(elsewhere); err != nil || len(entries) != 1 || entries[0].Name() != "0.log" {
		t.Errorf("out there is %v, %v", entries, err)
	}
	if err := errors.Join(os.Remove(dir), os.Rename(dir+".kept", dir)); err != nil {
		t.Fatal(err)
	}
	if err := r.rotateLogs(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if old, err := os.ReadFile(path + ".1"); err != nil || !strings.Contains(string(old), "one") {
		t.Errorf("the previous part of the log: %q, %v", old, err)
	}
	eventually(t, "the runtime writes a new log", func(context.Context) bool {
		_, err := os.Stat(path)
		return err == nil
	})
	if log := ran.logs(ran.id, &corev1.PodLogOptions{}); log != "" {
		t.Errorf("the new log begins with %q", log)
	}
	if err := errors.Join(r.StopContainer(t.Context(), ran.id, 0), r.RemoveContainer(t.Context(), ran.id)); err != nil {
		t.Fatal(err)
	}
	for _, left := range []string{path, path + ".1"} {
		if _, err := os.Stat(left); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is left of a container that was removed: %v", left, err)
		}
	}
}
