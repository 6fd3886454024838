//go:build linux

package cri

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestKeyring(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		key, image string
		match      bool
	}{
		{"r.test", "r.test/a", true}, {"https://r.test", "r.test/a", true}, {"http://r.test/", "r.test/a", true}, {"https://r.test/v1/", "r.test/a", true},
		{"https://r.test/v2/", "r.test/a", true}, {"r.test/a", "r.test/a/b", true}, {"r.test/a", "r.test/b", false}, {"r.test/v2/a", "r.test/a", true},
		{"r.test:5000", "r.test:5000/a", true}, {"r.test", "r.test:5000/a", false}, {"r.test:5000", "r.test/a", false}, {"r.test:5001", "r.test:5000/a", false},
		{"*.r.test", "x.r.test/a", true}, {"*.r.test", "r.test/a", false}, {"*.r.test", "x.y.r.test/a", false}, {"*.*.r.test", "x.y.r.test/a", true},
		{"x*.r.test", "xy.r.test/a", true}, {"r.*", "r.test/a", true}, {"*", "r.test/a", false}, {"evil-r.test", "r.test/a", false}, {"r.test", "r.test.evil.test/a", false},
		{"https://index.docker.io/v1/", "busybox", true}, {"https://index.docker.io/v1/", "a/b", true}, {"docker.io", "busybox", true}, {"index.docker.io", "r.test/a", false},
		{"https://", "r.test/a", false}, {"::", "r.test/a", false}, {"[r.test", "r.test/a", false},
	} {
		image, err := parseImage(test.image)
		if err != nil {
			t.Fatal(err)
		}
		found, err := loginsFor(image, []*corev1.Secret{pullSecret(test.key, "u", "p")})
		if err != nil || (len(found) == 1) != test.match {
			t.Errorf("%s for %s: %d found, %v", test.key, test.image, len(found), err)
		}
	}
}

func TestLoginOrder(t *testing.T) {
	t.Parallel()
	image, err := parseImage("a.r.test/b/c:1")
	if err != nil {
		t.Fatal(err)
	}
	var users []string
	found, err := loginsFor(image, []*corev1.Secret{
		pullSecret("*.r.test", "pattern", "p"), pullSecret("a.r.test", "host", "p"), pullSecret("a.r.test/b/c", "repository", "p"), pullSecret("a.r.test/b", "path", "p"),
		pullSecret("a.r.test", "host", "p"), {Type: corev1.SecretTypeOpaque, Data: map[string][]byte{corev1.DockerConfigJsonKey: []byte("nonsense")}},
		{Type: corev1.SecretTypeDockercfg, Data: map[string][]byte{corev1.DockerConfigKey: []byte(`{"a.r.test/b/":{"username":"old","password":"p"}}`)}},
	})
	for _, one := range found {
		users = append(users, one.username)
	}
	if want := []string{"repository", "old", "path", "host", "pattern"}; err != nil || !slices.Equal(users, want) {
		t.Errorf("%v, %v; want %v", users, err, want)
	}
}

func TestDockerConfig(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		text string
		want *login
	}{
		"auth":              {`{"auths":{"r.test":{"auth":"dTpwOnE="}}}`, &login{"u", "p:q"}},
		"without padding":   {`{"auths":{"r.test":{"auth":"dTpwOnE"}}}`, &login{"u", "p:q"}},
		"username":          {`{"auths":{"r.test":{"username":"u","password":"p","email":"e"}}}`, &login{"u", "p"}},
		"auth goes first":   {`{"auths":{"r.test":{"username":"x","password":"x","auth":"dTpwOnE="}}}`, &login{"u", "p:q"}},
		"other things":      {`{"auths":{"r.test":{"auth":"dTpwOnE="}},"credsStore":"x","HttpHeaders":{}}`, &login{"u", "p:q"}},
		"no colon":          {`{"auths":{"r.test":{"auth":"c2VjcmV0"}}}`, nil},
		"not base64":        {`{"auths":{"r.test":{"auth":"secret!"}}}`, nil},
		"number":            {`{"auths":{"r.test":{"password":5318008}}}`, nil},
		"not JSON":          {`secret`, nil},
		"too long":          {`{"auths":{"r.test":{"auth":"dTpwOnE="}}}` + strings.Repeat(" ", corev1.MaxSecretSize), nil},
		"nothing":           {``, nil},
		"list in its place": {`{"auths":["secret"]}`, nil},
	} {
		ring := keyring{}
		err := ring.add([]byte(test.text), true)
		switch {
		case test.want == nil && (!errors.Is(err, errPullSecret) || strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "5318008")):
			t.Errorf("%s: %v", name, err)
		case test.want != nil && (err != nil || !slices.Equal(ring["r.test"], []login{*test.want})):
			t.Errorf("%s: %v, %v", name, ring, err)
		}
	}
}

func TestRedacted(t *testing.T) {
	t.Parallel()
	one := login{username: "somebody", password: `p"w/ü %`}
	for _, form := range []string{
		one.password, one.encoded(), url.QueryEscape(one.password), url.PathEscape(one.password), url.UserPassword("u", one.password).String(), fmt.Sprintf("%q", one.password),
	} {
		text := redacted(errors.New("refused: "+form+" is wrong"), one).Error()
		if strings.Contains(text, form) || !strings.Contains(text, "[redacted]") || !strings.HasPrefix(text, "refused: ") {
			t.Errorf("%s is in the error as %s", form, text)
		}
	}
	if text := redacted(errors.New("refused"), login{}).Error(); text != "refused" {
		t.Errorf("without a password: %s", text)
	}
}

func FuzzDockerConfig(f *testing.F) {
	f.Add([]byte(`{"auths":{"https://index.docker.io/v1/":{"auth":"dTpwOnE="}}}`), "docker.io/library/busybox", true)
	f.Add([]byte(`{"*.r.test:5000/v2/a":{"username":"u","password":"p"}}`), "x.r.test:5000/a", false)
	f.Add([]byte(`{"auths":{"[::1]:5000":{"auth":"=="}}}`), "[::1]:5000/a", true)
	f.Fuzz(func(t *testing.T, data []byte, repository string, nested bool) {
		ring := keyring{}
		if err := ring.add(data, nested); err != nil && !errors.Is(err, errPullSecret) {
			t.Errorf("the error may contain the secret: %v", err)
		}
		for _, one := range ring.find(repository) {
			if text := redacted(errors.New(one.password+one.encoded()), one).Error(); strings.Contains(text, one.encoded()) && one.password != "" {
				t.Errorf("the error is %s", text)
			}
			if _, err := base64.StdEncoding.DecodeString(one.encoded()); err != nil {
				t.Error(err)
			}
		}
	})
}
