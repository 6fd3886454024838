package secret_test

import (
	"bytes"
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/utils/ptr"

	"lanyard.dev/internal/apiserver/registry/fieldtest"
	"lanyard.dev/internal/apiserver/registry/secret"
	"lanyard.dev/internal/nodeaccess"
)

var now = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func valid() *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "db", Namespace: "shop", ResourceVersion: "1"},
		Type:       corev1.SecretTypeOpaque,
		Data:       map[string][]byte{"password": []byte("hunter2")},
	}
}

func of(kind corev1.SecretType, data map[string]string) func(*corev1.Secret) {
	return func(s *corev1.Secret) {
		s.Type, s.Data = kind, map[string][]byte{}
		for key, value := range data {
			s.Data[key] = []byte(value)
		}
	}
}

func required(path string) []fieldtest.Fault {
	return []fieldtest.Fault{fieldtest.Required(path, "")}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	const redacted = `"<secret contents redacted>"`
	for _, test := range []struct {
		name   string
		mutate func(*corev1.Secret)
		want   []fieldtest.Fault
	}{
		{"opaque", func(*corev1.Secret) {}, nil},
		{"own type", of("example.com/anything", nil), nil},
		{"bootstrap token", of(corev1.SecretTypeBootstrapToken, nil), nil},
		{"name", func(s *corev1.Secret) { s.Name = "DB" },
			[]fieldtest.Fault{fieldtest.Invalid("metadata.name", "RFC 1123 subdomain")}},
		{"key", func(s *corev1.Secret) { s.Data["a b"] = nil },
			[]fieldtest.Fault{fieldtest.Invalid("data[a b]", "a valid config key must consist of")}},
		{"key of dots", func(s *corev1.Secret) { s.Data[".."] = nil },
			[]fieldtest.Fault{fieldtest.Invalid("data[..]", "must not be '..'")}},
		{"largest", func(s *corev1.Secret) { s.Data = map[string][]byte{"a": make([]byte, 1<<20)} }, nil},
		{"too large together", func(s *corev1.Secret) { s.Data = map[string][]byte{"a": make([]byte, 1<<20), "b": {0}} },
			[]fieldtest.Fault{fieldtest.TooLong("data", "may not be more than 1048576 bytes")}},
		{"account token", func(s *corev1.Secret) {
			s.Type, s.Annotations = corev1.SecretTypeServiceAccountToken, map[string]string{corev1.ServiceAccountNameKey: "bot"}
		}, nil},
		{"account token without account", of(corev1.SecretTypeServiceAccountToken, nil),
			required("metadata.annotations[kubernetes.io/service-account.name]")},
		{"eviction elsewhere", of(nodeaccess.EvictionType, map[string]string{"node": "n"}),
			[]fieldtest.Fault{fieldtest.Forbidden("type", "it must be in namespace kube-system")}},
		{"eviction", func(s *corev1.Secret) { *s = *nodeaccess.NewEviction("n"); s.Name = "e" }, nil},
		{"eviction without a node", func(s *corev1.Secret) { *s = *nodeaccess.NewEviction(""); s.Name = "e" },
			[]fieldtest.Fault{fieldtest.Forbidden("type", "must name the node")}},
		{"eviction with an invalid name", func(s *corev1.Secret) { *s = *nodeaccess.NewEviction("N 1"); s.Name = "e" },
			[]fieldtest.Fault{fieldtest.Forbidden("type", "is not the name of a node")}},
		{"dockercfg", of(corev1.SecretTypeDockercfg, map[string]string{".dockercfg": `{"a":{"auth":"x"}}`}), nil},
		{"dockercfg missing", of(corev1.SecretTypeDockercfg, nil), required("data[.dockercfg]")},
		{"dockercfg malformed", of(corev1.SecretTypeDockercfg, map[string]string{".dockercfg": "hunter2"}),
			[]fieldtest.Fault{fieldtest.Invalid("data[.dockercfg]", redacted+": must be a JSON object: syntax error at byte 1")}},
		{"dockerconfigjson", of(corev1.SecretTypeDockerConfigJson, map[string]string{".dockerconfigjson": `{"auths":{}}`}), nil},
		{"dockerconfigjson missing", of(corev1.SecretTypeDockerConfigJson, nil), required("data[.dockerconfigjson]")},
		{"dockerconfigjson list", of(corev1.SecretTypeDockerConfigJson, map[string]string{".dockerconfigjson": "[7]"}),
			[]fieldtest.Fault{fieldtest.Invalid("data[.dockerconfigjson]", redacted+": must be a JSON object")}},
		{"basic-auth user", of(corev1.SecretTypeBasicAuth, map[string]string{"username": ""}), nil},
		{"basic-auth password", of(corev1.SecretTypeBasicAuth, map[string]string{"password": "x"}), nil},
		{"basic-auth neither", of(corev1.SecretTypeBasicAuth, nil),
			append(required("data[username]"), required("data[password]")...)},
		{"ssh-auth", of(corev1.SecretTypeSSHAuth, map[string]string{"ssh-privatekey": "x"}), nil},
		{"ssh-auth empty", of(corev1.SecretTypeSSHAuth, map[string]string{"ssh-privatekey": ""}), required("data[ssh-privatekey]")},
		{"tls", of(corev1.SecretTypeTLS, map[string]string{"tls.crt": "", "tls.key": ""}), nil},
		{"tls neither", of(corev1.SecretTypeTLS, nil), append(required("data[tls.crt]"), required("data[tls.key]")...)},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := valid()
			test.mutate(s)
			fieldtest.Check(t, secret.Validate(s), test.want...)
		})
	}
}

