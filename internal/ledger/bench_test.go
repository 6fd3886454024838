package ledger

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	clocktesting "k8s.io/utils/clock/testing"
)

const (
	million   = 1_000_000
	batchSize = 64
)

// fleetUUID returns a UUID that looks random and follows from a number.
func fleetUUID(n uint64) string {
	var id uuid.UUID
	binary.BigEndian.PutUint64(id[:], n*0x9e3779b97f4a7c15)
	binary.BigEndian.PutUint64(id[8:], n*0xc2b2ae3d27d4eb4f)
	return id.String()
}

// fleetToken returns token n of a fleet: 5,000 nodes, 1,000 namespaces with 20 accounts each, and pods with a number of tokens each.
func fleetToken(n, perPod int) Token {
	pod := uint64(n / perPod)
	node, namespace := pod%5000, pod%1000
	account := fmt.Sprint("account-", pod%20000)
	t := Token{
		ID: fleetUUID(uint64(n)), Namespace: fmt.Sprint("namespace-", namespace), Account: account, AccountUID: fleetUUID(1<<40 + pod%20000),
		Audiences: []string{"https://kubernetes.default.svc"},
		Bound:     Object{Kind: "Pod", Name: fmt.Sprintf("%s-%010x-%05x", account, pod%20000*0x9e3779b9, pod), UID: fleetUUID(2<<40 + pod)},
		Node:      Object{Kind: "Node", Name: fmt.Sprint("node-", node), UID: fleetUUID(3<<40 + node)},
		Issued:    testNow, Expires: testNow.Add(time.Hour + time.Duration(n%3600)*time.Second), Key: "dGhlIGtpZCBvZiBhIGtleQ",
		Minter: Minter{
			User: fmt.Sprint("system:node:node-", node), Credential: fmt.Sprintf("X509SHA256=%064x", node), Address: fmt.Sprint("10.0.", node/256, ".", node%256),
			UserAgent: "lanyard-agent/v1.0.0 (linux/amd64)",
		},
	}
	if n%perPod == 1 {
		t.Audiences = []string{"vault"}
	}
	return t
}

// fleetBatches returns encoded batches, as storage holds them.
func fleetBatches(b *testing.B, tokens, perPod int) [][]byte {
	b.Helper()
	var encoded [][]byte
	for n := 0; n < tokens; n += batchSize {
		var batch Batch
		for i := n; i < min(n+batchSize, tokens); i++ {
			batch.Tokens = append(batch.Tokens, fleetToken(i, perPod))
		}
		data, err := batch.Marshal()
		if err != nil {
			b.Fatal(err)
		}
		encoded = append(encoded, data)
	}
	return encoded
}

// fleet returns a memory with a million tokens.
func fleet(b *testing.B, perPod int) *Memory {
	b.Helper()
	m := NewMemory(clocktesting.NewFakePassiveClock(testNow))
	fill(b, m, fleetBatches(b, million, perPod))
	return m
}

func fill(b *testing.B, m *Memory, encoded [][]byte) {
	b.Helper()
	for i, data := range encoded {
		batch, err := Unmarshal(data)
		if err != nil {
			b.Fatal(err)
		}
		m.Apply(batch, uint64(i))
	}
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}

// BenchmarkMillion reports the memory for each of a million tokens with uses, and the time in which their batches are decoded and
// applied.
func BenchmarkMillion(b *testing.B) {
	for _, perPod := range []int{1, 2} {
		b.Run(fmt.Sprint("tokens-per-pod=", perPod), func(b *testing.B) {
			encoded := fleetBatches(b, million, perPod)
			var size int
			for _, data := range encoded {
				size += len(data)
			}
			for b.Loop() {
				before := heap()
				m := NewMemory(clocktesting.NewFakePassiveClock(testNow))
				start := time.Now()
				fill(b, m, encoded)
				b.ReportMetric(time.Since(start).Seconds(), "s/million")
				for n := range million {
					m.Used(Use{ID: fleetUUID(uint64(n)), At: testNow, Address: "10.1.2.3"})
				}
				b.ReportMetric(float64(heap()-before)/million, "B/token")
				start = time.Now()
				runtime.GC()
				b.ReportMetric(float64(time.Since(start).Milliseconds()), "ms/gc")
				runtime.KeepAlive(m)
			}
			b.ReportMetric(float64(size)/million, "encoded-B/token")
		})
	}
}

// BenchmarkApply applies decoded batches of 64 tokens to a memory that grows.
func BenchmarkApply(b *testing.B) {
	b.ReportAllocs()
	m := NewMemory(clocktesting.NewFakePassiveClock(testNow))
	m.Synced(0)
	n := 0
	for b.Loop() {
		b.StopTimer()
		var batch Batch
		for range batchSize {
			batch.Tokens = append(batch.Tokens, fleetToken(n, 2))
			n++
		}
		b.StartTimer()
		m.Apply(&batch, uint64(n))
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*batchSize), "ns/token")
}

func BenchmarkRead(b *testing.B) {
	m := fleet(b, 2)
	ids := make([]string, 1<<12)
	for i := range ids {
		ids[i] = fleetUUID(uint64(i * 211))
	}
	parallel := func(name string, call func(n int)) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			var worker atomic.Int64
			b.RunParallel(func(pb *testing.PB) {
				for n := int(worker.Add(1)) * 1000; pb.Next(); n++ {
					call(n)
				}
			})
		})
	}
	parallel("State", func(n int) {
		if m.State(ids[n%len(ids)]) != Live {
			b.Error("not live")
		}
	})
	parallel("State one token", func(int) { m.State(ids[7]) })
	parallel("Used in the same second", func(n int) { m.Used(Use{ID: ids[n%len(ids)], At: testNow, Address: "10.1.2.3"}) })
	parallel("Used later", func(n int) {
		m.Used(Use{ID: ids[n%len(ids)], At: testNow.Add(time.Duration(n) * time.Second), Address: "10.1.2.3"})
	})
	parallel("TokenRecord", func(n int) { m.TokenRecord(ids[n%len(ids)]) })
}

// BenchmarkSelect reads pages of 500 of a million tokens.
func BenchmarkSelect(b *testing.B) {
	m := fleet(b, 2)
	for name, q := range map[string]Query{
		"all": {}, "namespace": {Namespace: "namespace-7"}, "account": {Namespace: "namespace-7", Account: "account-7"},
		"node": {Node: "node-7"}, "key": {Key: "dGhlIGtpZCBvZiBhIGtleQ"}, "audience": {Audience: "vault"}, "user": {MinterUser: "system:node:node-7"},
		"bound": {Bound: Object{UID: fleetUUID(2<<40 + 7)}}, "node and key": {Node: "node-7", Key: "dGhlIGtpZCBvZiBhIGtleQ"},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			q.Limit = 500
			q.After = Position{Namespace: q.Namespace, ID: "80000000-0000-0000-0000-000000000000"}
			var page []TokenRecord
			for b.Loop() {
				page, _ = m.Select(q)
			}
			b.ReportMetric(float64(len(page)), "records")
		})
	}
}
