package cli

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/kubectl/pkg/util/qos"
	"k8s.io/utils/clock"

	"lanyard.dev/internal/datadir"
	"lanyard.dev/internal/podvalidation"
)

func TestNamesKubeconfig(t *testing.T) {
	t.Parallel()
	tests := map[string]bool{
		"get sa":                            false,
		"get sa --kubeconfig f":             true,
		"--kubeconfig=f get sa":             true,
		"exec p -- cat --kubeconfig f":      false,
		"get sa --kubeconfigs":              false,
		"exec p --kubeconfig=f -- cat file": true,
	}
	for line, want := range tests {
		if got := namesKubeconfig(strings.Fields(line)); got != want {
			t.Errorf("%s: %v", line, got)
		}
	}
}

// isolate separates a test from the authorities and kubeconfigs of this machine. It changes the environment, so the test cannot be
// parallel.
func isolate(t *testing.T) {
	t.Helper()
	t.Setenv("LANYARD_RUNTIME_DIR", filepath.Join(t.TempDir(), "run"))
	t.Setenv(kubeconfigEnv, "")
	t.Setenv("HOME", t.TempDir())
}

// announce makes a data directory with a kubeconfig for an authority at url, and announces the authority.
func announce(t *testing.T, url string) *datadir.Dir {
	t.Helper()
	d, err := datadir.Open(filepath.Join(t.TempDir(), "data"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	certificates, err := d.EnsureCertificates("", clock.RealClock{})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.EnsureKubeconfig(url, certificates); err != nil {
		t.Fatal(err)
	}
	if err := d.Announce(url); err != nil {
		t.Fatal(err)
	}
	return d
}

// runKubectl runs kubectl in this process and returns its result.
func runKubectl(t *testing.T, args ...string) result {
	t.Helper()
	type ended struct{ code int }
	var out, errOut bytes.Buffer
	o := &kubectlOptions{
		streams: streams{in: strings.NewReader(""), out: &out, err: &errOut},
		args:    args,
		exit:    func(code int) { panic(ended{code}) },
	}
	code := 0
	if err := o.complete(); err != nil {
		return result{o.streams.report(err), out.String(), errOut.String()}
	}
	func() {
		defer func() {
			if end, ok := recover().(ended); ok {
				code = end.code
			}
		}()
		o.run()
	}()
	return result{code, out.String(), errOut.String()}
}

func TestKubectlFindsTheAuthority(t *testing.T) {
	isolate(t)
	d := announce(t, "https://127.0.0.1:1")
	got := runKubectl(t, "config", "current-context")
	if got.code != 0 || got.out != "lanyard\n" {
		t.Errorf("%+v", got)
	}
	if env := os.Getenv(kubeconfigEnv); env != d.Kubeconfig() {
		t.Errorf("kubectl uses %q", env)
	}
}

func TestKubectlPrefersWhatTheUserNames(t *testing.T) {
	isolate(t)
	announce(t, "https://127.0.0.1:1")
	file := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(file, []byte("apiVersion: v1\nkind: Config\ncurrent-context: mine\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := runKubectl(t, "config", "current-context", "--kubeconfig", file); got.out != "mine\n" {
		t.Errorf("flag: %+v", got)
	}
	t.Setenv(kubeconfigEnv, file)
	if got := runKubectl(t, "config", "current-context"); got.out != "mine\n" {
		t.Errorf("environment: %+v", got)
	}
}

func TestKubectlAsksWhichAuthority(t *testing.T) {
	isolate(t)
	first, second := announce(t, "https://127.0.0.1:1"), announce(t, "https://127.0.0.1:2")
	got := runKubectl(t, "get", "serviceaccounts")
	for _, want := range []string{first.Path(), second.Path(), "https://127.0.0.1:2", "hint: choose one, as with --kubeconfig "} {
		if !strings.Contains(got.errOut, want) {
			t.Errorf("%q does not contain %q", got.errOut, want)
		}
	}
	if got.code != exitFailure {
		t.Errorf("exit code %d", got.code)
	}
	if help := runKubectl(t, "get", "--help"); help.code != 0 || !strings.Contains(help.out, "lanyard kubectl") {
		t.Errorf("help: %+v", help)
	}
}

func TestKubectlExitCodesAndErrors(t *testing.T) {
	isolate(t)
	announce(t, "https://127.0.0.1:1")
	corrupt := filepath.Join(t.TempDir(), "corrupt")
	if err := os.WriteFile(corrupt, []byte("{corrupt"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		args []string
		code int
		want string
	}{
		"unknown flag":       {[]string{"get", "--foo"}, 1, "error: unknown flag: --foo\nSee 'lanyard kubectl get --help' for usage.\n"},
		"unknown command":    {[]string{"frobnicate"}, 1, "error: unknown command \"frobnicate\" for \"lanyard kubectl\"\n"},
		"diff":               {[]string{"diff"}, 2, "error: must specify one of -f and -k\n"},
		"version format":     {[]string{"version", "-o", "x"}, 1, "error: --output must be 'yaml' or 'json'\n"},
		"corrupt kubeconfig": {[]string{"get", "sa", "--kubeconfig", corrupt}, 1, "error: error loading config file \"" + corrupt + "\""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got := runKubectl(t, test.args...)
			if got.code != test.code || !strings.HasPrefix(got.errOut, test.want) {
				t.Errorf("%+v", got)
			}
		})
	}
}

// TestKubectlWithoutAServer expects one error and one hint, and no request to localhost.
func TestKubectlWithoutAServer(t *testing.T) {
	isolate(t)
	const none = "error: there is no server to connect to: no authority of this user runs on this machine\nhint: "
	for _, line := range []string{"get serviceaccounts", "create serviceaccount a", "api-resources", "get --raw /livez"} {
		got := runKubectl(t, strings.Fields(line)...)
		if got.code != 1 || got.out != "" || !strings.HasPrefix(got.errOut, none) || strings.Count(got.errOut, "\n") != 2 {
			t.Errorf("%s: %+v", line, got)
		}
	}
	if got := runKubectl(t, "config", "view", "-o", "name"); strings.Contains(got.errOut, "server") {
		t.Errorf("a command that needs no server: %+v", got)
	}
	const empty = "error: there is no server to connect to: the kubeconfig names none\nhint: name another kubeconfig with --kubeconfig or KUBECONFIG\n"
	if got := runKubectl(t, "get", "sa", "--kubeconfig", os.DevNull); got.code != 1 || got.errOut != empty {
		t.Errorf("an empty kubeconfig: %+v", got)
	}
	got := run("", "user", "kubeconfig", "jane")
	if want := "lanyard: " + strings.TrimPrefix(none, "error: "); got.code != exitFailure || !strings.HasPrefix(got.errOut, want) {
		t.Errorf("another command: %+v", got)
	}
}

func TestKubectlVersionIsThatOfTheLibraries(t *testing.T) {
	isolate(t)
	got := runKubectl(t, "version", "--client")
	if got.code != 0 || !strings.HasPrefix(got.out, "Client Version: v1.37") {
		t.Errorf("%+v", got)
	}
}

// TestQOSClassAsKubectl compares the QoS class that the authority sets for random pods with the one that kubectl computes. The
// test is in this package because modules that import lanyardtest must not require module kubectl.
func TestQOSClassAsKubectl(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	seen := map[corev1.PodQOSClass]int{}
	for range 20_000 {
		pod := randomPod(random)
		got, want := podvalidation.QOSClass(pod), qos.ComputePodQOS(pod)
		if got != want {
			t.Fatalf("got %s, want %s, of %+v", got, want, pod.Spec)
		}
		seen[want]++
	}
	for _, class := range []corev1.PodQOSClass{corev1.PodQOSBestEffort, corev1.PodQOSBurstable, corev1.PodQOSGuaranteed} {
		if seen[class] < 100 {
			t.Errorf("only %d pods of class %s were compared", seen[class], class)
		}
	}
}

// randomPod returns a pod with random resources. It uses few amounts and often repeats resources, so that requests often equal
// limits.
func randomPod(random *rand.Rand) *corev1.Pod {
	resources := randomResources(random)
	next := func() corev1.ResourceRequirements {
		if random.IntN(3) == 0 {
			resources = randomResources(random)
		}
		return resources
	}
	pod := &corev1.Pod{}
	if random.IntN(3) == 0 {
		resources := next()
		pod.Spec.Resources = &resources
	}
	for range random.IntN(2) {
		pod.Spec.InitContainers = append(pod.Spec.InitContainers, corev1.Container{Resources: next()})
	}
	for range random.IntN(4) {
		pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Resources: next()})
	}
	return pod
}

func randomResources(random *rand.Rand) corev1.ResourceRequirements {
	limits := randomList(random)
	requests := limits
	if random.IntN(2) == 0 {
		requests = randomList(random)
	}
	return corev1.ResourceRequirements{Requests: requests, Limits: limits}
}

func randomList(random *rand.Rand) corev1.ResourceList {
	list := corev1.ResourceList{}
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, "hugepages-2Mi", "example.com/gpu"} {
		if amounts := []string{"0", "1", "2", "2000m"}; random.IntN(2) == 0 {
			list[name] = resource.MustParse(amounts[random.IntN(len(amounts))])
		}
	}
	if random.IntN(3) == 0 {
		return nil
	}
	return list
}
