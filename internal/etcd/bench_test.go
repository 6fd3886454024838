package etcd

import (
	"path/filepath"
	"testing"
)

func BenchmarkStart(b *testing.B) {
	b.Run("empty", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			cycle(b, filepath.Join(b.TempDir(), "etcd"))
		}
	})
	b.Run("existing", func(b *testing.B) {
		b.ReportAllocs()
		dir := filepath.Join(b.TempDir(), "etcd")
		cycle(b, dir)
		for b.Loop() {
			cycle(b, dir)
		}
	})
}

// cycle times the start and leaves the stop out.
func cycle(b *testing.B, dir string) {
	b.StartTimer()
	s, err := Start(b.Context(), Config{Dir: dir})
	b.StopTimer()
	if err != nil {
		b.Fatal(err)
	}
	if err := s.Stop(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.StartTimer()
}
