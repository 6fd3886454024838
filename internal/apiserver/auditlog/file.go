package auditlog

import (
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"gopkg.in/natefinch/lumberjack.v2"
)

// open returns where events go. The file is made 0600 with its directory, if it is not there.
func open(o Options) (io.WriteCloser, error) {
	if o.LogPath == "-" {
		return nopCloser{os.Stdout}, nil
	}
	if err := os.MkdirAll(filepath.Dir(o.LogPath), 0o700); err != nil {
		return nil, err
	}
	// The rotating writer opens the file at the first event; a file that cannot be written must be known now.
	f, err := os.OpenFile(o.LogPath, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	if err := f.Close(); err != nil {
		return nil, err
	}
	return &lumberjack.Logger{Filename: o.LogPath, MaxAge: o.MaxAge, MaxBackups: o.MaxBackups, MaxSize: o.MaxSize}, nil
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// file is a rotating file that stays closed, and knows whether it can be written. The rotating writer alone opens it
// again for an event that comes late, of a request that outlived the drain; by then the directory may be another
// authority's, or gone.
type file struct {
	mu     sync.Mutex
	out    io.WriteCloser
	closed bool

	health health
}

// Write implements io.Writer. It fails with fs.ErrClosed after Close.
func (f *file) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.write(p)
}

// write appends p. The caller holds mu.
func (f *file) write(p []byte) (int, error) {
	if f.closed {
		return 0, fs.ErrClosed
	}
	line := p
	if f.health.failing() {
		// The write that failed may have left half an event, which must not swallow this one.
		line = append([]byte{'\n'}, p...)
	}
	f.health.begin()
	_, err := f.out.Write(line)
	f.health.end(err)
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

// probe finds out whether a file that could not be written can be written again. It writes a blank line that takes more
// than what is left of the file's last block, where an event would still fail.
func (f *file) probe() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.health.failing() {
		_, _ = f.write(blankLine)
	}
}

// Close implements io.Closer.
func (f *file) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	return f.out.Close()
}
