package backup

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"filippo.io/age"

	"lanyard.dev/internal/files"
	"lanyard.dev/internal/hint"
)

const (
	// magic is the beginning of every file that is encrypted by age.
	magic = "age-encryption.org/v1\n"

	// maxHeader is the limit for the part of a file before its content: one stanza for each recipient.
	maxHeader = 1 << 20

	// maxWorkFactor limits the memory for a passphrase to 1 GiB. age itself chooses 18, which needs 256 MiB.
	maxWorkFactor = 20

	// maxKeys is the limit for a file of recipients or identities, maxPassphrase for a passphrase.
	maxKeys       = 1 << 20
	maxPassphrase = 4 << 10

	scryptStanza = "scrypt"
)

var (
	errNotAge     = errors.New("it is not a backup: it is not encrypted by age")
	errHeader     = errors.New("its header is larger than a backup has")
	errPassphrase = errors.New("the passphrase is wrong")
	errEmpty      = errors.New("the passphrase is empty")
)

// ReadPassphrase returns the first line of a file, which may also be a pipe.
func ReadPassphrase(path string) (string, error) {
	if err := files.CheckUnwritable(path); err != nil {
		return "", err
	}
	data, err := files.Read(path, maxPassphrase)
	if err != nil {
		return "", fmt.Errorf("read the passphrase: %w", err)
	}
	line, _, _ := strings.Cut(string(data), "\n")
	if line = strings.TrimSuffix(line, "\r"); line == "" {
		return "", fmt.Errorf("%s: %w", path, errEmpty)
	}
	return line, nil
}

// ToPassphrase returns what encrypts to a passphrase.
func ToPassphrase(passphrase string) ([]age.Recipient, error) {
	recipient, err := age.NewScryptRecipient(passphrase)
	if err != nil {
		return nil, errEmpty
	}
	return []age.Recipient{recipient}, nil
}

const recipientHint = "a recipient begins with age1: age-keygen prints it, and writes the identity that restores the backup"

// ToRecipients returns what encrypts to recipients ("age1..."), and to those in files.
func ToRecipients(recipients, paths []string) ([]age.Recipient, error) {
	var all []age.Recipient
	for _, text := range recipients {
		parsed, err := age.ParseRecipients(strings.NewReader(text))
		if err != nil {
			return nil, hint.New(errors.New("--recipient is not a recipient of age"), recipientHint)
		}
		all = append(all, parsed...)
	}
	for _, path := range paths {
		data, err := files.Read(path, maxKeys)
		if err != nil {
			return nil, fmt.Errorf("read recipients: %w", err)
		}
		// The parser's error is left out: the file may be one of identities, which are secret.
		parsed, err := age.ParseRecipients(strings.NewReader(string(data)))
		if err != nil {
			return nil, hint.New(fmt.Errorf("%s is not a file of recipients of age, one a line", path), recipientHint)
		}
		all = append(all, parsed...)
	}
	return all, nil
}

// Key opens backups: with identities of age, or with the passphrase that a function returns. The function is called only for a
// backup that is encrypted to a passphrase.
type Key struct {
	Identities []age.Identity
	Passphrase func() (string, error)
}

// ReadIdentities returns the identities in files, which age-keygen writes.
func ReadIdentities(paths []string) ([]age.Identity, error) {
	var all []age.Identity
	for _, path := range paths {
		if err := files.CheckUnwritable(path); err != nil {
			return nil, err
		}
		data, err := files.Read(path, maxKeys)
		if err != nil {
			return nil, fmt.Errorf("read identities: %w", err)
		}
		// The parser's error is left out: it may quote a secret.
		parsed, err := age.ParseIdentities(strings.NewReader(string(data)))
		if err != nil {
			return nil, hint.New(fmt.Errorf("%s is not a file of identities of age", path),
				"age-keygen writes such a file; one that is encrypted itself must be decrypted first, with age --decrypt")
		}
		all = append(all, parsed...)
	}
	return all, nil
}

// passphrase is the identity of a passphrase that is asked for when a file needs it.
type passphrase struct{ ask func() (string, error) }

// Unwrap implements age.Identity.
func (p passphrase) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	if !slices.ContainsFunc(stanzas, func(s *age.Stanza) bool { return s.Type == scryptStanza }) {
		return nil, age.ErrIncorrectIdentity
	}
	text, err := p.ask()
	if err != nil {
		return nil, err
	}
	identity, err := age.NewScryptIdentity(text)
	if err != nil {
		return nil, errEmpty
	}
	identity.SetMaxWorkFactor(maxWorkFactor)
	return identity.Unwrap(stanzas)
}

// decrypt returns the content of an encrypted file.
func decrypt(source io.Reader, key Key) (io.Reader, error) {
	header := &headerReader{source: source, left: maxHeader}
	buffered := bufio.NewReader(header)
	if start, err := buffered.Peek(len(magic)); string(start) != magic {
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		return nil, errNotAge
	}
	identities := append(slices.Clone(key.Identities), passphrase{key.Passphrase})
	content, err := age.Decrypt(buffered, identities...)
	header.left = -1
	unmatched := (*age.NoIdentityMatchError)(nil)
	switch {
	case err == nil:
		return content, nil
	case !errors.As(err, &unmatched):
		return nil, err
	case slices.Contains(unmatched.StanzaTypes, scryptStanza):
		return nil, errPassphrase
	case len(key.Identities) == 0:
		return nil, hint.New(errors.New("it is encrypted to a recipient, not to a passphrase"), "name the file of the recipient's identity with --identity")
	}
	return nil, hint.New(errors.New("none of the identities opens it"), "name the identity of a recipient that the backup was encrypted to")
}

// headerReader limits how much is read while left is not negative.
type headerReader struct {
	source io.Reader
	left   int
}

func (h *headerReader) Read(p []byte) (int, error) {
	switch {
	case h.left == 0:
		return 0, errHeader
	case h.left > 0:
		p = p[:min(len(p), h.left)]
	}
	n, err := h.source.Read(p)
	if h.left > 0 {
		h.left -= n
	}
	return n, err
}
