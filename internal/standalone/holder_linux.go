package standalone

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"lanyard.dev/internal/files"
)

// listenerOf names the process that listens on a TCP port. It returns "" if this user cannot find it out.
func listenerOf(port int) string {
	inode := listeningInode(port)
	if inode == "" {
		return ""
	}
	links, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, link := range links {
		if target, err := os.Readlink(link); err != nil || target != "socket:["+inode+"]" {
			continue
		}
		pid := strings.Split(link, "/")[2]
		name, err := files.Read("/proc/"+pid+"/comm", files.MaxText)
		if err != nil {
			return "process " + pid
		}
		return fmt.Sprintf("%s (process %s)", strings.TrimSpace(string(name)), pid)
	}
	return ""
}

// listeningInode returns the inode of the listening socket from the kernel's tables, in which ports are hexadecimal and
// state 0A means listening.
func listeningInode(port int) string {
	suffix := fmt.Sprintf(":%04X", port)
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		f, err := os.Open(table)
		if err != nil {
			continue
		}
		inode := scanInode(bufio.NewScanner(f), suffix)
		_ = f.Close()
		if inode != "" {
			return inode
		}
	}
	return ""
}

func scanInode(lines *bufio.Scanner, suffix string) string {
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) > 9 && strings.HasSuffix(fields[1], suffix) && fields[3] == "0A" {
			if _, err := strconv.Atoi(fields[9]); err == nil {
				return fields[9]
			}
		}
	}
	return ""
}
