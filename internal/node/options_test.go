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
