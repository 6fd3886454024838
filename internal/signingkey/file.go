package signingkey

import (
	"fmt"

	"lanyard.dev/internal/files"
)

// LoadPrivate reads the one private key of a PEM file, see ParsePrivatePEM. The error names the file, and is
// fs.ErrNotExist if there is none.
func LoadPrivate(path string) (*PrivateKey, error) {
	data, err := files.Read(path, MaxFileSize)
	if err != nil {
		return nil, fmt.Errorf("load signing key: %w", err)
	}
	key, err := ParsePrivatePEM(data)
	if err != nil {
		return nil, fmt.Errorf("load signing key: %s: %w", path, err)
	}
	return key, nil
}

// LoadPublic reads every key of a PEM file, see ParsePublicPEM. The error names the file.
func LoadPublic(path string) ([]PublicKey, error) {
	data, err := files.Read(path, MaxFileSize)
	if err != nil {
		return nil, fmt.Errorf("load public keys: %w", err)
	}
	keys, err := ParsePublicPEM(data)
	if err != nil {
		return nil, fmt.Errorf("load public keys: %s: %w", path, err)
	}
	return keys, nil
}

// Save writes the key to a new PKCS#8 file of mode 0600. An existing file is left as it is and reported as
// fs.ErrExist: to lose a signing key is to invalidate every token it signed. The file appears whole or not at all,
// also after a crash; of two processes that save to one path, one succeeds.
func (k *PrivateKey) Save(path string) error {
	data, err := k.MarshalPEM()
	if err != nil {
		return err
	}
	if err := files.Create(path, data); err != nil {
		return fmt.Errorf("save signing key: %w", err)
	}
	return nil
}
