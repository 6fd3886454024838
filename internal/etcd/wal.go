package etcd

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"go.etcd.io/etcd/client/pkg/v3/fileutil"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
)

// checkFiles returns errDamaged if the files of a member are damaged or do not belong together. It writes nothing.
//
// etcd does not compare its files. If the write-ahead log ends before the last entry that the database has, etcd takes new
// writes for applied ones until their numbers are as high, and its start never ends. If the database is missing, etcd starts
// with the rest of the log.
func checkFiles(dir string) error {
	database, logs := filepath.Join(dir, "member", "snap", "db"), filepath.Join(dir, "member", "wal")
	applied, err := checkDatabase(database)
	if err != nil {
		return err
	}
	files, err := logFiles(logs)
	if err != nil {
		return err
	}
	if len(files) == 0 {
		if applied > 0 {
			return fmt.Errorf("%w: the write-ahead log in %s is missing", errDamaged, logs)
		}
		return nil
	}
	if missing, err := isEmpty(database); err != nil || missing && applied == 0 && !beginsAtZero(files[0]) {
		return cmp.Or(err, fmt.Errorf("%w: the database %s is missing or empty", errDamaged, database))
	}
	last := files[len(files)-1]
	logged, err := lastLogged(last)
	if err != nil {
		return fmt.Errorf("%s: %w", last, err)
	}
	if logged < applied {
		return fmt.Errorf("%w: the database holds changes up to number %d, the write-ahead log only up to %d", errDamaged, applied, logged)
	}
	return nil
}

// logFiles returns the files of the log in the order in which they were written.
func logFiles(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var files []string
	for _, entry := range entries {
		if _, _, ok := parseLogName(entry.Name()); ok {
			files = append(files, filepath.Join(dir, entry.Name()))
		}
	}
	return files, err
}

func isEmpty(path string) (bool, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	return err == nil && info.Size() == 0, err
}

// parseLogName parses the name of a file of the log: its number and the number of its first entry.
func parseLogName(file string) (sequence, first uint64, ok bool) {
	n, err := fmt.Sscanf(filepath.Base(file), "%016x-%016x.wal", &sequence, &first)
	return sequence, first, err == nil && n == 2 && filepath.Ext(file) == ".wal"
}

// beginsAtZero reports whether the log has all entries since the first.
func beginsAtZero(file string) bool {
	sequence, _, _ := parseLogName(file)
	return sequence == 0
}

// lastLogged returns the number of the last entry in the last file of the log. An incomplete record ends the log, as it does
// for etcd.
func lastLogged(file string) (last uint64, err error) {
	f, err := os.Open(file)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if _, first, _ := parseLogName(file); first > 0 {
		last = first - 1
	}
	decoder, record := wal.NewDecoder(fileutil.NewFileReader(f)), new(walpb.Record)
	for {
		switch err := decoder.Decode(record); {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return last, nil
		case err != nil:
			return 0, fmt.Errorf("%w: %w", errDamaged, err)
		}
		switch record.GetType() {
		case wal.CrcType:
			decoder.UpdateCRC(record.GetCrc())
		case wal.EntryType:
			last = wal.MustUnmarshalEntry(record.GetData()).GetIndex()
		}
	}
}
