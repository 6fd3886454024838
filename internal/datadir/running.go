package datadir

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"lanyard.dev/internal/files"
	"lanyard.dev/internal/hint"
)

// Running is an instance that this user runs on this machine.
type Running struct {
	DataDir string `json:"dataDir"`
	PID     int    `json:"pid"`
	URL     string `json:"url"`
}

// Kubeconfig is the administrator's kubeconfig of the instance.
func (r Running) Kubeconfig() string { return filepath.Join(r.DataDir, kubeconfigName) }

const (
	recordSuffix     = ".json"
	recordLockSuffix = ".lock"

	// maxRecord is the limit for reading a record.
	maxRecord = 64 << 10
)

// record is what an instance publishes: NAME.json, which is valid while a process has the lock on NAME.lock. They are two
// files because on some systems other processes cannot read a locked file.
type record struct {
	base string
	lock *files.Lock
}

// Announce publishes that this instance is ready at url, for FindRunning and for the error of a second Open. It may be
// called again when url changes. An error means only that other commands do not find this instance.
func (d *Dir) Announce(url string) error {
	if err := d.writeOwner(url); err != nil {
		return err
	}
	if d.record == nil {
		opened, err := openRecord(runtimeDir(), d.path)
		if err != nil {
			return err
		}
		d.record = opened
	}
	return d.record.write(Running{DataDir: d.path, PID: os.Getpid(), URL: url})
}

func openRecord(dir, dataDir string) (*record, error) {
	if err := createRuntimeDir(dir); err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte(dataDir))
	base := filepath.Join(dir, hex.EncodeToString(sum[:8]))
	// A process that looks for stale records holds the lock for a moment. It may also remove the file after this process has opened
	// it and before it has locked it.
	for range 100 {
		lock, err := files.TryLock(base + recordLockSuffix)
		if err == nil && lock.InPlace() {
			return &record{base: base, lock: lock}, nil
		}
		if err == nil {
			_ = lock.Release()
		} else if !errors.Is(err, files.ErrLocked) {
			return nil, unwritable(base+recordLockSuffix, err)
		}
	}
	return nil, files.Unusable(base+recordLockSuffix, "is locked by another process", nil,
		"stop that process, or set "+runtimeDirEnv)
}

func (r *record) write(running Running) error {
	data, err := json.Marshal(running)
	if err != nil {
		return fmt.Errorf("encode the record of %s: %w", running.DataDir, err)
	}
	if err := files.Write(r.base+recordSuffix, append(data, '\n'), 0o600); err != nil {
		return unwritable(r.base+recordSuffix, err)
	}
	return nil
}

// withdraw removes both files while this process has the lock, so that it cannot remove the files of another instance.
func (r *record) withdraw() error {
	_ = os.Remove(r.base + recordSuffix)
	_ = os.Remove(r.base + recordLockSuffix)
	return r.lock.Release()
}

// FindRunning returns the instances that this user runs on this machine, in no particular order. It removes the records of
// instances that were killed. It is no error if there are none.
func FindRunning() ([]Running, error) {
	dir := runtimeDir()
	if ok, err := trusted(dir); err != nil || !ok {
		return nil, err
	}
	names, err := filepath.Glob(filepath.Join(escape(dir), "*"+recordSuffix))
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", dir, err)
	}
	var found []Running
	for _, name := range names {
		if running, ok := readRecord(strings.TrimSuffix(name, recordSuffix)); ok {
			found = append(found, running)
		}
	}
	return found, nil
}

// escape returns a pattern that matches dir.
func escape(dir string) string {
	return strings.NewReplacer(`*`, `[*]`, `?`, `[?]`, `[`, `[[]`).Replace(dir)
}

// readRecord reads a valid record, and removes one that is not valid any more.
func readRecord(base string) (Running, bool) {
	lock, err := files.TryLock(base + recordLockSuffix)
	if err == nil {
		_ = (&record{base: base, lock: lock}).withdraw()
		return Running{}, false
	}
	if !errors.Is(err, files.ErrLocked) {
		return Running{}, false
	}
	return parseRecordFile(base + recordSuffix)
}

func parseRecordFile(path string) (Running, bool) {
	data, err := files.Read(path, maxRecord)
	if err != nil {
		return Running{}, false
	}
	var running Running
	if json.Unmarshal(data, &running) != nil || !filepath.IsAbs(running.DataDir) {
		return Running{}, false
	}
	return running, true
}

// runtimeDirEnv replaces the directory in which running instances are recorded.
const runtimeDirEnv = "LANYARD_RUNTIME_DIR"

// runtimeDir returns the directory in which the instances of this user are recorded. It must not survive a reboot, and other
// users must not be able to write to it.
func runtimeDir() string {
	return runtimeDirFor(os.Geteuid(), os.Getenv, os.TempDir(), runtime.GOOS)
}

func runtimeDirFor(uid int, getenv func(string) string, temporary, system string) string {
	if dir := getenv(runtimeDirEnv); dir != "" {
		return dir
	}
	if uid == 0 && system == "linux" {
		return "/run/lanyard"
	}
	if dir := getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "lanyard")
	}
	return filepath.Join(temporary, fmt.Sprintf("lanyard-%d", uid))
}

