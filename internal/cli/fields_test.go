package cli

import (
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"lanyard.dev/internal/apiserver"
	"lanyard.dev/internal/apiserver/auditlog"
	"lanyard.dev/internal/apiserver/nodeclient"
	"lanyard.dev/internal/node"
	"lanyard.dev/internal/token"
)

// fieldPaths returns the paths of the fields of a struct, in lower case.
func fieldPaths(of reflect.Type, parent string) []string {
	var paths []string
	for _, f := range reflect.VisibleFields(of) {
		path := parent + strings.ToLower(f.Name)
		if f.Type.Kind() == reflect.Struct {
			paths = append(paths, fieldPaths(f.Type, path+".")...)
		} else {
			paths = append(paths, path)
		}
	}
	return paths
}

// checkFlags compares the flags of a library's options with the options themselves and with the flags of the command.
func checkFlags(t *testing.T, table fieldFlags, options any, flags *pflag.FlagSet) {
	t.Helper()
	var known []string
	for path, flag := range table {
		known = append(known, strings.ToLower(path))
		if flag != "" && flags.Lookup(flag) == nil {
			t.Errorf("%s: the command has no flag --%s", path, flag)
		}
	}
	slices.Sort(known)
	paths := slices.Sorted(slices.Values(fieldPaths(reflect.TypeOf(options), "")))
	for _, path := range paths {
		if !slices.Contains(known, path) {
			t.Errorf("the table has no entry for %s", path)
		}
	}
	for _, path := range known {
		if !slices.Contains(paths, path) {
			t.Errorf("the table has %s, which is not an option", path)
		}
	}
}

// checkFaults expects that each fault is of a field that has a flag.
func checkFaults(t *testing.T, table fieldFlags, faults field.ErrorList) {
	t.Helper()
	for _, fault := range faults {
		path, _, _ := strings.Cut(fault.Field, "[")
		text := table.text(fault)
		if table[path] == "" || !strings.Contains(text, "--"+table[path]) || strings.Contains(text, "`") {
			t.Errorf("%v\nis worded as: %s", fault, text)
		}
	}
}

// faultyAuthorities are options that together have every fault that Validate reports.
func faultyAuthorities() []apiserver.Options {
	return []apiserver.Options{
		{}, {
			ShutdownDelay: -1, Etcd: apiserver.Etcd{CertFile: "c"},
			ServiceAccounts: apiserver.ServiceAccounts{
				Issuers: []string{"ok", "http://a"}, JWKSURI: "http://b", MaxTokenExpiration: 1,
				AudienceAlgorithms: token.AlgorithmPolicy{"": "ES256", "vault": "HS256"},
				SigningEndpoint:    "s", SigningKeyFiles: []string{"k"}, KeyFiles: []string{"k"},
			},
			Signing: apiserver.Signing{ServingCertFile: "c", Duration: 1},
			Audit:   auditlog.Options{PolicyFile: "p", Mode: "lax", MaxAge: -1, MaxBackups: -1, MaxSize: -1},
			Nodes:   nodeclient.Config{CertFile: "c"},
		}, {
			Etcd: apiserver.Etcd{KeyFile: "k"}, Signing: apiserver.Signing{CertFile: "c", ServingKeyFile: "k"},
			Nodes: nodeclient.Config{KeyFile: "k", CAFile: "c"},
		}, {
			Signing: apiserver.Signing{KeyFile: "k"},
		},
	}
}

// TestEveryFieldHasItsFlag covers every field, and so every path that Validate can return.
func TestEveryFieldHasItsFlag(t *testing.T) {
	t.Parallel()
	checkFlags(t, authorityFlags, apiserver.Options{}, newServe(streams{}).Flags())
	var paths []string
	for _, o := range faultyAuthorities() {
		faults := o.Validate()
		checkFaults(t, authorityFlags, faults)
		for _, fault := range faults {
			paths = append(paths, fault.Field)
		}
	}
	slices.Sort(paths)
	if paths = slices.Compact(paths); len(paths) < 20 {
		t.Errorf("only %d fields have faults: %v", len(paths), paths)
	}
	common := maps.Clone(authorityFlags)
	up := newUp(streams{}).Flags()
	maps.DeleteFunc(common, func(path, flag string) bool { return up.Lookup(flag) == nil })
	checkFaults(t, common, (&apiserver.ServiceAccounts{Issuers: []string{""}, JWKSURI: ":", MaxTokenExpiration: -1}).Validate(field.NewPath("serviceAccounts")))
	checkFaults(t, common, auditlog.Options{Mode: "lax"}.Validate(field.NewPath("audit")))
}

