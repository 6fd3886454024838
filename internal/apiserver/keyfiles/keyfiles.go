// Package keyfiles keeps the keys of service account tokens that are in files, and reads the files again when they change.
//
// Each change of the files is one change of the key set: issuer, verifier and published documents have the same KeySource. A
// change with a fault changes nothing. The package does not know who uses the keys.
package keyfiles

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"k8s.io/klog/v2"

	"lanyard.dev/internal/apiserver/metrics"
	"lanyard.dev/internal/files"
	"lanyard.dev/internal/signingkey"
)

// DefaultEvery is how often the files are read.
const DefaultEvery = time.Second

// Config names the files.
type Config struct {
	// Signing are the files of the private keys that sign, the default first. Each has one private key.
	Signing []string
	// Accepted are the files of further keys whose tokens are accepted.
	Accepted []string
	// Check returns an error if the keys cannot be used, although each file is in order. It may be nil.
	Check func(*signingkey.Set) error
	// Every is how often the files are read; 0 means DefaultEvery.
	Every time.Duration
}

func (c *Config) paths() []string { return slices.Concat(c.Signing, c.Accepted) }

// Keys is the KeySource of key files.
type Keys struct {
	config Config
	// pipes are the contents of the files that are no regular files. These are read once, since a pipe may never end again.
	pipes   map[string][]byte
	current atomic.Pointer[generation]
	// staleSince is when the files were first found to differ from the keys in force; nil if they do not.
	staleSince atomic.Pointer[time.Time]

	// The fields below belong to Run.
	seen   digest // of the files when they were read last
	failed string // the text of the fault that was logged last
}

var _ signingkey.KeySource = &Keys{}

// generation is the keys of one content of the files.
type generation struct {
	set    *signingkey.Set
	files  []metrics.KeyFile
	digest digest
}

// digest identifies the content of all files.
type digest = [sha256.Size]byte

// Open reads the files. Run reads them again. Without files there is no key.
func Open(c Config) (*Keys, error) {
	if c.Every == 0 {
		c.Every = DefaultEvery
	}
	k := &Keys{config: c, pipes: map[string][]byte{}}
	if err := k.readPipes(); err != nil {
		return nil, err
	}
	read := k.read()
	first, err := k.load(read)
	if err != nil {
		return nil, err
	}
	k.seen = read.digest
	k.current.Store(first)
	return k, nil
}

// Current implements signingkey.KeySource.
func (k *Keys) Current() *signingkey.Set { return k.current.Load().set }

// Files returns the files of the keys in force, with the ids of the keys.
func (k *Keys) Files() []metrics.KeyFile { return k.current.Load().files }

// Stale returns how long the files have differed from the keys in force, because a file cannot be used. It is 0 if they do
// not differ.
func (k *Keys) Stale() time.Duration {
	if since := k.staleSince.Load(); since != nil {
		return time.Since(*since)
	}
	return 0
}

// Run applies each change of the files until ctx ends.
func (k *Keys) Run(ctx context.Context) {
	tick := time.NewTicker(k.config.Every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			k.reload()
		}
	}
}

// reload applies a new content of the files. A content counts if two readings in a row find it, because one reading may find a
// file that is half written, or some files from before a change and some from after it.
func (k *Keys) reload() {
	read := k.read()
	if read.digest != k.seen {
		k.seen = read.digest
		return
	}
	if read.digest == k.current.Load().digest {
		k.settle("The key files of service account tokens are as before", k.failed != "")
		return
	}
	// A content with a fault is tried again each time, because the fault may be the mode of a file.
	next, err := k.load(read)
	if err != nil {
		k.keep(err)
		return
	}
	k.current.Store(next)
	k.settle("The key files of service account tokens have changed", true)
}

// settle notes that the keys in force are those of the files.
func (k *Keys) settle(event string, changed bool) {
	if changed {
		klog.InfoS(event, "keys", ids(k.Current()))
	}
	k.failed = ""
	k.staleSince.Store(nil)
}

