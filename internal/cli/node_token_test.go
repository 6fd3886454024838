package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"lanyard.dev/internal/bootstraptoken"
)

func TestNodeTokenUsage(t *testing.T) {
	t.Parallel()
	const secret = "0123456789abcdef"
	long := strings.Repeat("x", maxTokenDescription+1)
	tests := map[string]struct {
		args []string
		want string
	}{
		"short ttl":        {[]string{"create", "--ttl", "1ms"}, "lanyard: --ttl must be 0 or at least 1s, not 1ms\nhint: see lanyard node token create --help\n"},
		"long description": {[]string{"create", "--description", long}, "lanyard: --description must have at most 1024 bytes\nhint: see lanyard node token create --help\n"},
		"argument":         {[]string{"create", "x"}, "lanyard: unexpected argument \"x\"\nhint: see lanyard node token create --help\n"},
		"no id":            {[]string{"delete"}, "lanyard: expected one argument, not 0\nhint: see lanyard node token delete --help\n"},
		"not an id":        {[]string{"delete", "abcde." + secret}, "lanyard: the ID of a token is six characters of a-z and 0-9\nhint: see lanyard node token delete --help\n"},
		"output":           {[]string{"list", "-o", "xml"}, "lanyard: --output must be text, json or yaml, not \"xml\"\nhint: see lanyard node token list --help\n"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := run("", append([]string{"node", "token"}, test.args...)...)
			if diff := cmp.Diff(result{exitUsage, "", test.want}, got, cmp.AllowUnexported(result{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestDeleteTakesAWholeToken(t *testing.T) {
	t.Parallel()
	if id, err := parseTokenID("abcdef.0123456789abcdef"); err != nil || id != "abcdef" {
		t.Errorf("got %q, %v", id, err)
	}
}

func TestListPrintsNoSecretsAndNoControlCharacters(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	token := func(text string, spec bootstraptoken.Spec) corev1.Secret {
		parsed, ok := bootstraptoken.Parse(text)
		if !ok {
			t.Fatal(text)
		}
		return *bootstraptoken.NewSecret(parsed, spec)
	}
	broken := token("cccccc.0123456789abcdef", bootstraptoken.Spec{})
	broken.Data["auth-extra-groups"] = []byte("system:masters\x1b[2J")
	tokens := summarize([]corev1.Secret{
		token("bbbbbb.0123456789abcdef", bootstraptoken.Spec{Expires: now.Add(90 * time.Minute), Description: "two\nlines\x1b[2J"}),
		{}, broken,
		token("aaaaaa.0123456789abcdef", bootstraptoken.Spec{}),
		token("dddddd.0123456789abcdef", bootstraptoken.Spec{Expires: now}),
	}, now)
	var out bytes.Buffer
	if err := printTokens(&out, tokens, now); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(out.String(), "\n")
	if len(lines) != 6 || strings.ContainsAny(out.String(), "\x1b") || strings.Contains(out.String(), "0123456789") {
		t.Fatalf("got %q", out.String())
	}
	for i, want := range []string{"ID ", "aaaaaa   never ", "bbbbbb   in 1 hour 30 minutes ", "cccccc   unusable: auth-extra-groups", "dddddd   unusable: it has expired"} {
		if !strings.HasPrefix(lines[i], want) {
			t.Errorf("line %d: %q, want %q", i, lines[i], want)
		}
	}
}

func TestJoinConfigHasTheServersCA(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(file, []byte("certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	token := bootstraptoken.New()
	text, err := joinConfig(&rest.Config{Host: "https://192.0.2.1:6443", TLSClientConfig: rest.TLSClientConfig{CAFile: file, KeyData: []byte("mine")}}, token)
	if err != nil {
		t.Fatal(err)
	}
	config, err := clientcmd.RESTConfigFromKubeConfig([]byte(text))
	if err != nil || config.Host != "https://192.0.2.1:6443" || string(config.CAData) != "certificate" || config.BearerToken != token.Reveal() || len(config.KeyData) > 0 {
		t.Errorf("got %v, %v", config, err)
	}
	if _, err := joinConfig(&rest.Config{TLSClientConfig: rest.TLSClientConfig{CAFile: file + "x"}}, token); err == nil || strings.Contains(err.Error(), token.Reveal()) {
		t.Errorf("no CA: %v", err)
	}
}

func TestLoopback(t *testing.T) {
	t.Parallel()
	for host, want := range map[string]bool{
		"https://127.0.0.1:6443": true, "https://[::1]:6443": true, "https://localhost": true,
		"https://192.0.2.1:6443": false, "https://lanyard.example": false, "::": false,
	} {
		if isLoopback(host) != want {
			t.Errorf("%s: %v", host, !want)
		}
	}
}
