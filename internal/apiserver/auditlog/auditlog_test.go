package auditlog_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	authnv1 "k8s.io/api/authentication/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	auditinternal "k8s.io/apiserver/pkg/apis/audit"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"lanyard.dev/internal/apiserver/api"
	"lanyard.dev/internal/apiserver/auditlog"
)

const everything = `apiVersion: audit.k8s.io/v1
kind: Policy
rules:
- level: RequestResponse
`

func open(t *testing.T, policy string) (*auditlog.Log, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "log", "audit.log")
	o := auditlog.Options{LogPath: path}
	if policy != "" {
		o.PolicyFile = write(t, policy)
	}
	log, err := auditlog.Open(o, api.All().Credentials())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := log.Close(); err != nil {
			t.Error(err)
		}
	})
	return log, path
}

func write(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestNoPolicyLogsCredentials checks that no policy raises a request whose body carries a token or a secret value above level
// Metadata.
func TestNoPolicyLogsCredentials(t *testing.T) {
	t.Parallel()
	log, _ := open(t, everything)
	quiet, _ := open(t, "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- level: None\n")
	for _, test := range []struct {
		name, group, resource, subresource string
		want                               auditinternal.Level
	}{
		{"secrets", "", "secrets", "", auditinternal.LevelMetadata},
		{"some subresource of secrets", "", "secrets", "status", auditinternal.LevelMetadata},
		{"token requests", "", "serviceaccounts", "token", auditinternal.LevelMetadata},
		{"token reviews", "authentication.k8s.io", "tokenreviews", "", auditinternal.LevelMetadata},
		{"accounts", "", "serviceaccounts", "", auditinternal.LevelRequestResponse},
		{"pods", "", "pods", "", auditinternal.LevelRequestResponse},
		{"token of something else", "", "pods", "token", auditinternal.LevelRequestResponse},
	} {
		for _, verb := range []string{"create", "get", "list", "watch", "update", "patch", "delete", "deletecollection"} {
			attributes := authorizer.AttributesRecord{
				User: &user.DefaultInfo{Name: "x"}, Verb: verb, APIGroup: test.group, Resource: test.resource,
				Subresource: test.subresource, Namespace: "ns", ResourceRequest: true,
			}
			if got := log.Policy.EvaluatePolicyRule(attributes).Level; got != test.want {
				t.Errorf("%s %s: level %s, want %s", verb, test.name, got, test.want)
			}
			if got := quiet.Policy.EvaluatePolicyRule(attributes).Level; got != auditinternal.LevelNone {
				t.Errorf("%s %s: level %s, want None, the level in the policy", verb, test.name, got)
			}
		}
	}
}

// TestDefaultPolicy checks that every request is logged once, at level Metadata.
func TestDefaultPolicy(t *testing.T) {
	t.Parallel()
	log, _ := open(t, "")
	for _, attributes := range []authorizer.AttributesRecord{
		{User: &user.DefaultInfo{Name: "x"}, Verb: "get", Resource: "pods", ResourceRequest: true},
		{User: &user.DefaultInfo{Name: "system:anonymous"}, Verb: "get", Path: "/healthz"},
	} {
		config := log.Policy.EvaluatePolicyRule(attributes)
		if config.Level != auditinternal.LevelMetadata {
			t.Errorf("%+v: level %s", attributes, config.Level)
		}
		if len(config.OmitStages) != 1 || config.OmitStages[0] != auditinternal.StageRequestReceived {
			t.Errorf("%+v: omits %v, want one line for each request", attributes, config.OmitStages)
		}
	}
}

// TestLines checks that each event is a line of JSON in version v1.
func TestLines(t *testing.T) {
	t.Parallel()
	log, path := open(t, "")
	for _, stage := range []auditinternal.Stage{auditinternal.StageResponseComplete, auditinternal.StagePanic} {
		ok := log.Backend.ProcessEvents(&auditinternal.Event{
			Level: auditinternal.LevelMetadata, AuditID: "a", Stage: stage, Verb: "create", User: userInfo(),
			Annotations:   map[string]string{"authentication.kubernetes.io/issued-credential-id": "JTI=1"},
			RequestObject: &runtime.Unknown{},
		})
		if !ok {
			t.Error("the event was not written")
		}
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	if len(lines) != 2 {
		t.Fatalf("want a line for each event, got %q", lines)
	}
	var event struct {
		Kind, APIVersion, Stage string
		Annotations             map[string]string
	}
	if err := json.Unmarshal([]byte(lines[0]), &event); err != nil {
		t.Fatal(err)
	}
	if event.Kind != "Event" || event.APIVersion != "audit.k8s.io/v1" || event.Stage != "ResponseComplete" ||
		event.Annotations["authentication.kubernetes.io/issued-credential-id"] != "JTI=1" {
		t.Errorf("got %+v", event)
	}
}

func userInfo() authnv1.UserInfo { return authnv1.UserInfo{Username: "x"} }

// TestFilesArePrivate checks the modes of the file and of its directory.
func TestFilesArePrivate(t *testing.T) {
	t.Parallel()
	_, path := open(t, "")
	for name, want := range map[string]os.FileMode{path: 0o600, filepath.Dir(path): 0o700} {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s has mode %o, want %o", filepath.Base(name), got, want)
		}
	}
}

// TestRotatedFilesArePrivate checks the modes of files after a rotation.
func TestRotatedFilesArePrivate(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "audit.log")
	log, err := auditlog.Open(auditlog.Options{LogPath: path, MaxSize: 1}, api.All().Credentials())
	if err != nil {
		t.Fatal(err)
	}
	event := &auditinternal.Event{Level: auditinternal.LevelMetadata, RequestURI: "/" + strings.Repeat("x", 600<<10)}
	for range 3 {
		log.Backend.ProcessEvents(event)
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(filepath.Dir(path), "*.log"))
	if err != nil || len(files) < 2 {
		t.Fatalf("no rotation: %v, %v", files, err)
	}
	for _, file := range files {
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", filepath.Base(file), info.Mode(), err)
		}
	}
}