// TestFaultsOfTheAgent checks the text of each fault of an agent's options.
func TestFaultsOfTheAgent(t *testing.T) {
	t.Parallel()
	checkFlags(t, agentFlags, node.Options{}, newAgent(streams{}).Flags())
	valid := node.Options{
		Kubeconfig: "k", NodeName: "edge-7", RootDir: "/r", MaxPods: 10, RuntimeEndpoint: "unix:///run/c.sock", CgroupDriver: "cgroupfs",
		Labels: map[string]string{"rack": "4"},
	}
	if err := agentFlags.errorOf(valid.Validate()); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*node.Options){
		"one of --kubeconfig and --bootstrap-kubeconfig": func(o *node.Options) { o.BootstrapKubeconfig = "b" },
		"--bootstrap-kubeconfig is required":             func(o *node.Options) { o.Kubeconfig = "" },
		"--node-name \"Edge\"":                           func(o *node.Options) { o.NodeName = "Edge" },
		"--root-dir":                                     func(o *node.Options) { o.RootDir = "" },
		"--root-dir \"agent\"":                           func(o *node.Options) { o.RootDir = "agent" },
		"--max-pods 0":                                   func(o *node.Options) { o.MaxPods = 0 },
		"--port 70000":                                   func(o *node.Options) { o.Port = 70000 },
		"--container-runtime-endpoint \"tcp://x\"":       func(o *node.Options) { o.RuntimeEndpoint = "tcp://x" },
		"--cgroup-driver \"cgroupsd\"":                   func(o *node.Options) { o.CgroupDriver = "cgroupsd" },
		"--tls-cert-file and --tls-private-key-file":     func(o *node.Options) { o.ServingCertFile = "c" },
		"--node-labels a b=":                             func(o *node.Options) { o.Labels = map[string]string{"a b": ""} },
		"--node-labels a=b c":                            func(o *node.Options) { o.Labels = map[string]string{"a": "b c"} },
	} {
		o := valid
		change(&o)
		if err := agentFlags.errorOf(o.Validate()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", want, err)
		}
		checkFaults(t, agentFlags, o.Validate())
	}
	if err := agentFlags.errorOf((&node.Options{}).Validate()); strings.Count(err.Error(), "\n") < 4 {
		t.Errorf("not every fault at once: %v", err)
	}
	up := maps.Clone(agentFlags)
	maps.DeleteFunc(up, func(path, flag string) bool { return newUp(streams{}).Flags().Lookup(flag) == nil })
	checkFaults(t, up, (&node.Options{CgroupDriver: "x", RuntimeEndpoint: "x"}).ValidateMachine())
}

func TestFaultsNameFlags(t *testing.T) {
	t.Parallel()
	table := fieldFlags{"port": "port", "names": "name", "labels": "node-labels", "tls.cert": "tls-cert-file", "tls.key": "tls-private-key-file", "listener": ""}
	port, names, labels := field.NewPath("port"), field.NewPath("names"), field.NewPath("labels")
	for want, fault := range map[string]*field.Error{
		"--port 70000: must be at most 65535":                    field.Invalid(port, 70000, "must be at most 65535"),
		"--port 1m0s: is a duration":                             field.Invalid(port, time.Minute, "is a duration"),
		`--name "A": must be lower case`:                         field.Invalid(names, "A", "must be lower case"),
		`--name "B": must be lower case`:                         field.Invalid(names.Index(1), "B", "must be lower case"),
		"--node-labels a b=c: not a name":                        field.Invalid(labels.Key("a b"), "c", "not a name"),
		"--name is required":                                     field.Required(names, ""),
		"--name is required: --port is set":                      field.Required(names, "`port` is set"),
		"--tls-cert-file and --tls-private-key-file go together": field.Required(field.NewPath("tls", "key"), "`tls.cert` and `tls.key` go together"),
		`listener "x": has no flag`:                              field.Invalid(field.NewPath("listener"), "x", "has no flag"),
		`--name "C": must not be given with --node-labels`:       field.Invalid(names, "C", "must not be given with `labels`"),
	} {
		if got := table.text(fault); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
	if err := table.errorOf(nil); err != nil {
		t.Errorf("no fault: %v", err)
	}
	if err := table.errorOf(field.ErrorList{field.Required(port, ""), field.Required(names, "")}); err.Error() != "--port is required\n--name is required" {
		t.Errorf("two faults: %v", err)
	}
}
