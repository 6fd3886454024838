package runas

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

// User is the user as whom a program runs.
type User struct {
	UID, GID int
	Groups   []int
	// Name, Home and Shell are empty if the machine's database of users has no user with this UID.
	Name, Home, Shell string
	// Other reports whether UID or GID differ from the IDs of this process.
	Other bool
}

// unset is a UID, GID or descriptor that was not given.
const unset = -1

// Self returns the user of this process, who keeps all rights of the process.
func Self() User { return User{UID: os.Geteuid(), GID: os.Getegid()} }

// LookUp returns the user with a name or a UID. An empty name, and -1 as uid or gid, mean that the value is not given; without any
// value, LookUp returns Self. The supplementary groups come from the machine's database of users. Errors name the flags of
// lanyard exec.
func LookUp(name string, uid, gid int) (User, error) {
	if name == "" && uid == unset && gid == unset {
		return Self(), nil
	}
	found, err := lookUpAccount(name, uid)
	if err != nil {
		return User{}, err
	}
	if gid != unset {
		found.GID = gid
	}
	if found.GID == unset {
		return User{}, fmt.Errorf("--uid %d is not a user of this machine: give --gid too", uid)
	}
	self := Self()
	found.Other = found.UID != self.UID || found.GID != self.GID
	return found, nil
}

func lookUpAccount(name string, uid int) (User, error) {
	if name != "" {
		entry, err := user.Lookup(name)
		if err != nil {
			return User{}, fmt.Errorf("--user %s: no such user on this machine", name)
		}
		return fromEntry(entry)
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
	return fromEntry(entry)
}

func fromEntry(entry *user.User) (User, error) {
	found := User{Name: entry.Username, Home: entry.HomeDir, Shell: lookUpShell(entry.Username)}
	ids, err := entry.GroupIds()
	if err != nil {
		return User{}, fmt.Errorf("look up the groups of user %s: %w", entry.Username, err)
	}
	numbers := make([]int, 0, len(ids)+2)
	for _, text := range append([]string{entry.Uid, entry.Gid}, ids...) {
		number, err := strconv.ParseUint(text, 10, 31)
		if err != nil {
			return User{}, fmt.Errorf("user %s: %q is not the number of a user or group", entry.Username, text)
		}
		numbers = append(numbers, int(number))
	}
	found.UID, found.GID, found.Groups = numbers[0], numbers[1], numbers[2:]
	return found, nil
}

// maxPasswd is the number of bytes of /etc/passwd that are read at most.
const maxPasswd = 16 << 20

// lookUpShell returns the login shell of a user, which package os/user does not report. It is empty for a user who is not in
// /etc/passwd.
func lookUpShell(name string) string {
	file, err := os.Open("/etc/passwd")
	if err != nil {
		return ""
	}
	defer func() { _ = file.Close() }()
	return findShell(io.LimitReader(file, maxPasswd), name)
}

// findShell reads the format of passwd(5): seven fields separated by colons, of which the first is the name and the last the
// shell.
func findShell(users io.Reader, name string) string {
	const fields = 7
	for lines := bufio.NewScanner(users); lines.Scan(); {
		if entry := strings.Split(lines.Text(), ":"); len(entry) == fields && entry[0] == name {
			return entry[fields-1]
		}
	}
	return ""
}

// The search paths that login programs set.
const (
	userPath = "/usr/local/bin:/usr/bin:/bin"
	rootPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)

// Environment returns the environment of a program that u runs. For the user of this process that is env, the caller's
// environment. For another user it is what a login sets, TERM, and the variables of env that preserve names.
func (u User) Environment(env, preserve []string) []string {
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
			clean = append(WithoutVariables(clean, name), entry)
		}
	}
	return clean
}

// WithoutVariables returns a copy of env without the variables of these names.
func WithoutVariables(env []string, names ...string) []string {
	return slices.DeleteFunc(slices.Clone(env), func(entry string) bool {
		name, _, _ := strings.Cut(entry, "=")
		return slices.Contains(names, name)
	})
}

// maxDescriptor bounds the numbers of descriptors to keep. By default the kernel gives no process a higher one.
const maxDescriptor = 1 << 20

// ValidateInherited checks the variables to preserve and the descriptors to keep. It returns one error for each fault.
func ValidateInherited(preserve []string, keep []int) (errs []error) {
	for _, name := range preserve {
		if name == "" || strings.ContainsAny(name, "=\x00") {
			errs = append(errs, fmt.Errorf("%q is not the name of a variable", name))
		}
	}
	for _, descriptor := range keep {
		if descriptor < firstInherited || descriptor > maxDescriptor {
			errs = append(errs, fmt.Errorf("descriptor %d: must be between %d and %d; 0, 1 and 2 are always kept", descriptor, firstInherited, maxDescriptor))
		}
	}
	return errs
}

// firstInherited is the first descriptor after standard input, output and error.
const firstInherited = 3
