package node

import (
	"strings"
	"testing"
)

func valid() Options {
	return Options{
		Kubeconfig: "k", NodeName: "edge-7", RootDir: "/r", MaxPods: 10, RuntimeEndpoint: "unix:///run/c.sock", CgroupDriver: "cgroupfs",
		Labels: map[string]string{"rack": "4"},
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	if o := valid(); o.Validate() != nil {
		t.Fatal(o.Validate())
	}
	for want, mutate := range map[string]func(*Options){
		"one of --kubeconfig and --bootstrap-kubeconfig": func(o *Options) { o.BootstrapKubeconfig = "b" },
		"--bootstrap-kubeconfig is required":             func(o *Options) { o.Kubeconfig = "" },
		"--node-name \"Edge\"":                           func(o *Options) { o.NodeName = "Edge" },
		"--root-dir":                                     func(o *Options) { o.RootDir = "" },
		"--root-dir \"agent\"":                           func(o *Options) { o.RootDir = "agent" },
		"--max-pods 0":                                   func(o *Options) { o.MaxPods = 0 },
		"--port 70000":                                   func(o *Options) { o.Port = 70000 },
		"--container-runtime-endpoint \"tcp://x\"":       func(o *Options) { o.RuntimeEndpoint = "tcp://x" },
		"--cgroup-driver \"cgroupsd\"":                   func(o *Options) { o.CgroupDriver = "cgroupsd" },
		"--tls-cert-file and --tls-private-key-file":     func(o *Options) { o.ServingCertFile = "c" },
		"--node-labels a b=":                             func(o *Options) { o.Labels = map[string]string{"a b": ""} },
		"--node-labels a=b c":                            func(o *Options) { o.Labels = map[string]string{"a": "b c"} },
	} {
		o := valid()
		mutate(&o)
		if err := o.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", want, err)
		}
	}
	if err := (&Options{}).Validate(); strings.Count(err.Error(), "\n") < 4 {
		t.Errorf("not every fault at once: %v", err)
	}
}

func TestParseAuthority(t *testing.T) {
	t.Parallel()
	for server, want := range map[string]string{
		"https://127.0.0.1:6443": "127.0.0.1:6443", "https://authority.example.com": "authority.example.com:443",
		"https://[::1]:6443/": "[::1]:6443", "not a url": "", "": "", "/path": "",
	} {
		a, err := parseAuthority(server)
		if want == "" && err == nil || want != "" && a.address() != want {
			t.Errorf("%q: got %v, %v; want %q", server, a, err, want)
		}
	}
	env := map[string]string{}
	for _, e := range (authority{"10.0.0.1", "6443"}).env() {
		env[e.Name] = e.Value
	}
	for name, want := range map[string]string{
		"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "6443", "KUBERNETES_PORT_6443_TCP_ADDR": "10.0.0.1",
		"KUBERNETES_PORT": "tcp://10.0.0.1:6443",
	} {
		if env[name] != want {
			t.Errorf("%s is %q, want %q", name, env[name], want)
		}
	}
}
