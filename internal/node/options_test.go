package node

import (
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
	if o := valid(); len(o.Validate()) > 0 {
		t.Fatal(o.Validate())
	}
	for name, test := range map[string]struct {
		change func(*Options)
		want   string // the fault
	}{
		"two kubeconfigs": {func(o *Options) { o.BootstrapKubeconfig = "b" }, "kubeconfig: Required value: one of `kubeconfig` and `bootstrapKubeconfig` is required"},
		"no kubeconfig":   {func(o *Options) { o.Kubeconfig = "" }, "kubeconfig: Required value: one of `kubeconfig` and `bootstrapKubeconfig` is required"},
		"no directory":    {func(o *Options) { o.RootDir = "" }, `rootDir: Invalid value: "": must be an absolute path`},
		"relative":        {func(o *Options) { o.RootDir = "agent" }, `rootDir: Invalid value: "agent": must be an absolute path`},
		"no pods":         {func(o *Options) { o.MaxPods = 0 }, "maxPods: Invalid value: 0: must be at least 1"},
		"port":            {func(o *Options) { o.Port = 70000 }, "port: Invalid value: 70000: must be 0 to 65535"},
		"endpoint":        {func(o *Options) { o.RuntimeEndpoint = "tcp://x" }, `runtimeEndpoint: Invalid value: "tcp://x": must be a socket as unix:///run/containerd/containerd.sock`},
		"cgroup driver":   {func(o *Options) { o.CgroupDriver = "cgroupsd" }, `cgroupDriver: Invalid value: "cgroupsd": must be cgroupfs or systemd`},
		"certificate":     {func(o *Options) { o.ServingCertFile = "c" }, "servingCertFile: Required value: `servingCertFile` and `servingKeyFile` go together"},
	} {
		o := valid()
		test.change(&o)
		if faults := o.Validate(); len(faults) != 1 || faults[0].Error() != test.want {
			t.Errorf("%s: got %v, want %s", name, faults, test.want)
		}
	}
	for path, change := range map[string]func(*Options){
		"nodeName":      func(o *Options) { o.NodeName = "Edge" },
		"labels[a b]":   func(o *Options) { o.Labels = map[string]string{"a b": ""} },
		"labels[a]":     func(o *Options) { o.Labels = map[string]string{"a": "b c"} },
		"labels[a[b]c]": func(o *Options) { o.Labels = map[string]string{"a[b]c": ""} },
	} {
		o := valid()
		change(&o)
		if faults := o.Validate(); len(faults) != 1 || faults[0].Field != path || faults[0].Detail == "" {
			t.Errorf("%s: got %v", path, faults)
		}
	}
	if faults := (&Options{}).Validate(); len(faults) < 5 {
		t.Errorf("not every fault at once: %v", faults)
	}
}