// keep notes that the keys in force stay, because the files have a fault. Each fault is logged once.
func (k *Keys) keep(err error) {
	if k.staleSince.Load() == nil {
		now := time.Now()
		k.staleSince.Store(&now)
	}
	if text := err.Error(); text != k.failed {
		k.failed = text
		klog.ErrorS(err, "The keys of service account tokens stay as they were: correct the file, which is then read again")
	}
}

// reading is what one reading of the files found: for each file its content, or why it cannot be read.
type reading struct {
	contents [][]byte
	errs     []error
	digest   digest
}

// read reads the signing files, then the others.
func (k *Keys) read() reading {
	var r reading
	sum := sha256.New()
	for _, path := range k.config.paths() {
		data, err := k.readFile(path)
		found := data
		if err != nil {
			found = []byte(err.Error())
		}
		// The length and the kind keep different readings from having one digest.
		_ = binary.Write(sum, binary.BigEndian, struct {
			Failed bool
			Length int64
		}{err != nil, int64(len(found))})
		sum.Write(found)
		r.contents, r.errs = append(r.contents, data), append(r.errs, err)
	}
	sum.Sum(r.digest[:0])
	return r
}

// readPipes reads the files that are no regular files.
func (k *Keys) readPipes() error {
	for _, path := range k.config.paths() {
		info, err := os.Stat(path)
		if err != nil || info.Mode().IsRegular() {
			continue // read returns the error
		}
		if k.pipes[path], err = files.Read(path, signingkey.MaxFileSize); err != nil {
			return fmt.Errorf("load keys: %w", err)
		}
	}
	return nil
}

func (k *Keys) readFile(path string) ([]byte, error) {
	if data, ok := k.pipes[path]; ok {
		return data, nil
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() { // opening a pipe could wait for ever
		return nil, fmt.Errorf("%s is not a regular file any more", path)
	}
	return files.Read(path, signingkey.MaxFileSize)
}

// load returns the keys that were read. Its error names the file that cannot be used.
func (k *Keys) load(r reading) (*generation, error) {
	if err := files.CheckUnwritable(k.config.Signing...); err != nil {
		return nil, err
	}
	made := &generation{digest: r.digest}
	var signers []*signingkey.PrivateKey
	for i, path := range k.config.Signing {
		if r.errs[i] != nil {
			return nil, fmt.Errorf("load signing key: %w", r.errs[i])
		}
		signer, err := signingkey.ParsePrivatePEM(r.contents[i])
		if err != nil {
			return nil, fmt.Errorf("load signing key: %s: %w", path, err)
		}
		signers = append(signers, signer)
		made.files = append(made.files, metrics.KeyFile{Path: path, IDs: []string{signer.ID()}})
	}
	var accepted []signingkey.PublicKey
	for i, path := range k.config.Accepted {
		i += len(k.config.Signing)
		if r.errs[i] != nil {
			return nil, fmt.Errorf("load public keys: %w", r.errs[i])
		}
		keys, err := signingkey.ParsePublicPEM(r.contents[i])
		if err != nil {
			return nil, fmt.Errorf("load public keys: %s: %w", path, err)
		}
		accepted = append(accepted, keys...)
		made.files = append(made.files, fileOf(path, keys))
	}
	set, err := signingkey.NewSetOf(signers, accepted...)
	if len(k.config.paths()) == 0 {
		set, err = signingkey.None(), nil
	}
	if err != nil {
		return nil, fmt.Errorf("key files %s: %w", strings.Join(k.config.paths(), ", "), err)
	}
	made.set = set
	if k.config.Check != nil {
		return made, k.config.Check(set)
	}
	return made, nil
}

func fileOf(path string, keys []signingkey.PublicKey) metrics.KeyFile {
	file := metrics.KeyFile{Path: path}
	for _, key := range keys {
		file.IDs = append(file.IDs, key.ID())
	}
	return file
}

func ids(set *signingkey.Set) []string {
	return fileOf("", set.Keys()).IDs
}
