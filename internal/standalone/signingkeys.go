package standalone

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"

	"lanyard.dev/internal/files"
	"lanyard.dev/internal/signingkey"
)

// keyFiles are the key files of the data directory: those of the keys that sign, the default first, and those of keys that are
// only accepted.
type keyFiles struct {
	signing, accepted []string
}

// ensureSigningKeys creates the keys that sign tokens and are missing: the default one, and one for each further algorithm that
// an audience needs. It accepts the tokens of a key that was created for an algorithm that no audience needs any more.
func (a *Authority) ensureSigningKeys(c Config) (keyFiles, error) {
	own, err := a.ensureSigningKey(a.dir.SigningKey(), c.SigningAlgorithm)
	if err != nil {
		return keyFiles{}, err
	}
	found := keyFiles{signing: []string{a.dir.SigningKey()}}
	needed := slices.Collect(maps.Values(c.AudienceAlgorithms))
	for _, alg := range signingkey.Algorithms() {
		path := a.dir.SigningKeyFor(alg)
		if alg != own && slices.Contains(needed, alg) {
			if _, err := a.ensureSigningKey(path, alg); err != nil {
				return keyFiles{}, err
			}
			found.signing = append(found.signing, path)
		} else if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			found.accepted = append(found.accepted, path)
		}
	}
	return found, nil
}

// ensureSigningKey creates a key, or checks that an existing one is for the algorithm that is wanted. If wanted is empty, a new
// key has signingkey.DefaultAlgorithm, and an existing one may have any. It returns the algorithm of the key.
func (a *Authority) ensureSigningKey(path string, wanted signingkey.Algorithm) (signingkey.Algorithm, error) {
	err := a.dir.EnsureSigningKey(path, func() ([]byte, error) {
		key, err := signingkey.Generate(wanted)
		if err != nil {
			return nil, err
		}
		return key.MarshalPEM()
	})
	if err != nil {
		return "", err
	}
	key, err := signingkey.LoadPrivate(path)
	if err != nil {
		return "", err
	}
	if found := key.Algorithm(); wanted != "" && found != wanted {
		return "", files.Unusable(path, fmt.Sprintf("is a key for %s, and %s was requested", found, wanted), nil,
			"to change the key, move the file elsewhere and name it with --service-account-key-file for as long as its tokens are to be accepted")
	}
	return key.Algorithm(), nil
}
