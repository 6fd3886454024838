package backup

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"

	"lanyard.dev/internal/hint"
)

func newIdentity(t testing.TB) *age.X25519Identity {
	t.Helper()
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return identity
}

func encrypt(t testing.TB, text string, to ...age.Recipient) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := age.Encrypt(&out, to...)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// cheap returns the recipient of a passphrase that takes little time.
func cheap(t testing.TB, passphrase string, workFactor int) age.Recipient {
	t.Helper()
	recipient, err := age.NewScryptRecipient(passphrase)
	if err != nil {
		t.Fatal(err)
	}
	recipient.SetWorkFactor(workFactor)
	return recipient
}

func saying(text string) func() (string, error) { return func() (string, error) { return text, nil } }

func TestDecrypt(t *testing.T) {
	t.Parallel()
	mine, other := newIdentity(t), newIdentity(t)
	toMe, toWord := encrypt(t, "content", mine.Recipient()), encrypt(t, "content", cheap(t, "word", 4))
	stopped := errors.New("interrupted")
	notAsked := func() (string, error) {
		t.Error("asked for a passphrase")
		return "", stopped
	}
	tests := map[string]struct {
		file []byte
		key  Key
		want string // an error, or "content"
	}{
		"identity":                   {toMe, Key{[]age.Identity{other, mine}, notAsked}, "content"},
		"passphrase":                 {toWord, Key{nil, saying("word")}, "content"},
		"passphrase beside identity": {toWord, Key{[]age.Identity{mine}, saying("word")}, "content"},
		"wrong identity":             {toMe, Key{[]age.Identity{other}, notAsked}, "none of the identities opens it"},
		"no identity":                {toMe, Key{nil, notAsked}, "it is encrypted to a recipient, not to a passphrase"},
		"wrong passphrase":           {toWord, Key{nil, saying("ward")}, "the passphrase is wrong"},
		"empty passphrase":           {toWord, Key{nil, saying("")}, "the passphrase is empty"},
		"no answer":                  {toWord, Key{nil, func() (string, error) { return "", stopped }}, "interrupted"},
		"nothing":                    {nil, Key{nil, notAsked}, "it is not a backup"},
		"other file":                 {[]byte("kind: Secret\nmetadata: {}\n"), Key{nil, notAsked}, "it is not a backup"},
		"cut header":                 {toMe[:60], Key{[]age.Identity{mine}, notAsked}, "header"},
		"endless header":             {[]byte(magic + "-> X25519 a\n" + strings.Repeat(strings.Repeat("A", 64)+"\n", maxHeader/64)), Key{[]age.Identity{mine}, notAsked}, errHeader.Error()},
	}
	for name, test := range tests {
		content, err := decrypt(bytes.NewReader(test.file), test.key)
		got := ""
		if err == nil {
			text, readErr := io.ReadAll(content)
			got, err = string(text), readErr
		}
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, test.want) {
			t.Errorf("%s: %s, want %s", name, got, test.want)
		}
	}
}

// TestMemoryOfAPassphrase refuses a file that would need more memory than the limit.
func TestMemoryOfAPassphrase(t *testing.T) {
	t.Parallel()
	file := bytes.Replace(encrypt(t, "content", cheap(t, "word", 4)), []byte(" 4\n"), []byte(" 21\n"), 1)
	if _, err := decrypt(bytes.NewReader(file), Key{nil, saying("word")}); err == nil || !strings.Contains(err.Error(), "work factor too large") {
		t.Errorf("got %v", err)
	}
}

func TestKeyFiles(t *testing.T) {
	t.Parallel()
	dir, identity := t.TempDir(), newIdentity(t)
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	secret := file("key.txt", "# created\n"+identity.String()+"\n")
	public := file("recipients.txt", identity.Recipient().String()+"\n"+newIdentity(t).Recipient().String()+"\n")
	if found, err := ReadIdentities([]string{secret}); err != nil || len(found) != 1 {
		t.Errorf("%d identities, %v", len(found), err)
	}
	if found, err := ToRecipients([]string{identity.Recipient().String()}, []string{public}); err != nil || len(found) != 3 {
		t.Errorf("%d recipients, %v", len(found), err)
	}
	for name, err := range map[string]error{
		"an identity as recipients": second(ToRecipients(nil, []string{secret})),
		"an identity as recipient":  second(ToRecipients([]string{identity.String()}, nil)),
		"recipients as identities":  second(ReadIdentities([]string{public})),
		"a broken identity":         second(ReadIdentities([]string{file("broken", identity.String()+"x")})),
	} {
		if err == nil || hint.Of(err) == "" || strings.Contains(err.Error(), identity.String()[:30]) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got, err := ReadPassphrase(file("word", "correct horse\r\nsecond line\n")); err != nil || got != "correct horse" {
		t.Errorf("passphrase %q, %v", got, err)
	}
	if _, err := ReadPassphrase(file("empty", "\n")); !errors.Is(err, errEmpty) {
		t.Errorf("empty: %v", err)
	}
	if _, err := ReadPassphrase(file("large", strings.Repeat("x", maxPassphrase+1))); err == nil {
		t.Error("a passphrase of any size")
	}
}

func second[T any](_ T, err error) error { return err }