// createRuntimeDir creates the directory, or checks an existing one.
func createRuntimeDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return files.Unusable(dir, "cannot be created", err, "set "+runtimeDirEnv+" to a directory of yours")
	}
	_, err := trusted(dir)
	return err
}

// trusted reports whether dir exists. It refuses a directory that another user could have created, because the records in it
// decide to which server kubectl connects.
func trusted(dir string) (bool, error) {
	info, err := os.Lstat(dir)
	// A directory that this user may not read has no records of this user. The environment may name it after su.
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return false, nil
	}
	if err != nil {
		return false, files.Unusable(dir, "cannot be read", err, "set "+runtimeDirEnv+" to a directory of yours")
	}
	owner, mine := files.OwnedByMe(info)
	open := runtime.GOOS != "windows" && info.Mode().Perm()&0o022 != 0
	problem := ""
	switch {
	case !info.IsDir():
		problem = "is not a directory"
	case !mine:
		problem = fmt.Sprintf("belongs to another user (%s)", owner)
	case open:
		problem = fmt.Sprintf("may be written by other users (mode %04o)", info.Mode().Perm())
	}
	if problem == "" {
		return true, nil
	}
	return false, files.Unusable(dir, problem, nil, "remove it, or set "+runtimeDirEnv+" to a directory of yours")
}

// ErrNoneRunning reports that this user runs no instance on this machine.
var ErrNoneRunning = errors.New("no authority of this user runs on this machine")

// FindOne returns the only instance that this user runs. If there is none, the error is ErrNoneRunning. If there are
// several, the error lists them. Both errors have a hint.
func FindOne() (Running, error) {
	running, err := FindRunning()
	switch {
	case err != nil:
		return Running{}, err
	case len(running) == 0:
		return Running{}, noneRunning(findOthers(), os.Geteuid() == 0)
	case len(running) > 1:
		return Running{}, severalRunning(running)
	}
	return running[0], nil
}

func severalRunning(running []Running) error {
	var lines []string
	for _, r := range running {
		lines = append(lines, fmt.Sprintf("%s (%s)", r.DataDir, r.URL))
	}
	slices.Sort(lines)
	return hint.New(fmt.Errorf("%d authorities are running on this machine: %s", len(running), strings.Join(lines, ", ")),
		"choose one, as with --kubeconfig "+running[0].Kubeconfig())
}

// Process is a lanyard up that FindRunning does not find, because another user runs it, or because it is recorded in another
// directory or not yet.
type Process struct {
	PID  int
	User string // name of the user who runs it
	Mine bool   // whether this user runs it
}

// maxNamed limits how many processes a hint names.
const maxNamed = 3

// maxCommandLine is the limit for reading a command line. isUpCommand needs only its beginning.
const maxCommandLine = 4 << 10

// isUpCommand reports whether a command line runs lanyard up. Each of its arguments ends with a zero byte.
func isUpCommand(commandLine []byte) bool {
	args := bytes.Split(commandLine, []byte{0})
	return len(args) > 2 && filepath.Base(string(args[0])) == "lanyard" && string(args[1]) == "up"
}

// noneRunning returns ErrNoneRunning with a hint about the other processes and how to use them. root is whether this user
// may read every kubeconfig.
func noneRunning(others []Process, root bool) error {
	const start = "start one with lanyard up"
	if len(others) == 0 {
		return hint.New(ErrNoneRunning, start+", or name a kubeconfig with --kubeconfig or KUBECONFIG")
	}
	first, described := others[0], describe(others)
	switch {
	case first.Mine:
		return hint.New(ErrNoneRunning, fmt.Sprintf("%s, recorded in another directory or not yet (see LANYARD_RUNTIME_DIR and XDG_RUNTIME_DIR): "+
			"name its kubeconfig, which it printed at its start, with --kubeconfig or KUBECONFIG, or %s", described, start))
	case root:
		return hint.New(ErrNoneRunning, fmt.Sprintf("%s: name its kubeconfig, which it printed at its start, with --kubeconfig or KUBECONFIG, or %s", described, start))
	}
	as := "sudo -u " + first.User
	if first.User == "root" {
		as = "sudo"
	}
	return hint.New(ErrNoneRunning, fmt.Sprintf("%s, whose kubeconfig you may not read: name one of your own with --kubeconfig or KUBECONFIG "+
		"(an administrator makes it with lanyard user kubeconfig), use %s, or %s", described, as, start))
}

// describe returns a text with the processes of the first user.
func describe(others []Process) string {
	first := others[0]
	var pids []string
	for _, other := range others {
		if other.User == first.User && len(pids) < maxNamed {
			pids = append(pids, fmt.Sprint(other.PID))
		}
	}
	whose, word := "user "+first.User, "process"
	if first.Mine {
		whose = "this user"
	}
	if len(pids) > 1 {
		word = "processes"
	}
	return fmt.Sprintf("%s runs lanyard up (%s %s)", whose, word, strings.Join(pids, ", "))
}
