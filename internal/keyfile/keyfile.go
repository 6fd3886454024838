// Package keyfile decides by owner and mode whether a file that holds a key may be used: whether another user could have
// read or replaced the key.
//
// It follows symbolic links and judges the file that is read, and it does not look at what the file holds.
package keyfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// Error is one or more files that others can read or write.
type Error struct {
	problems []string
	remedies []string
}

// Error names every file, and what is wrong with it.
func (e *Error) Error() string { return strings.Join(e.problems, "\n") }

// Hint says what the reader can do about it.
func (e *Error) Hint() string {
	return "make sure that nobody else has read or changed what is in there, then run " + strings.Join(e.remedies, " && ")
}

func (e *Error) add(path, problem, remedy string) {
	e.problems = append(e.problems, "key file "+path+" "+problem)
	e.remedies = append(e.remedies, remedy+" "+path)
}

// Private returns *Error if users other than this process's can read or write one of the files. Absent files pass. It is
// for files that Lanyard makes.
func Private(paths ...string) error {
	return check(paths, func(e *Error, path string, info fs.FileInfo) {
		owner, mine := OwnedByMe(info)
		switch open := mode(info)&0o077 != 0; {
		case !mine:
			e.add(path, "belongs to another user ("+owner+")", "chown $(id -u)")
		case open:
			e.add(path, fmt.Sprintf("is open to other users (mode %04o)", mode(info)), "chmod 600")
		}
	})
}

// Guarded returns *Error if users other than this process's and root can write one of the files. Absent files pass. It is
// for files that an administrator provides: a Secret that is mounted into a container belongs to root, and by default
// every user of the container may read it.
func Guarded(paths ...string) error {
	return check(paths, func(e *Error, path string, info fs.FileInfo) {
		owner, mine := OwnedByMe(info)
		switch writable := mode(info)&0o022 != 0; {
		case !mine && !ownedByRoot(info):
			e.add(path, "belongs to another user ("+owner+")", "chown $(id -u)")
		case writable:
			e.add(path, fmt.Sprintf("may be written by other users (mode %04o)", mode(info)), "chmod go-w")
		}
	})
}

// Exposed returns those of the files that every user may read.
func Exposed(paths ...string) []string {
	var exposed []string
	for _, path := range paths {
		if info, err := os.Stat(path); err == nil && mode(info)&0o004 != 0 {
			exposed = append(exposed, path)
		}
	}
	return exposed
}

func check(paths []string, judge func(*Error, string, fs.FileInfo)) error {
	found := &Error{}
	for _, path := range paths {
		info, err := os.Stat(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		judge(found, path, info)
	}
	if len(found.problems) > 0 {
		return found
	}
	return nil
}
