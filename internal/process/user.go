package process

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
)

// User is who runs a command.
type User struct {
	UID, GID int
	Groups   []int
	// Name, Home and Shell are empty for a number that is no user of this machine.
	Name, Home, Shell string
	// Other tells that it is not simply who runs the supervisor.
	Other bool
}

// unset is a number that was not given.
const unset = -1

// Self is the user who runs the supervisor, with all that they may do.
func Self() User { return User{UID: os.Geteuid(), GID: os.Getegid()} }

// LookUpUser returns the user of a name, or of numbers, of which -1 is none given. Supplementary groups are those of the
// user in the machine's database.
func LookUpUser(name string, uid, gid int) (User, error) {
	if name == "" && uid == unset && gid == unset {
		return Self(), nil
	}
	found, err := account(name, uid)
	if err != nil {
		return User{}, err
	}
	if gid != unset {
		found.GID = gid
	}
	if found.GID == unset {
		return User{}, fmt.Errorf("--uid %d is no user of this machine: give --gid too", uid)
	}
	self := Self()
	found.Other = found.UID != self.UID || found.GID != self.GID
	return found, nil
}

func account(name string, uid int) (User, error) {
	if name != "" {
		entry, err := user.Lookup(name)
		if err != nil {
			return User{}, fmt.Errorf("--user %s: no such user on this machine", name)
		}
		return ofEntry(entry)
	}
	if uid == unset {
		uid = os.Geteuid()
	}
	entry, err := user.LookupId(strconv.Itoa(uid))
	if unknown := user.UnknownUserIdError(0); errors.As(err, &unknown) {
		return User{UID: uid, GID: unset}, nil
	}
	if err != nil {
		return User{}, fmt.Errorf("look up user %d: %w", uid, err)
	}
	return ofEntry(entry)
}

func ofEntry(entry *user.User) (User, error) {
	found := User{Name: entry.Username, Home: entry.HomeDir, Shell: shellOf(entry.Username)}
	ids, err := entry.GroupIds()
	if err != nil {
		return User{}, fmt.Errorf("look up the groups of user %s: %w", entry.Username, err)
	}
	numbers := make([]int, 0, len(ids)+2)
	for _, text := range append([]string{entry.Uid, entry.Gid}, ids...) {
		number, err := strconv.ParseUint(text, 10, 31)
		if err != nil {
			return User{}, fmt.Errorf("user %s: %q is no number of a user or group", entry.Username, text)
		}
		numbers = append(numbers, int(number))
	}
	found.UID, found.GID, found.Groups = numbers[0], numbers[1], numbers[2:]
	return found, nil
}

// maxUsers bounds how much of the machine's list of users is read, in bytes.
const maxUsers = 16 << 20

// shellOf returns the user's login shell, which package user leaves out, or nothing for a user that the machine's own list
// does not name.
func shellOf(name string) string {
	file, err := os.Open("/etc/passwd")
	if err != nil {
		return ""
	}
	defer func() { _ = file.Close() }()
	return findShell(io.LimitReader(file, maxUsers), name)
}

// findShell reads passwd(5): seven fields with colons between them, the name first and the shell last.
func findShell(users io.Reader, name string) string {
	const fields = 7
	for lines := bufio.NewScanner(users); lines.Scan(); {
		if entry := strings.Split(lines.Text(), ":"); len(entry) == fields && entry[0] == name {
			return entry[fields-1]
		}
	}
	return ""
}

// The search paths of users who have set none: what login programs give.
const (
	userPath = "/usr/local/bin:/usr/bin:/bin"
	rootPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)

// environment returns the caller's environment as it is for the same user, and for another user what a login gives them,
// with the caller's variables of the names to preserve.
func (u User) environment(env, preserve []string) []string {
	if !u.Other {
		return env
	}
	path := userPath
	if u.UID == 0 {
		path = rootPath
	}
	clean := []string{"HOME=" + cmp.Or(u.Home, "/"), "SHELL=" + cmp.Or(u.Shell, "/bin/sh"), "PATH=" + path}
	if u.Name != "" {
		clean = append(clean, "USER="+u.Name, "LOGNAME="+u.Name)
	}
	for _, entry := range env {
		name, _, _ := strings.Cut(entry, "=")
		if name == "TERM" || slices.Contains(preserve, name) {
			clean = append(without(clean, name), entry)
		}
	}
	return clean
}

// without returns env less the variables of these names.
func without(env []string, names ...string) []string {
	kept := make([]string, 0, len(env)+len(names))
	for _, entry := range env {
		name, _, _ := strings.Cut(entry, "=")
		taken := false
		for _, other := range names {
			taken = taken || name == other
		}
		if !taken {
			kept = append(kept, entry)
		}
	}
	return kept
}
