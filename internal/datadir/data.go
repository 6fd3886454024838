package datadir

import (
	"errors"
	"io/fs"
	"os"

	"lanyard.dev/internal/files"
)

// dataMark is a file that says that there is data in etcd's directory.
const dataMark = "has-data"

const dataMarkText = `There is data in the directory etcd beside this file. lanyard up does not start if that directory is gone while this file
is here. To start without data, remove this file too.
`

// CheckData reports data that was there and is gone, as when a backup of the
// keys alone was restored or a disk is not mounted. Starting without it would
// look like the deletion of everything.
func (d *Dir) CheckData() error {
	mark := d.join(dataMark)
	marked, err := exists(mark)
	if err != nil {
		return unreadable(mark, err)
	}
	stored, err := d.holdsData()
	if err != nil {
		return unreadable(d.EtcdDir(), err)
	}
	if !marked || stored {
		return nil
	}
	return files.Unusable(d.EtcdDir(), "is missing or empty, but it has held the data that belongs to the keys in "+d.path, nil,
		"restore it from a backup; to start without data, remove "+mark+" too")
}

// MarkData remembers that there is data, for CheckData.
func (d *Dir) MarkData() error {
	path := d.join(dataMark)
	if marked, err := exists(path); err != nil || marked {
		return err
	}
	if err := files.Write(path, []byte(dataMarkText), 0o600); err != nil {
		return unwritable(path, err)
	}
	return nil
}

// holdsData tells whether etcd has ever run on its directory. If there is a
// log but no database, or the other way round, it has.
func (d *Dir) holdsData() (bool, error) {
	files, err := os.ReadDir(d.join("etcd", "member", "wal"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) || len(files) > 0 {
		return len(files) > 0, err
	}
	return exists(d.join("etcd", "member", "snap", "db"))
}
