package pki

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lanyard.dev/internal/hint"
)

var start = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

const day = 24 * time.Hour

func ensureCA(t *testing.T, dir string, now time.Time) *Authority {
	t.Helper()
	a, err := EnsureAuthority(filepath.Join(dir, "ca.crt"), filepath.Join(dir, "ca.key"), "test-ca", now)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestAuthorityIsFoundAgain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := ensureCA(t, dir, start)
	if got := first.Certificate().NotAfter; !got.Equal(start.Add(authorityLife)) {
		t.Errorf("valid until %s", got)
	}
	second := ensureCA(t, dir, start.Add(9*365*day))
	if !bytes.Equal(first.CertPEM(), second.CertPEM()) {
		t.Error("the second start made another CA")
	}
	for name, want := range map[string]os.FileMode{"ca.key": 0o600, "ca.crt": 0o644} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v %v, want %o", name, info.Mode(), err, want)
		}
	}
}

func TestHalfMadeAuthorityKeepsItsKey(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := ensureCA(t, dir, start)
	if err := os.Remove(filepath.Join(dir, "ca.crt")); err != nil {
		t.Fatal(err)
	}
	second := ensureCA(t, dir, start)
	if !first.pair.key.Equal(second.pair.key) {
		t.Error("the key was replaced")
	}
}

func TestBadAuthorityIsReported(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		damage func(t *testing.T, dir string)
		now    time.Time
		file   string
		want   string
	}{
		"corrupt certificate": {put("ca.crt", "not pem"), start, "ca.crt", "is corrupt"},
		"corrupt key":         {put("ca.key", "not pem"), start, "ca.key", "is corrupt"},
		"empty key":           {put("ca.key", ""), start, "ca.key", "is corrupt"},
		"damaged key":         {flip("ca.key"), start, "ca.key", ""},
		"damaged certificate": {flip("ca.crt"), start, "", ""},
		"lost key":            {remove("ca.key"), start, "ca.key", "is missing"},
		"directory":           {directory("ca.key"), start, "ca.key", "is not a PEM file"},
		"other key":           {otherKey, start, "ca.key", "is not the key of"},
		"a leaf":              {leaf, start, "ca.crt", "is not a CA certificate"},
		"expired":             {nothing, start.Add(authorityLife + time.Hour), "ca.crt", "expired at 2039-12-31"},
		"clock is behind":     {nothing, start.Add(-day), "ca.crt", "not valid before"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			ensureCA(t, dir, start)
			test.damage(t, dir)
			before := snapshot(t, dir)
			_, err := EnsureAuthority(filepath.Join(dir, "ca.crt"), filepath.Join(dir, "ca.key"), "test-ca", test.now)
			checkUnusable(t, err, filepath.Join(dir, test.file), test.want)
			if after := snapshot(t, dir); after != before {
				t.Error("the files were changed")
			}
		})
	}
}

func checkUnusable(t *testing.T, err error, file, want string) {
	t.Helper()
	var failure *hint.Error
	if !errors.As(err, &failure) {
		t.Fatalf("got %v, want a *hint.Error", err)
	}
	if failure.Hint == "" || strings.Contains(err.Error(), "\n") {
		t.Errorf("error %q has no hint or several lines", err)
	}
	if !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), file) {
		t.Errorf("error %q, want %q about %s", err, want, file)
	}
}

func put(name, content string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// flip damages the content of a PEM file, which remains valid PEM.
func flip(name string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		path := filepath.Join(dir, name)
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(string(data), "\n")
		lines[1] = base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{1}, 48))
		put(name, strings.Join(lines, "\n"))(t, dir)
	}
}

func remove(name string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
}

func directory(name string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		remove(name)(t, dir)
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
}

func otherKey(t *testing.T, dir string) {
	put("ca.key", string(ensureCA(t, t.TempDir(), start).pair.KeyPEM))(t, dir)
}

func leaf(t *testing.T, dir string) {
	pair, err := ensureCA(t, dir, start).NewClient("c", nil, start)
	if err != nil {
		t.Fatal(err)
	}
	put("ca.crt", string(pair.CertPEM))(t, dir)
	put("ca.key", string(pair.KeyPEM))(t, dir)
}

func nothing(*testing.T, string) {}

func snapshot(t *testing.T, dir string) string {
	t.Helper()
	var all strings.Builder
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		data, _ := os.ReadFile(filepath.Join(dir, entry.Name()))
		all.WriteString(entry.Name() + "\n" + string(data))
	}
	return all.String()
}

