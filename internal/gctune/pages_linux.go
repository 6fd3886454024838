package gctune

import (
	"bufio"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// dropFilePages removes the read-only pages of mapped files from the resident set of this process: the pages of the executable,
// and the pages of the database, which etcd maps and reads ahead as a whole. A failure costs only memory.
func dropFilePages() {
	smaps, err := os.Open("/proc/self/smaps")
	if err != nil {
		return
	}
	defer func() { _ = smaps.Close() }()
	for _, m := range cleanMappings(smaps) {
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, m.start, m.length, unix.MADV_DONTNEED)
	}
}

// mapping is a range of addresses.
type mapping struct{ start, length uintptr }

// cleanMappings reads proc(5)'s smaps and returns the read-only mappings of files of which this process has written no page.
// Only those can be read from the file again. That a mapping is read-only now is not enough: the dynamic linker writes its
// relocations before it makes the pages read-only.
func cleanMappings(smaps io.Reader) []mapping {
	var clean []mapping
	var current mapping
	candidate := false
	for lines := bufio.NewScanner(smaps); lines.Scan(); {
		name, value, isDetail := strings.Cut(lines.Text(), ":")
		if !isDetail || strings.Contains(name, " ") {
			current, candidate = readOnlyRange(lines.Text())
			continue
		}
		if name == "Anonymous" && candidate && strings.TrimSpace(value) == "0 kB" {
			clean = append(clean, current)
		}
	}
	return clean
}

// readOnlyRange parses the head of a mapping: "start-end perms offset dev inode path".
func readOnlyRange(line string) (mapping, bool) {
	fields := strings.Fields(line)
	if len(fields) < 6 || !strings.HasPrefix(fields[5], "/") || !strings.HasPrefix(fields[1], "r-") {
		return mapping{}, false
	}
	from, to, found := strings.Cut(fields[0], "-")
	low, err1 := strconv.ParseUint(from, 16, 64)
	high, err2 := strconv.ParseUint(to, 16, 64)
	if !found || err1 != nil || err2 != nil || high <= low {
		return mapping{}, false
	}
	return mapping{start: uintptr(low), length: uintptr(high - low)}, true
}
