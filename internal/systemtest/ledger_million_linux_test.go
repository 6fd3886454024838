// Promise: a million live tokens take little memory, and a restart with them little time. Only a benchmark measures it:
//
//	go test ./internal/systemtest -run '^$' -bench LedgerRestart -benchtime 1x -timeout 1h

package systemtest

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	clientv3 "go.etcd.io/etcd/client/v3"
	"k8s.io/apimachinery/pkg/runtime"

	"lanyard.dev/internal/apiserver/issuance"
	"lanyard.dev/internal/etcd"
	"lanyard.dev/internal/ledger"
)

// BenchmarkLedgerRestart starts an authority on a store with the records of many tokens, and reports its memory beyond that of an
// authority without them, and the time until it is ready. Under load, dozens of records share a batch; a batch with one
// record is the worst case.
func BenchmarkLedgerRestart(b *testing.B) {
	for _, f := range []fleet{{1_000_000, 64}, {1_000_000, 4}, {200_000, 1}} {
		b.Run(fmt.Sprintf("tokens=%d/records-in-batch=%d", f.tokens, f.perBatch), func(b *testing.B) {
			h := newUpServer(b)
			h.measureStart(b, "") // creates what a first start creates
			empty := h.measureStart(b, "")
			f.write(b, filepath.Join(h.dir, "etcd"))
			for b.Loop() {
				last := f.token(f.tokens - 1)
				full := h.measureStart(b, issuedTokensPath(last.Namespace)+"/"+last.ID)
				b.ReportMetric(full.ready.Seconds(), "s-ready")
				b.ReportMetric(empty.ready.Seconds(), "s-ready-empty")
				b.ReportMetric(full.resident-empty.resident, "MiB-resident-beyond-empty")
				b.ReportMetric(full.anonymous-empty.anonymous, "MiB-anonymous-beyond-empty")
				b.ReportMetric(full.peak, "MiB-peak")
				b.ReportMetric(empty.resident, "MiB-resident-empty")
			}
		})
	}
}

// idleTime is how long an authority is idle before its memory is measured.
const idleTime = 15 * time.Second

// startMeasure is the cost of a start. Sizes are in MiB.
type startMeasure struct {
	ready                     time.Duration
	resident, anonymous, peak float64
}

// measureStart starts an authority, measures it, reads the object at path, if not empty, and ends the authority.
func (h *upServer) measureStart(b *testing.B, path string) (m startMeasure) {
	b.Helper()
	began := time.Now()
	p := h.start(b)
	m.ready = time.Since(began)
	time.Sleep(idleTime)
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.process.Process.Pid))
	if err != nil {
		b.Fatal(err)
	}
	for name, to := range map[string]*float64{"VmRSS:": &m.resident, "RssAnon:": &m.anonymous, "VmHWM:": &m.peak} {
		_, rest, _ := strings.Cut(string(status), name)
		kib, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
		if err != nil {
			b.Fatal(err)
		}
		*to = kib / 1024
	}
	if path != "" {
		callerFor(b, h.config(b)).must(b, http.MethodGet, path, nil)
	}
	if _, err := p.end(b, syscall.SIGTERM); err != nil {
		b.Fatal(err)
	}
	return m
}

// fleet are tokens of pods on 5,000 nodes, and how many records share a batch.
type fleet struct{ tokens, perBatch int }

// leasedKeys is how many batches share a lease, as when the authority writes them.
const leasedKeys = 1000

// write writes the records into the store of an authority that does not run.
func (f fleet) write(b *testing.B, dir string) {
	b.Helper()
	store, err := etcd.Start(b.Context(), etcd.Config{Dir: dir, UnsafeNoFsync: true})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = store.Stop(context.WithoutCancel(b.Context())) }()
	client, err := store.Client()
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	writer := uuid.NewString()
	var next atomic.Int64
	var writing sync.WaitGroup
	for range 16 {
		writing.Go(func() {
			var lease *clientv3.LeaseGrantResponse
			var err error
			for n := 0; ; n++ {
				number := int(next.Add(1)) - 1
				if number*f.perBatch >= f.tokens {
					return
				}
				if n%leasedKeys == 0 {
					if lease, err = client.Grant(b.Context(), int64((26 * time.Hour).Seconds())); err != nil {
						b.Error(err)
						return
					}
				}
				if err := f.writeBatch(b.Context(), client, fmt.Sprintf("%s-%d", writer, number), number, lease.ID); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	writing.Wait()
}

func (f fleet) writeBatch(ctx context.Context, client *clientv3.Client, name string, number int, lease clientv3.LeaseID) error {
	var batch ledger.Batch
	for n := number * f.perBatch; n < min((number+1)*f.perBatch, f.tokens); n++ {
		batch.Tokens = append(batch.Tokens, f.token(n))
	}
	content, err := batch.Marshal()
	if err != nil {
		return err
	}
	object := &issuance.Object{Content: content}
	object.Name = name
	value, err := runtime.Encode(issuance.Codec{}, object)
	if err != nil {
		return err
	}
	_, err = client.Put(ctx, "/registry"+issuance.Prefix+"/"+name, string(value), clientv3.WithLease(lease))
	return err
}

// numberedUUID returns a UUID that looks random and follows from a number.
func numberedUUID(n uint64) string {
	var id uuid.UUID
	binary.BigEndian.PutUint64(id[:], n*0x9e3779b97f4a7c15)
	binary.BigEndian.PutUint64(id[8:], n*0xc2b2ae3d27d4eb4f)
	return id.String()
}

// token returns the record of a token. There are 20,000 accounts in 1,000 namespaces, and each pod has two tokens.
func (f fleet) token(n int) ledger.Token {
	pod := uint64(n / 2)
	node, account := pod%5000, pod%20000
	now := time.Now().Truncate(time.Second)
	return ledger.Token{
		ID: numberedUUID(uint64(n)), Namespace: fmt.Sprint("namespace-", pod%1000),
		Account: fmt.Sprint("account-", account), AccountUID: numberedUUID(1<<40 + account), Audiences: []string{"https://kubernetes.default.svc"},
		Bound:  ledger.Object{Kind: "Pod", Name: fmt.Sprintf("account-%d-%010x-%05x", account, account*0x9e3779b9, pod), UID: numberedUUID(2<<40 + pod)},
		Node:   ledger.Object{Kind: "Node", Name: fmt.Sprint("node-", node), UID: numberedUUID(3<<40 + node)},
		Issued: now, Expires: now.Add(12*time.Hour + time.Duration(n%3600)*time.Second), Key: "Y-bjq70zOb_h1OzvGj2QKNLOWAliBgBoZdI6Y6nTz0Y",
		Minter: ledger.Minter{
			User: fmt.Sprint("system:node:node-", node), Credential: fmt.Sprintf("X509SHA256=%064x", node), Address: fmt.Sprintf("10.0.%d.%d", node/256, node%256),
			UserAgent: "lanyard-agent/v1.0.0 (linux/amd64)",
		},
	}
}
