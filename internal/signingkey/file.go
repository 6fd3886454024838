package signingkey

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// LoadPrivate reads the one private key of a PEM file, see ParsePrivatePEM. The error names the file, and is
// fs.ErrNotExist if there is none.
func LoadPrivate(path string) (*PrivateKey, error) {
	data, err := readBounded(path)
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
	data, err := readBounded(path)
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
	if err := writeNew(path, data); err != nil {
		return fmt.Errorf("save signing key: %w", err)
	}
	return nil
}

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, MaxFileSize+1))
	if err != nil {
		return nil, err
	}
	if len(data) > MaxFileSize {
		return nil, fmt.Errorf("%s: %w", path, ErrTooLarge)
	}
	return data, nil
}

// writeNew links a finished temporary file into place: unlike a rename, a link never replaces what is there.
func writeNew(path string, data []byte) (err error) {
	dir := filepath.Dir(path)
	tmp, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(tmp.Name())) }()
	_, err = tmp.Write(data)
	if err == nil {
		err = tmp.Sync()
	}
	if err = errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	if err := os.Link(tmp.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

// syncDir makes a new directory entry durable where the system can; where directories cannot be synced (Windows), the
// entry needs no help.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	_ = d.Sync()
	return d.Close()
}
