package apiserver_test

import (
	"context"
	"errors"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"lanyard.dev/internal/apiserver"
	"lanyard.dev/internal/apiserver/api"
	"lanyard.dev/internal/apiserver/auditlog"
	"lanyard.dev/internal/apiserver/nodeclient"
)

// TestFailuresLeaveNothingOpen fails at each part of a server and then counts goroutines, open files and connections. It is not
// parallel, because it counts everything that the process has open.
func TestFailuresLeaveNothingOpen(t *testing.T) {
	s := newSite(t)
	signer, broken := newExternalSigner(t), s.file("broken")
	if err := os.WriteFile(broken, []byte("nothing that a server can use"), 0o600); err != nil {
		t.Fatal(err)
	}
	unencrypted := s.file("identity.yaml")
	if err := os.WriteFile(unencrypted, []byte(`{"apiVersion":"apiserver.config.k8s.io/v1","kind":"EncryptionConfiguration",
		"resources":[{"resources":["secrets"],"providers":[{"identity":{}}]}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name   string
		change func(*apiserver.Options)
		tables api.Tables // api.All if nil
	}{
		{name: "serving certificate", change: func(o *apiserver.Options) { o.TLSCertFile = broken }},
		{name: "client CA", change: func(o *apiserver.Options) { o.ClientCAFile = broken }},
		{name: "audit policy", change: func(o *apiserver.Options) {
			o.Audit = auditlog.Options{LogPath: s.file("audit.log"), PolicyFile: broken}
		}},
		{name: "encryption", change: func(o *apiserver.Options) { o.EncryptionProviderConfig = broken }},
		{name: "encryption without secrets, and keys in etcd", change: func(o *apiserver.Options) {
			o.EncryptionProviderConfig, o.ServiceAccounts.SigningKeyFiles = unencrypted, nil
		}},
		{name: "certificate for etcd", change: func(o *apiserver.Options) { o.Etcd.CertFile, o.Etcd.KeyFile = broken, broken }},
		{name: "certificate for the members of etcd", change: func(o *apiserver.Options) {
			o.Etcd = apiserver.Etcd{Servers: []string{"https://127.0.0.1:1", "https://127.0.0.1:2"}, CertFile: broken, KeyFile: broken}
		}},
		{name: "a table without secrets", tables: withoutSecrets()},
		{name: "certificate for nodes", change: func(o *apiserver.Options) {
			o.Nodes = nodeclient.Config{CertFile: broken, KeyFile: broken, CAFile: s.file("ca.crt")}
			o.Audit.LogPath = s.file("audit.log")
		}},
		{name: "certificate for nodes, with an external signer", change: func(o *apiserver.Options) {
			signWith(signer)(o)
			o.Nodes = nodeclient.Config{CertFile: broken, KeyFile: broken, CAFile: s.file("ca.crt")}
		}},
		{name: "an external signer whose tokens live too short", change: func(o *apiserver.Options) {
			signWith(signer)(o)
			o.ServiceAccounts.MaxTokenExpiration = time.Hour
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			leavesNothingOpen(t, func(o apiserver.Options) {
				if test.change != nil {
					test.change(&o)
				}
				tables := test.tables
				if tables == nil {
					tables = api.All()
				}
				if _, err := apiserver.NewWith(o, tables); err == nil {
					t.Error("a server was made")
				}
				_ = o.Listener.Close()
			}, s)
		})
	}
	t.Run("end before the stored objects were read", func(t *testing.T) {
		leavesNothingOpen(t, func(o apiserver.Options) {
			o.Audit.LogPath = s.file("audit.log")
			server, err := apiserver.New(o)
			if err != nil {
				t.Fatal(err)
			}
			ctx, stop := context.WithCancel(t.Context())
			stop()
			if err := server.Run(ctx); err == nil {
				t.Error("the server ran")
			}
		}, s)
	})
}

// withoutSecrets returns the tables without the entry of secrets, whose store the server uses.
func withoutSecrets() api.Tables {
	tables := api.All()
	for _, group := range tables {
		for i := range group.Versions {
			kept := group.Versions[i].Resources[:0:0]
			for _, r := range group.Versions[i].Resources {
				if r.Name != "secrets" {
					kept = append(kept, r)
				}
			}
			group.Versions[i].Resources = kept
		}
	}
	return tables
}

// leavesNothingOpen checks that as many goroutines and files are open after use as before.
func leavesNothingOpen(t *testing.T, use func(apiserver.Options), s *site) {
	t.Helper()
	before, files := serverGoroutines(), openFiles(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	use(s.options(listener))
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(4 * time.Second); len(serverGoroutines()) > len(before) || openFiles(t) > files; <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("open files: %d, then %d; goroutines: %d, then %d:\n%s", files, openFiles(t), len(before), len(serverGoroutines()), strings.Join(serverGoroutines(), "\n\n"))
		}
	}
}

// serverGoroutines returns the stacks of the goroutines of the libraries that servers use. It leaves out klog, which flushes the
// log for the whole process, and the timers of reads that waited for a watch cache, which end after three seconds.
func serverGoroutines() []string {
	stacks := make([]byte, 4<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	return slices.DeleteFunc(strings.Split(string(stacks), "\n\n"), func(stack string) bool {
		return !strings.Contains(stack, "\nk8s.io/") && !strings.Contains(stack, "\ngo.etcd.io/") && !strings.Contains(stack, "\ngoogle.golang.org/grpc") ||
			strings.Contains(stack, "\nk8s.io/klog/") || strings.Contains(stack, "waitUntilFreshLocked")
	})
}

// openFiles returns the number of open files and connections, or 0 if the operating system does not report it.
func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if errors.Is(err, os.ErrNotExist) {
		return 0
	}
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