// TestOff checks that there is no log without a path.
func TestOff(t *testing.T) {
	t.Parallel()
	log, err := auditlog.Open(auditlog.Options{}, api.All().Credentials())
	if log != nil || err != nil {
		t.Errorf("got %v, %v", log, err)
	}
	if err := log.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}

// TestFaults checks the errors of policies and paths that cannot be used.
func TestFaults(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	fresh := filepath.Join(dir, "fresh.log")
	for _, test := range []struct {
		name    string
		options auditlog.Options
		want    string
	}{
		{"missing policy", auditlog.Options{LogPath: fresh, PolicyFile: filepath.Join(dir, "nowhere")}, "read audit policy: "},
		{"no YAML", auditlog.Options{LogPath: fresh, PolicyFile: write(t, "\tnot: [yaml")}, "read audit policy: "},
		{"no rules", auditlog.Options{LogPath: fresh, PolicyFile: write(t, "apiVersion: audit.k8s.io/v1\nkind: Policy\n")}, "read audit policy: "},
		{"no such level", auditlog.Options{LogPath: fresh, PolicyFile: write(t, strings.Replace(everything, "RequestResponse", "Everything", 1))}, "read audit policy: "},
		{"another kind", auditlog.Options{LogPath: fresh, PolicyFile: write(t, strings.Replace(everything, "Policy", "Pod", 1))}, "read audit policy: "},
		{"a directory", auditlog.Options{LogPath: dir}, "open audit log " + dir + ": "},
		{"below a file", auditlog.Options{LogPath: filepath.Join(file, "audit.log")}, "open audit log " + file},
	} {
		t.Run(test.name, func(t *testing.T) {
			log, err := auditlog.Open(test.options, api.All().Credentials())
			if err == nil || !strings.HasPrefix(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, %v, want one line that starts %q", log, err, test.want)
			}
		})
	}
	if _, err := os.Stat(fresh); err == nil {
		t.Error("a log file exists although the policy has a fault")
	}
}

// TestValidate checks that all faults are returned at once.
func TestValidate(t *testing.T) {
	t.Parallel()
	if errs := (auditlog.Options{LogPath: "-", PolicyFile: "p", MaxAge: 1, Mode: auditlog.BlockingStrict}).Validate(field.NewPath("audit")); len(errs) > 0 {
		t.Errorf("good options: %v", errs)
	}
	errs := auditlog.Options{PolicyFile: "p", MaxAge: -1, MaxBackups: -1, MaxSize: -1, Mode: "lax"}.Validate(field.NewPath("audit"))
	if len(errs) != 5 {
		t.Errorf("want every fault at once, got %v", errs)
	}
}

// TestClosedStaysClosed checks that an event after Close does not create the file again.
func TestClosedStaysClosed(t *testing.T) {
	t.Parallel()
	log, path := open(t, everything)
	event := &auditinternal.Event{Level: auditinternal.LevelMetadata, Verb: "get"}
	log.Backend.ProcessEvents(event)
	if text, err := os.ReadFile(path); err != nil || len(text) == 0 {
		t.Fatalf("the event was not logged: %v", err)
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	log.Backend.ProcessEvents(event)
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the file exists again: %v", err)
	}
}
