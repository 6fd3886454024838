package podsecurity_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apiserver/pkg/authentication/user"

	"lanyard.dev/internal/apiserver/admission/podsecurity"
)

const (
	header = "apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\nplugins:\n"
	inside = header + `- name: PodSecurity
  configuration:
    apiVersion: pod-security.admission.config.k8s.io/v1
    kind: PodSecurityConfiguration
    defaults: {enforce: baseline}
    exemptions: {usernames: [operator], namespaces: [loose]}
`
)

func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	file := filepath.Join(dir, name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestDefaults checks that the file sets the standard of namespaces without labels, except for exempt ones, and that labels take
// precedence.
func TestDefaults(t *testing.T) {
	t.Parallel()
	p := plugin(t, inside)
	for name, test := range map[string]struct {
		namespace, who string
		refused        bool
		exempt         string
	}{
		"no labels":        {"unlabelled", "dev", true, ""},
		"labels":           {"free", "dev", false, ""},
		"exempt namespace": {"loose", "dev", false, "namespace"},
		"exempt user":      {"baseline", "operator", false, "user"},
	} {
		_, noted, err := send(t, p, request{resource: "pods", namespace: test.namespace, obj: privileged(), who: &user.DefaultInfo{Name: test.who}})
		if (err != nil) != test.refused || noted[prefix+"exempt"] != test.exempt {
			t.Errorf("%s: %v, annotated with %v", name, err, noted)
		}
	}
}

// TestConfigurationFile reads the settings from another file, whose path is relative to the first.
func TestConfigurationFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "standard.yaml", "apiVersion: pod-security.admission.config.k8s.io/v1\nkind: PodSecurityConfiguration\ndefaults: {enforce: restricted}\n")
	for _, path := range []string{"standard.yaml", filepath.Join(dir, "standard.yaml")} {
		config, err := podsecurity.ReadConfiguration(write(t, dir, "admission.yaml", "\ufeff# How pods are held\n%YAML 1.1\n---\n"+header+"- name: PodSecurity\n  path: "+path+"\n---\n"))
		if err != nil || config.Defaults.Enforce != "restricted" || config.Defaults.EnforceVersion != "latest" {
			t.Errorf("%s: %+v, %v", path, config, err)
		}
	}
}

func TestBadConfiguration(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"---\n# nothing\n":               "the file is empty",
		header:                           "plugin PodSecurity must be configured once, not 0 times",
		header + "- name: PodSecurity\n": "needs either configuration or path",
		header + "- name: PodSecurity\n  configuration: null\n": "needs either configuration or path",
		inside + "  path: x.yaml\n":                             "needs either configuration or path",
		inside + "--- # more\n" + inside:                        "several YAML documents",
		inside + "...\nkind: x\n":                               "several YAML documents",
		header + "- name: PodSecurity\n  path: /dev/null\n":     "/dev/null: the file is empty",
		"":                                      "the file is empty",
		"x":                                     "admission.yaml",
		header + "- name: ImagePolicyWebhook\n": `plugin "ImagePolicyWebhook" cannot be configured here, only PodSecurity`,
		header + "- name: PodSecurity\n- name: PodSecurity\n":                          "not 2 times",
		header + "- name: PodSecurity\n  pth: x\n":                                     `unknown field "plugins[0].pth"`,
		header + "- name: PodSecurity\n  path: absent.yaml\n":                          "absent.yaml",
		header + "- name: PodSecurity\n  configuration: {kind: Pod, apiVersion: v1}\n": `no kind "Pod"`,
		"apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\n":      "not an AdmissionConfiguration",
		strings.Replace(inside, "baseline", "strict", 1):                               `"strict"`,
		strings.Replace(inside, "enforce: baseline", "enforc: baseline", 1):            "enforc",
	} {
		if _, err := podsecurity.ReadConfiguration(write(t, t.TempDir(), "admission.yaml", text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	if _, err := podsecurity.ReadConfiguration(filepath.Join(t.TempDir(), "absent")); err == nil {
		t.Error("no file, no error")
	}
}
