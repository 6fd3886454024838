package etcd

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestNoTCP checks every descriptor of this process while a member serves a client. None may be a TCP or UDP socket.
func TestNoTCP(t *testing.T) {
	t.Parallel()
	s := start(t, Config{Dir: filepath.Join(t.TempDir(), "etcd"), UnsafeNoFsync: true})
	if _, err := client(t, s).Put(t.Context(), "a", "1"); err != nil {
		t.Fatal(err)
	}
	mine := socketInodes(t)
	if len(mine) == 0 {
		t.Fatal("found no sockets at all, not even the unix one")
	}
	for _, table := range []string{"tcp", "tcp6", "udp", "udp6"} {
		for _, inode := range tableInodes(t, table) {
			if mine[inode] {
				t.Errorf("the member holds a %s socket", table)
			}
		}
	}
}

func socketInodes(t *testing.T) map[string]bool {
	t.Helper()
	descriptors, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	inodes := map[string]bool{}
	for _, descriptor := range descriptors {
		target, err := os.Readlink(descriptor)
		if err == nil && strings.HasPrefix(target, "socket:[") {
			inodes[strings.Trim(target, "socket:[]")] = true
		}
	}
	return inodes
}

func tableInodes(t *testing.T, table string) []string {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/self/net/%s", table))
	if err != nil {
		t.Skip(err)
	}
	var inodes []string
	for _, line := range strings.Split(string(data), "\n")[1:] {
		if fields := strings.Fields(line); len(fields) > 9 {
			inodes = append(inodes, fields[9])
		}
	}
	return inodes
}
