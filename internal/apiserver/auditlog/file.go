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
	return &file{out: &lumberjack.Logger{Filename: o.LogPath, MaxAge: o.MaxAge, MaxBackups: o.MaxBackups, MaxSize: o.MaxSize}}, nil
}

// file is a rotating file that stays closed. The rotating writer alone opens it again for an event that comes late, of a
// request that outlived the drain; by then the directory may be another authority's, or gone.
type file struct {
	mu     sync.Mutex
	out    io.WriteCloser
	closed bool
}

// Write implements io.Writer. It fails with fs.ErrClosed after Close.
func (f *file) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return 0, fs.ErrClosed
	}
	return f.out.Write(p)
}

// Close implements io.Closer.
func (f *file) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	return f.out.Close()
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }
