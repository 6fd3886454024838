package memory

import (
	"bufio"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// dropProgramPages takes the read-only pages of the executable out of this process's resident set. Failure only costs
// memory.
func dropProgramPages() {
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	smaps, err := os.Open("/proc/self/smaps")
	if err != nil {
		return
	}
	defer func() { _ = smaps.Close() }()
	for _, m := range cleanMappings(smaps, program) {
		if !m.code {
			// Constants and tables are needed here and there. A kernel that maps file pages two megabytes at a time
			// would bring nearly all of them back; for code that is worth its memory.
			_, _, _ = unix.Syscall(unix.SYS_MADVISE, m.start, m.length, unix.MADV_NOHUGEPAGE)
		}
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, m.start, m.length, unix.MADV_DONTNEED)
	}
}

// mapping is a range of addresses.
type mapping struct {
	start, length uintptr
	code          bool
}

// cleanMappings reads proc(5)'s smaps and returns the read-only private mappings of a file of which no page was ever
// written to: those alone can be read again from the file. Being read-only now is not enough, since the dynamic
// linker writes its relocations before it protects them.
func cleanMappings(smaps io.Reader, file string) []mapping {
	var clean []mapping
	var current mapping
	candidate := false
	for lines := bufio.NewScanner(smaps); lines.Scan(); {
		name, value, isDetail := strings.Cut(lines.Text(), ":")
		if !isDetail || strings.Contains(name, " ") {
			current, candidate = readOnlyRange(lines.Text(), file)
			continue
		}
		if name == "Anonymous" && candidate && strings.TrimSpace(value) == "0 kB" {
			clean = append(clean, current)
		}
	}
	return clean
}

// readOnlyRange parses the head of a mapping: "start-end perms offset dev inode path".
func readOnlyRange(line, file string) (mapping, bool) {
	fields := strings.Fields(line)
	if len(fields) < 6 || strings.Join(fields[5:], " ") != file || !strings.HasPrefix(fields[1], "r-") || !strings.HasSuffix(fields[1], "p") {
		return mapping{}, false
	}
	from, to, found := strings.Cut(fields[0], "-")
	low, err1 := strconv.ParseUint(from, 16, 64)
	high, err2 := strconv.ParseUint(to, 16, 64)
	if !found || err1 != nil || err2 != nil || high <= low {
		return mapping{}, false
	}
	return mapping{start: uintptr(low), length: uintptr(high - low), code: strings.Contains(fields[1], "x")}, true
}
