package datadir

import (
	"io"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
)

// findOthers searches the processes of this machine, this user's first. Every user can see the owner and the command line of
// a process, unless the administrator has disabled that, so an instance has to publish nothing.
func findOthers() []Process {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	var found []Process
	for _, dir := range dirs {
		if other, ok := readProcess(dir); ok {
			found = append(found, other)
		}
	}
	slices.SortFunc(found, func(a, b Process) int {
		if a.Mine != b.Mine {
			return map[bool]int{true: -1, false: 1}[a.Mine]
		}
		return a.PID - b.PID
	})
	return found
}

func readProcess(dir string) (Process, bool) {
	pid, err := strconv.Atoi(filepath.Base(dir))
	if err != nil {
		return Process{}, false
	}
	f, err := os.Open(filepath.Join(dir, "cmdline"))
	if err != nil {
		return Process{}, false
	}
	defer f.Close()
	commandLine, err := io.ReadAll(io.LimitReader(f, maxCommandLine))
	if err != nil || !isUpCommand(commandLine) {
		return Process{}, false
	}
	info, err := os.Stat(dir)
	if err != nil {
		return Process{}, false
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return Process{}, false
	}
	return Process{PID: pid, User: userName(stat.Uid), Mine: int(stat.Uid) == os.Geteuid()}, true
}

func userName(uid uint32) string {
	id := strconv.FormatUint(uint64(uid), 10)
	if known, err := user.LookupId(id); err == nil {
		return known.Username
	}
	return "#" + id // the form that sudo -u accepts
}
