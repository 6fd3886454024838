package files

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"lanyard.dev/internal/hint"
)

// CheckPrivate returns a *hint.Error if users other than this process's can read or write one of the files. It is for
// key files that Lanyard makes. Absent files pass. A symbolic link is followed.
func CheckPrivate(paths ...string) error {
	return check(paths, func(p *problems, path string, info fs.FileInfo) {
		owner, mine := OwnedByMe(info)
		switch open := mode(info)&0o077 != 0; {
		case !mine:
			p.add(path, "belongs to another user ("+owner+")", "chown $(id -u)")
		case open:
			p.add(path, fmt.Sprintf("is open to other users (mode %04o)", mode(info)), "chmod 600")
		}
	})
}

// CheckUnwritable returns a *hint.Error if users other than this process's and root can write one of the files. It is
// for key files that an administrator provides: a Secret that is mounted into a container belongs to root, and by
// default every user of the container can read it. Absent files pass. A symbolic link is followed.
func CheckUnwritable(paths ...string) error {
	return check(paths, func(p *problems, path string, info fs.FileInfo) {
		owner, mine := OwnedByMe(info)
		switch writable := mode(info)&0o022 != 0; {
		case !mine && !ownedByRoot(info):
			p.add(path, "belongs to another user ("+owner+")", "chown $(id -u)")
		case writable:
			p.add(path, fmt.Sprintf("may be written by other users (mode %04o)", mode(info)), "chmod go-w")
		}
	})
}

// WorldReadable returns the files in paths that every user can read.
func WorldReadable(paths ...string) []string {
	var readable []string
	for _, path := range paths {
		if info, err := os.Stat(path); err == nil && mode(info)&0o004 != 0 {
			readable = append(readable, path)
		}
	}
	return readable
}

// problems are the files that failed a check, and the commands that mend them.
type problems struct{ texts, remedies []string }

func (p *problems) add(path, problem, remedy string) {
	p.texts = append(p.texts, "key file "+path+" "+problem)
	p.remedies = append(p.remedies, remedy+" "+path)
}

func check(paths []string, judge func(*problems, string, fs.FileInfo)) error {
	var found problems
	for _, path := range paths {
		info, err := os.Stat(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		judge(&found, path, info)
	}
	if len(found.texts) == 0 {
		return nil
	}
	return hint.New(errors.New(strings.Join(found.texts, "\n")),
		"make sure that no other user has read or changed the key, then run "+strings.Join(found.remedies, " && "))
}
