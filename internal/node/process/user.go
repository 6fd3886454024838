package process

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"strings"
)

// User is who runs a command.
type User struct {
	UID, GID int
	Groups   []int
	// Name and Home are empty for a number that is no user of this machine.
	Name, Home string
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
	found := User{Name: entry.Username, Home: entry.HomeDir}
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

// environment returns env as the user's: what names another user's things is taken out.
func (u User) environment(env []string) []string {
	if !u.Other {
		return env
	}
	env = without(env, "HOME", "USER", "LOGNAME", "MAIL", "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS")
	if u.Name != "" {
		env = append(env, "USER="+u.Name, "LOGNAME="+u.Name)
	}
	if u.Home != "" {
		env = append(env, "HOME="+u.Home)
	}
	return env
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
