package keyring

import (
	"testing"

	corev1 "k8s.io/api/core/v1"

	"lanyard.dev/internal/apiserver/mirror"
	"lanyard.dev/internal/apiserver/registry/storagetest"
	"lanyard.dev/internal/signingkey"
	"lanyard.dev/internal/signingkey/rotation"
)

// NewOn returns a keyring on the storage, and the mirror with its feed. The connection is closed when the test ends.
func NewOn(t testing.TB, base *storagetest.Storage, c mirror.Config, policy rotation.Policy, accepted signingkey.KeySource) (*Keyring, *mirror.Mirror) {
	t.Helper()
	options, err := base.GetRESTOptions(corev1.Resource("secrets"), &corev1.Secret{})
	if err != nil {
		t.Fatal(err)
	}
	config := *options.StorageConfig
	config.GroupResource, config.Codec = Resource, Codec{}
	m := mirror.New(c)
	stored, feed, stop, err := m.Unserved(&config, Prefix, NewObject, NewList)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	k, err := New(Config{Storage: stored, Feed: feed, Policy: policy, Accepted: accepted})
	if err != nil {
		t.Fatal(err)
	}
	return k, m
}
