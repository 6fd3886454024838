package podvalidation

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// projection checks the sources of one projected volume. at is the path of the volume, where Kubernetes reports files that
// collide.
type projection struct {
	*checker
	at    *field.Path
	paths sets.Set[string]
}

func (c *checker) projected(v *corev1.ProjectedVolumeSource, p *field.Path) {
	c.files(v.DefaultMode, v.DefaultUser, nil, p)
	all := projection{checker: c, at: p, paths: sets.New[string]()}
	for i := range v.Sources {
		all.source(&v.Sources[i], p.Child("sources").Index(i))
	}
}

func (c projection) source(s *corev1.VolumeProjection, p *field.Path) {
	sources := 0
	if s.Secret != nil {
		sources++
		c.keys(s.Secret.Name, s.Secret.Items, p.Child("secret"))
	}
	if s.ConfigMap != nil {
		sources++
		c.keys(s.ConfigMap.Name, s.ConfigMap.Items, p.Child("configMap"))
	}
	if s.DownwardAPI != nil {
		sources++
		c.downwardFiles(s.DownwardAPI.Items, p.Child("downwardAPI"))
		for i := range s.DownwardAPI.Items {
			c.uniquePath(s.DownwardAPI.Items[i].Path, s.DownwardAPI.Items[i].Path)
		}
	}
	if s.ServiceAccountToken != nil {
		sources++
		c.token(s.ServiceAccountToken, p.Child("serviceAccountToken"))
	}
	if s.ClusterTrustBundle != nil {
		sources++
		c.trustBundle(s.ClusterTrustBundle, p.Child("clusterTrustBundle"))
	}
	if s.PodCertificate != nil {
		sources++
		c.certificate(s.PodCertificate, p.Child("podCertificate"))
	}
	if sources > 1 {
		c.forbidden(p, "may not specify more than 1 volume type per source")
	}
}

// uniquePath refuses a file that another source of the volume writes. named is the value that the fault shows.
func (c projection) uniquePath(path, named string) {
	if path == "" {
		return
	}
	if c.paths.Has(path) {
		c.invalid(c.at, named, "conflicting duplicate paths")
	}
	c.paths.Insert(path)
}

func (c projection) keys(name string, items []corev1.KeyToPath, p *field.Path) {
	c.notEmpty(p.Child("name"), name)
	c.items(items, p.Child("items"))
	for i := range items {
		c.uniquePath(items[i].Path, name)
	}
}

// Bounds of the lifetime of a projected token, in seconds.
const (
	minTokenSeconds = 10 * 60
	maxTokenSeconds = 1 << 32
)

// token checks a service account token. As in Kubernetes, faults of its file path are reported at the volume.
func (c projection) token(t *corev1.ServiceAccountTokenProjection, p *field.Path) {
	if s := t.ExpirationSeconds; s != nil && *s < minTokenSeconds {
		c.invalid(p.Child("expirationSeconds"), *s, "may not specify a duration less than 10 minutes")
	} else if s != nil && *s > maxTokenSeconds {
		c.invalid(p.Child("expirationSeconds"), *s, "may not specify a duration larger than 2^32 seconds")
	}
	c.notEmpty(c.at.Child("path"), t.Path)
	c.localPath(c.at.Child("path"), t.Path)
	c.user(p.Child("user"), t.User)
	if c.pod.Spec.ServiceAccountName == "" {
		c.forbidden(p, "must not be specified when serviceAccountName is not set")
	}
}

func (c projection) trustBundle(b *corev1.ClusterTrustBundleProjection, p *field.Path) {
	switch {
	case b.Name != nil && b.SignerName != nil:
		c.invalid(p, *b, "only one of name and signerName may be used")
	case b.Name != nil:
		c.bundleName(*b.Name, p.Child("name"))
		if b.LabelSelector != nil {
			c.invalid(p.Child("labelSelector"), *b.LabelSelector, "labelSelector must be unset if name is specified")
		}
	case b.SignerName != nil:
		if *b.SignerName == "" {
			c.required(p.Child("signerName"), "must be a valid signer name")
		}
		c.signerName(*b.SignerName, p.Child("signerName"))
		c.selector(b.LabelSelector, p.Child("labelSelector"))
	default:
		c.required(p, "either name or signerName must be specified")
	}
	c.notEmpty(p.Child("path"), b.Path)
	c.localPath(p.Child("path"), b.Path)
	c.uniquePath(b.Path, b.Path)
	c.user(p.Child("user"), b.User)
}

// bundleName checks the name of a ClusterTrustBundle, of the form NAME or SIGNER-DOMAIN:SIGNER-PATH:NAME.
func (c projection) bundleName(name string, p *field.Path) {
	if name == "" {
		c.required(p, "must be a valid object name")
	}
	last := name
	if at := strings.LastIndex(name, ":"); at >= 0 {
		last = name[at+1:]
	}
	for _, why := range validation.IsDNS1123Subdomain(last) {
		c.invalid(p, name, fmt.Sprintf("not a valid clustertrustbundlename: %v", why))
	}
}

// maxSignerName is the longest name of a signer, DOMAIN/PATH, in bytes.
const maxSignerName = 571

func (c *checker) signerName(name string, p *field.Path) {
	if name == "" {
		c.required(p, "")
		return
	}
	domain, path, ok := strings.Cut(name, "/")
	if !ok || strings.Contains(path, "/") {
		c.invalid(p, name, "must be a fully qualified domain and path of the form 'example.com/signer-name'")
		return
	}
	c.invalid(p, domain, validation.IsDNS1123Subdomain(domain)...)
	if !strings.Contains(domain, ".") {
		c.invalid(p, domain, "should be a domain with at least two segments separated by dots")
	}
	if path == "" {
		c.invalid(p, path, "must not be empty")
	} else {
		c.invalid(p, path, validation.IsDNS1123Subdomain(path)...)
	}
	if len(name) > maxSignerName {
		c.add(field.TooLong(p, "", maxSignerName))
	}
}

func (c *checker) selector(s *metav1.LabelSelector, p *field.Path) {
	c.add(metavalidation.ValidateLabelSelector(s, metavalidation.LabelSelectorValidationOptions{}, p)...)
}

// Bounds of the lifetime of a pod certificate, in seconds. Kubernetes' own signers issue none for longer than a day.
const (
	minCertificateSeconds           = 3600
	maxCertificateSeconds           = 91 * 86400
	maxKubernetesCertificateSeconds = 86400
)

func (c projection) certificate(pc *corev1.PodCertificateProjection, p *field.Path) {
	c.signerName(pc.SignerName, p.Child("signerName"))
	oneOf(&c.faults, p.Child("keyType"), pc.KeyType, "RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519")
	if s := pc.MaxExpirationSeconds; s != nil {
		longest := int32(maxCertificateSeconds)
		if domain, _, _ := strings.Cut(pc.SignerName, "/"); domain == "kubernetes.io" || strings.HasSuffix(domain, ".kubernetes.io") {
			longest = maxKubernetesCertificateSeconds
		}
		if *s < minCertificateSeconds {
			c.invalid(p.Child("maxExpirationSeconds"), *s, "if provided, maxExpirationSeconds must be >= 3600")
		} else if *s > longest {
			c.invalid(p.Child("maxExpirationSeconds"), *s, fmt.Sprintf("if provided, maxExpirationSeconds must be <= %d", longest))
		}
	}
	written := false
	for _, file := range []struct{ field, path string }{
		{"credentialBundlePath", pc.CredentialBundlePath},
		{"keyPath", pc.KeyPath},
		{"certificateChainPath", pc.CertificateChainPath},
	} {
		if file.path != "" {
			written = true
			c.localPath(p.Child(file.field), file.path)
			c.uniquePath(file.path, file.path)
		}
	}
	if !written {
		c.required(p, "specify at least one of credentialBundlePath, keyPath, and certificateChainPath")
	}
	c.userAnnotations(pc.UserAnnotations, p.Child("userAnnotations"))
	c.user(p.Child("user"), pc.User)
}

// maxUserAnnotations bounds the size of all keys and values together, in bytes.
const maxUserAnnotations = 32 << 10

func (c *checker) userAnnotations(annotations map[string]string, p *field.Path) {
	size := 0
	for _, key := range slices.Sorted(maps.Keys(annotations)) {
		size += len(key) + len(annotations[key])
		c.add(validation.IsDomainPrefixedKey(p.Key(key), key)...)
	}
	if size > maxUserAnnotations {
		c.add(field.TooLong(p, "", maxUserAnnotations))
	}
}
