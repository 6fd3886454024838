package gctune

import (
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const smaps = `00400000-00402000 r--p 00000000 08:01 12                  /opt/my programs/lanyard
Rss:                   8 kB
Anonymous:             0 kB
VmFlags: rd mr mw me sd
00402000-00405000 r-xp 00002000 08:01 12                  /opt/my programs/lanyard
Rss:                  12 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me sd
00405000-00406000 r--p 00005000 08:01 12                  /opt/my programs/lanyard
Rss:                   4 kB
Anonymous:             4 kB
VmFlags: rd mr mw me ac sd
00406000-00407000 rw-p 00006000 08:01 12                  /opt/my programs/lanyard
Anonymous:             0 kB
00407000-00408000 r--s 00007000 08:01 12                  /opt/my programs/lanyard
Anonymous:             0 kB
7f0000000000-7f0000001000 r-xp 00000000 08:01 13          /lib/libc.so
Anonymous:             0 kB
7f0000002000-7f0000003000 r--p 00000000 00:00 0
Anonymous:             0 kB
7f0000004000-7f0000003000 r--p 00000000 08:01 12          /opt/my programs/lanyard
Anonymous:             0 kB
`

// TestCleanMappings leaves out a mapping with relocations, one that is writable, one without a file, and one whose end is
// before its start.
func TestCleanMappings(t *testing.T) {
	t.Parallel()
	got := cleanMappings(strings.NewReader(smaps))
	want := []mapping{{0x400000, 0x2000}, {0x402000, 0x3000}, {0x407000, 0x1000}, {0x7f0000000000, 0x1000}}
	if !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// TestSettle checks that pages are released, and that the program still runs without them.
func TestSettle(t *testing.T) {
	before := residentFile(t)
	Settle()
	if after := residentFile(t); after >= before {
		t.Errorf("resident pages of files: %d kB before, %d kB after", before, after)
	}
	// With cgo, this calls libc through pages that the dynamic linker has written.
	if _, err := user.LookupId(strconv.Itoa(os.Getuid())); err != nil {
		t.Error(err)
	}
}

func residentFile(t *testing.T) int {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "RssFile:"); ok {
			kb, err := strconv.Atoi(strings.Fields(rest)[0])
			if err != nil {
				t.Fatal(err)
			}
			return kb
		}
	}
	t.Fatal("no RssFile in /proc/self/status")
	return 0
}
