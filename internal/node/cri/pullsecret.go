//go:build linux

package cri

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"github.com/distribution/reference"
	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// login is the credentials for a registry. It has no String method, and is never part of an error.
type login struct {
	username, password string
}

func (l login) auth() *runtimeapi.AuthConfig {
	return &runtimeapi.AuthConfig{Username: l.username, Password: l.password}
}

// encoded returns the login in the form of HTTP's basic authentication.
func (l login) encoded() string {
	return base64.StdEncoding.EncodeToString([]byte(l.username + ":" + l.password))
}

// keyring has logins by registry and path, as in docker's configuration.
type keyring map[string][]login

// dockerHub is the name of docker.io in docker's configuration.
const dockerHub = "index.docker.io"

// errPullSecret replaces the errors of parsers, which quote the secret.
var errPullSecret = errors.New("is not valid docker configuration")

// loginsFor returns the logins for an image, the most specific ones first. Secrets of other types are ignored.
func loginsFor(image reference.Named, secrets []*corev1.Secret) ([]login, error) {
	all := keyring{}
	for _, secret := range secrets {
		if err := all.addSecret(secret); err != nil {
			return nil, fmt.Errorf("image pull secret %s/%s %w", secret.Namespace, secret.Name, err)
		}
	}
	return all.find(image.Name()), nil
}

func (k keyring) addSecret(secret *corev1.Secret) error {
	switch secret.Type {
	case corev1.SecretTypeDockerConfigJson:
		return k.add(secret.Data[corev1.DockerConfigJsonKey], true)
	case corev1.SecretTypeDockercfg:
		return k.add(secret.Data[corev1.DockerConfigKey], false)
	}
	return nil
}

// entry is a registry in docker's configuration.
type entry struct {
	Username string `json:"username"`
	Password string `json:"password"`
	Auth     string `json:"auth"`
}

// add reads docker's configuration. The entries are below "auths", or at the top in the old format.
func (k keyring) add(data []byte, nested bool) error {
	if len(data) > corev1.MaxSecretSize {
		return errPullSecret
	}
	var entries map[string]entry
	var config struct {
		Auths map[string]entry `json:"auths"`
	}
	var err error
	if nested {
		err = json.Unmarshal(data, &config)
		entries = config.Auths
	} else {
		err = json.Unmarshal(data, &entries)
	}
	if err != nil {
		return errPullSecret
	}
	for location, one := range entries {
		if err := k.addEntry(location, one); err != nil {
			return err
		}
	}
	return nil
}

func (k keyring) addEntry(location string, one entry) error {
	made := login{username: one.Username, password: one.Password}
	if one.Auth != "" {
		var err error
		if made, err = decode(one.Auth); err != nil {
			return err
		}
	}
	key, ok := keyOf(location)
	if !ok {
		return nil // docker stores other credentials in the same place, and ignores them too
	}
	if !slices.Contains(k[key], made) {
		k[key] = append(k[key], made)
	}
	return nil
}

// decode reads username:password in base64, with or without padding.
func decode(auth string) (login, error) {
	text, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(auth, "="))
	if err != nil {
		return login{}, errPullSecret
	}
	username, password, found := strings.Cut(string(text), ":")
	if !found {
		return login{}, errPullSecret
	}
	return login{username: username, password: password}, nil
}

// keyOf returns the host, port and path of a registry, from a URL or a part of one in docker's configuration. The version
// of the registry's protocol is not part of an image's path.
func keyOf(location string) (key string, ok bool) {
	parsed, err := parseLocation(location)
	if err != nil || parsed.Host == "" {
		return "", false
	}
	path := parsed.Path
	if strings.HasPrefix(path, "/v1/") || strings.HasPrefix(path, "/v2/") {
		path = path[len("/v1"):]
	}
	if path == "/" {
		path = ""
	}
	return parsed.Host + path, true
}

func parseLocation(location string) (*url.URL, error) {
	if !strings.HasPrefix(location, "https://") && !strings.HasPrefix(location, "http://") {
		location = "https://" + location
	}
	return url.Parse(location)
}

// find returns the logins whose key matches the repository of an image. Keys that sort later come first, so that a longer
// path comes before a shorter one, and both before a pattern.
func (k keyring) find(repository string) []login {
	keys := make([]string, 0, len(k))
	for key := range k {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	var found []login
	for _, key := range slices.Backward(keys) {
		if matches(key, repository) {
			found = append(found, k[key]...)
		}
	}
	if len(found) == 0 && strings.HasPrefix(repository, "docker.io/") {
		found = append(found, k[dockerHub]...)
	}
	return found
}

// matches reports whether a key matches a repository: the ports are equal, each label of the host matches the pattern of the key,
// and the path begins with the path of the key.
func matches(key, repository string) bool {
	pattern, err := parseLocation(key)
	if err != nil {
		return false
	}
	target, err := parseLocation(repository)
	if err != nil || pattern.Port() != target.Port() || !strings.HasPrefix(target.Path, pattern.Path) {
		return false
	}
	globs, labels := strings.Split(pattern.Hostname(), "."), strings.Split(target.Hostname(), ".")
	if len(globs) != len(labels) {
		return false
	}
	for i, glob := range globs {
		if same, err := filepath.Match(glob, labels[i]); err != nil || !same {
			return false
		}
	}
	return true
}
