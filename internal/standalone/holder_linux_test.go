package standalone

import (
	"bufio"
	"strings"
	"testing"
)

const (
	socketsHeader = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
	socketsTail   = " 00000000:00000000 00:00000000 00000000     0        0 4242 1"
)

func TestScanInode(t *testing.T) {
	t.Parallel()
	for table, want := range map[string]string{
		"   0: 0100007F:192B 00000000:0000 0A" + socketsTail:  "4242",
		"   0: 0100007F:192B 0100007F:0001 01" + socketsTail:  "", // a connection, not a listener
		"   0: 0100007F:192C 00000000:0000 0A" + socketsTail:  "",
		"   0: 0100007F:192B 00000000:0000 0A":                "",
		"   0: 0100007F:192B 00000000:0000 0A 0 0 0 0 0 ../x": "",
		"": "",
	} {
		if got := scanInode(bufio.NewScanner(strings.NewReader(socketsHeader+table)), ":192B"); got != want {
			t.Errorf("%q: got %q, want %q", table, got, want)
		}
	}
}

func FuzzScanInode(f *testing.F) {
	f.Add(socketsHeader + "   0: 0100007F:192B 00000000:0000 0A" + socketsTail)
	f.Fuzz(func(t *testing.T, table string) {
		if got := scanInode(bufio.NewScanner(strings.NewReader(table)), ":192B"); strings.Trim(got, "0123456789+-") != "" {
			t.Errorf("%q is no inode", got)
		}
	})
}
