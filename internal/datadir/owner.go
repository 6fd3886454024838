package datadir

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"lanyard.dev/internal/files"
	"lanyard.dev/internal/hint"
)

// ErrInUse reports that another process holds the directory.
var ErrInUse = errors.New("in use")

// owner is the content of the lock file: who holds the lock. It is only a
// message to the reader; what counts is the lock.
type owner struct {
	PID int    `json:"pid"`
	URL string `json:"url,omitempty"`
}

func (o owner) String() string {
	switch {
	case o.PID == 0:
		return "another process"
	case o.URL == "":
		return fmt.Sprintf("process %d, which is starting", o.PID)
	}
	return fmt.Sprintf("process %d at %s", o.PID, o.URL)
}

// writeOwner rewrites the lock file in place: replacing it would lose the lock.
func (d *Dir) writeOwner(url string) error {
	data, err := json.Marshal(owner{PID: os.Getpid(), URL: url})
	if err != nil {
		return fmt.Errorf("encode the owner of %s: %w", d.path, err)
	}
	if err := d.lock.Truncate(0); err != nil {
		return unwritable(d.lock.Name(), err)
	}
	if _, err := d.lock.WriteAt(append(data, '\n'), 0); err != nil {
		return unwritable(d.lock.Name(), err)
	}
	return nil
}

// inUse says who holds the lock. Where a lock also keeps readers away, as on
// Windows, and while the owner rewrites the file, the owner is not known.
func inUse(dir, lockFile string) error {
	var o owner
	data, err := files.Read(lockFile, files.MaxText)
	if err != nil || json.Unmarshal(data, &o) != nil {
		o = owner{}
	}
	return hint.New(fmt.Errorf("%s is %w by %s", dir, ErrInUse, o),
		"use that instance with lanyard kubectl, stop it, or choose another directory with --data-dir")
}
