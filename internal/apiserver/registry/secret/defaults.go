package secret

import corev1 "k8s.io/api/core/v1"

// SetDefaults gives s the type Opaque where it has none, and moves stringData into data, where it wins over a key of
// the same name. It is idempotent. It must run on every decoded secret before Validate does: stringData is written
// only, so what is left in it is neither checked nor to be stored.
func SetDefaults(s *corev1.Secret) {
	if s.Type == "" {
		s.Type = corev1.SecretTypeOpaque
	}
	if len(s.StringData) > 0 && s.Data == nil {
		s.Data = make(map[string][]byte, len(s.StringData))
	}
	for key, value := range s.StringData {
		s.Data[key] = []byte(value)
	}
	s.StringData = nil
}