func TestServingCertificateIsRenewed(t *testing.T) {
	t.Parallel()
	names := ServingNames("host", "127.0.0.1")
	tests := map[string]struct {
		names  Names
		after  time.Duration
		damage func(*testing.T, string)
		same   bool
	}{
		"next start":      {names, time.Hour, nothing, true},
		"half its life":   {names, 180 * day, nothing, true},
		"a third left":    {names, 250 * day, nothing, false},
		"expired":         {names, 400 * day, nothing, false},
		"fewer names":     {ServingNames("", ""), 0, nothing, true},
		"another host":    {ServingNames("other", ""), 0, nothing, false},
		"another address": {ServingNames("host", "192.0.2.7"), 0, nothing, false},
		"no key":          {names, 0, remove("serving.key"), false},
		"corrupt":         {names, 0, put("serving.crt", "junk"), false},
		"another CA":      {names, 0, newCA, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			first := ensureServing(t, dir, names, start)
			test.damage(t, dir)
			second := ensureServing(t, dir, test.names, start.Add(test.after))
			if same := bytes.Equal(first.CertPEM, second.CertPEM); same != test.same {
				t.Errorf("same certificate: %v, want %v", same, test.same)
			}
			third := ensureServing(t, dir, test.names, start.Add(test.after))
			if !bytes.Equal(second.CertPEM, third.CertPEM) {
				t.Error("the certificate does not settle")
			}
		})
	}
}

func newCA(t *testing.T, dir string) {
	remove("ca.crt")(t, dir)
	remove("ca.key")(t, dir)
}

func ensureServing(t *testing.T, dir string, names Names, now time.Time) *Pair {
	t.Helper()
	pair, err := ensureCA(t, dir, now).EnsureServing(
		filepath.Join(dir, "serving.crt"), filepath.Join(dir, "serving.key"), names, now)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

func TestServingCertificateVerifies(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a := ensureCA(t, dir, start)
	pair := ensureServing(t, dir, ServingNames("host.example", "192.0.2.7"), start)
	roots := x509.NewCertPool()
	roots.AddCert(a.Certificate())
	for _, name := range []string{"localhost", "kubernetes.default.svc", "host.example", "127.0.0.1", "::1", "192.0.2.7"} {
		_, err := pair.Certificate().Verify(x509.VerifyOptions{
			Roots: roots, DNSName: name, CurrentTime: start, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		})
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := tls.X509KeyPair(pair.CertPEM, pair.KeyPEM); err != nil {
		t.Error(err)
	}
	if err := pair.Certificate().VerifyHostname("evil.example"); err == nil {
		t.Error("vouches for any name")
	}
}

func TestServingNamesLeaveOutUnspecified(t *testing.T) {
	t.Parallel()
	for _, address := range []string{"0.0.0.0", "::", ""} {
		names := ServingNames("localhost", address)
		if len(names.DNS) != 5 || len(names.IPs) != 2 {
			t.Errorf("%q: %v", address, names)
		}
	}
	if names := ServingNames("hôte", ""); len(names.DNS) != 5 {
		t.Errorf("a name x509 cannot hold was kept: %v", names.DNS)
	}
}

func TestClientCertificate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a := ensureCA(t, dir, start)
	ensure := func(name string, groups ...string) *Pair {
		pair, err := a.EnsureClient(filepath.Join(dir, "c.crt"), filepath.Join(dir, "c.key"), name, groups, start)
		if err != nil {
			t.Fatal(err)
		}
		return pair
	}
	first := ensure("admin", "b", "a")
	if again := ensure("admin", "a", "b"); !bytes.Equal(first.CertPEM, again.CertPEM) {
		t.Error("the order of groups renewed the certificate")
	}
	if other := ensure("admin", "a"); bytes.Equal(first.CertPEM, other.CertPEM) {
		t.Error("a lost group did not renew the certificate")
	}
	roots := x509.NewCertPool()
	roots.AddCert(a.Certificate())
	options := x509.VerifyOptions{Roots: roots, CurrentTime: start, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	if _, err := first.Certificate().Verify(options); err != nil {
		t.Error(err)
	}
	options.KeyUsages = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	if _, err := first.Certificate().Verify(options); err == nil {
		t.Error("a client certificate serves")
	}
}

func TestLeafEndsWithItsAuthority(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a := ensureCA(t, dir, start)
	late := start.Add(authorityLife - 30*day)
	pair, err := a.NewServing(Names{IPs: []net.IP{net.IPv6loopback}}, late)
	if err != nil {
		t.Fatal(err)
	}
	if pair.Certificate().NotAfter.After(a.Certificate().NotAfter) {
		t.Error("the leaf outlives its CA")
	}
}

func TestUnwritableDirectory(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	put("file", "")(t, filepath.Dir(file))
	_, err := createAuthority(filepath.Join(file, "ca.crt"), filepath.Join(file, "ca.key"), "n", start)
	checkUnusable(t, err, filepath.Join(file, "ca.key"), "not a directory")
}

func FuzzLoadPair(f *testing.F) {
	f.Add([]byte("-----BEGIN EC PRIVATE KEY-----\nAQ==\n-----END EC PRIVATE KEY-----\n"), []byte("-----BEGIN CERTIFICATE-----\nAQ==\n-----END CERTIFICATE-----\n"))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, key, cert []byte) {
		put("f.key", string(key))(t, dir)
		put("f.crt", string(cert))(t, dir)
		if pair, err := loadPair(filepath.Join(dir, "f.crt"), filepath.Join(dir, "f.key")); err == nil && pair.key == nil {
			t.Error("no key and no error")
		}
	})
}