func TestValidateUpdate(t *testing.T) {
	t.Parallel()
	const immutable = "field is immutable when `immutable` is set"
	for _, test := range []struct {
		name   string
		sealed bool
		mutate func(*corev1.Secret)
		want   []fieldtest.Fault
	}{
		{"data", false, func(s *corev1.Secret) { s.Data["password"] = []byte("new") }, nil},
		{"seal", false, func(s *corev1.Secret) { s.Immutable = ptr.To(true) }, nil},
		{"type", false, func(s *corev1.Secret) { s.Type = "example.com/x" },
			[]fieldtest.Fault{fieldtest.Invalid("type", `"example.com/x": field is immutable`)}},
		{"sealed label", true, func(s *corev1.Secret) { s.Labels = map[string]string{"a": "b"} }, nil},
		{"sealed data", true, func(s *corev1.Secret) { s.Data["password"] = []byte("new") },
			[]fieldtest.Fault{fieldtest.Forbidden("data", immutable)}},
		{"sealed key added", true, func(s *corev1.Secret) { s.Data["more"] = nil },
			[]fieldtest.Fault{fieldtest.Forbidden("data", immutable)}},
		{"unseal", true, func(s *corev1.Secret) { s.Immutable = nil },
			[]fieldtest.Fault{fieldtest.Forbidden("immutable", immutable)}},
		{"unseal with false", true, func(s *corev1.Secret) { s.Immutable = ptr.To(false) },
			[]fieldtest.Fault{fieldtest.Forbidden("immutable", immutable)}},
		{"new fault", false, func(s *corev1.Secret) { s.Data["a/b"] = nil },
			[]fieldtest.Fault{fieldtest.Invalid("data[a/b]", "a valid config key")}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			old := valid()
			old.Immutable = ptr.To(test.sealed)
			updated := old.DeepCopy()
			test.mutate(updated)
			fieldtest.Check(t, secret.ValidateUpdate(updated, old), test.want...)
		})
	}
}

func TestNoFaultQuotesAValue(t *testing.T) {
	t.Parallel()
	const value = "hunter2"
	for _, kind := range []corev1.SecretType{corev1.SecretTypeDockercfg, corev1.SecretTypeDockerConfigJson, corev1.SecretTypeTLS} {
		s := valid()
		of(kind, map[string]string{".dockercfg": value, ".dockerconfigjson": value, "bad key": value})(s)
		old := valid()
		old.Immutable = ptr.To(true)
		errs := secret.ValidateUpdate(s, old)
		if len(errs) < 4 {
			t.Errorf("%s: only %d faults", kind, len(errs))
		}
		if text := errs.ToAggregate().Error(); strings.Contains(text, value) {
			t.Errorf("%s: %s", kind, text)
		}
	}
}

func TestSetDefaults(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name     string
		in, want *corev1.Secret
	}{
		{"empty", &corev1.Secret{}, &corev1.Secret{Type: "Opaque"}},
		{"type kept", &corev1.Secret{Type: "x"}, &corev1.Secret{Type: "x"}},
		{"stringData alone", &corev1.Secret{StringData: map[string]string{"a": "1"}},
			&corev1.Secret{Type: "Opaque", Data: map[string][]byte{"a": []byte("1")}}},
		{"stringData wins", &corev1.Secret{Data: map[string][]byte{"a": []byte("0"), "b": []byte("2")}, StringData: map[string]string{"a": "1"}},
			&corev1.Secret{Type: "Opaque", Data: map[string][]byte{"a": []byte("1"), "b": []byte("2")}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			secret.SetDefaults(test.in)
			secret.SetDefaults(test.in)
			if diff := cmp.Diff(test.want, test.in); diff != "" {
				t.Errorf("secret (-want +got):\n%s", diff)
			}
		})
	}
}

func TestRowAndFields(t *testing.T) {
	t.Parallel()
	s := valid()
	s.CreationTimestamp = metav1.NewTime(now.Add(-90 * time.Second))
	fieldtest.CheckRow(t, secret.Columns, secret.Row(s, now), "db", "Opaque", int64(1), "90s")
	want := fields.Set{"metadata.name": "db", "metadata.namespace": "shop", "type": "Opaque"}
	if diff := cmp.Diff(want, secret.Fields(s)); diff != "" {
		t.Errorf("fields (-want +got):\n%s", diff)
	}
}

// FuzzDockerConfig checks that exactly JSON objects and null are accepted, and that a refusal does not quote the value.
func FuzzDockerConfig(f *testing.F) {
	for _, seed := range []string{"", "{}", "null", "[]", `{"auths":{"r":{"auth":"eDp5"}}}`, "{\"a\":", "7", "\"s\"", "\xff"} {
		f.Add([]byte(seed))
	}
	harmless := regexp.MustCompile(`^must be a JSON object(: syntax error at byte \d+)?$`)
	f.Fuzz(func(t *testing.T, data []byte) {
		s := valid()
		s.Type, s.Data = corev1.SecretTypeDockerConfigJson, map[string][]byte{corev1.DockerConfigJsonKey: data}
		errs := secret.Validate(s)
		trimmed := bytes.TrimLeft(data, " \t\r\n")
		ok := json.Valid(data) && (trimmed[0] == '{' || trimmed[0] == 'n')
		if ok != (len(errs) == 0) {
			t.Fatalf("accepted = %t, want %t: %v", !ok, ok, errs)
		}
		if !ok && !harmless.MatchString(errs[0].Detail) {
			t.Errorf("detail %q", errs[0].Detail)
		}
	})
}
