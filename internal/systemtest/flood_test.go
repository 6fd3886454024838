// Promise: one caller without rights cannot keep the server from answering others.

package systemtest

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

const selfReviewPath = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"

// flood is an attack on an authority by one account without rights, and two callers that must still be answered: a node and
// an account like the attacker's.
type flood struct {
	url, token    string
	admin         *caller
	node          *caller
	neighbour     *caller
	renewed       atomic.Int64
	missedRenewal chan error // the first renewal that failed
	connections   []net.Conn
}

// newFlood starts an authority in a process of its own.
func newFlood(t *testing.T) *flood {
	t.Helper()
	h := newUpServer(t)
	h.start(t)
	config := h.config(t)
	client := clientFor(t, config)
	tokens := map[string]string{}
	for _, name := range []string{"attacker", "neighbour"} {
		createAccount(t, client, metav1.NamespaceDefault, name)
		tokens[name] = accountToken(t, client, metav1.NamespaceDefault, name)
	}
	f := &flood{
		url: config.Host, missedRenewal: make(chan error, 1), token: tokens["attacker"], admin: callerFor(t, config),
		node: callerFor(t, nodeConfig(t, h.dir, config, "steady")), neighbour: bearer(t, config, tokens["neighbour"]),
	}
	t.Cleanup(f.closeConnections)
	return f
}

func (f *flood) closeConnections() {
	for _, c := range f.connections {
		_ = c.Close()
	}
	f.connections = nil
}

// renewLease renews the node's Lease without a pause until the test ends.
func (f *flood) renewLease(t *testing.T) {
	t.Helper()
	lease := coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: "steady", Namespace: corev1.NamespaceNodeLease}}
	lease.Spec.LeaseDurationSeconds = ptr.To[int32](40)
	path := "/apis/coordination.k8s.io/v1/namespaces/" + lease.Namespace + "/leases"
	f.node.must(t, http.MethodPost, path, lease)
	ctx := t.Context()
	go func() {
		for ctx.Err() == nil {
			now := fmt.Sprintf(`{"spec":{"renewTime":%q}}`, time.Now().UTC().Format(metav1.RFC3339Micro))
			got, err := f.node.try(ctx, http.MethodPatch, path+"/steady", []byte(now), "Content-Type", "application/merge-patch+json")
			switch {
			case ctx.Err() != nil:
				return
			case err != nil || got.code != http.StatusOK:
				f.missedRenewal <- fmt.Errorf("renewal %d: %v, %v", f.renewed.Load(), got, err)
				return
			}
			f.renewed.Add(1)
		}
	}()
}

// resident returns the resident memory of the server's process, in bytes.
func (f *flood) resident(t *testing.T) int {
	t.Helper()
	text := f.admin.must(t, http.MethodGet, "/metrics", nil).body
	found := regexp.MustCompile(`(?m)^process_resident_memory_bytes (\S+)$`).FindSubmatch(text)
	if found == nil {
		t.Skip("this system does not report the memory of a process")
	}
	value, err := strconv.ParseFloat(string(found[1]), 64)
	if err != nil {
		t.Fatal(err)
	}
	return int(value)
}

// connect opens a connection that is never read. Its receive buffer has the smallest possible size.
func (f *flood) connect(t *testing.T, protocol string) *tls.Conn {
	t.Helper()
	plain, err := net.Dial("tcp", strings.TrimPrefix(f.url, "https://"))
	if err != nil {
		t.Fatal(err)
	}
	f.connections = append(f.connections, plain)
	if err := plain.(*net.TCPConn).SetReadBuffer(1); err != nil {
		t.Fatal(err)
	}
	// A write that the server never reads must not block the attack.
	if err := plain.SetDeadline(time.Now().Add(waitLimit)); err != nil {
		t.Fatal(err)
	}
	conn := tls.Client(plain, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protocol}})
	if err := conn.HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	return conn
}

// reviewNaming returns the body of a review whose answer repeats a name of this length.
func reviewNaming(length int) string {
	return `{"apiVersion":"authorization.k8s.io/v1","kind":"SelfSubjectAccessReview","spec":{"resourceAttributes":{"verb":"get","resource":"pods","namespace":"default","name":"` +
		strings.Repeat("x", length) + `"}}}`
}

// postUnread sends a body several times over many HTTP/1.1 connections and reads no answer.
func (f *flood) postUnread(t *testing.T, connections, times int, body string) {
	t.Helper()
	text := []byte(fmt.Sprintf("POST %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		selfReviewPath, f.token, len(body), body))
	for range connections {
		conn := f.connect(t, "http/1.1")
		go func() {
			for range times {
				if _, err := conn.Write(text); err != nil {
					return // the connection was closed, or the deadline has passed
				}
			}
		}()
	}
}

// postStreams sends the body on 100 streams of each of several HTTP/2 connections, with windows of this size.
func (f *flood) postStreams(t *testing.T, connections int, window uint32, body string) {
	t.Helper()
	for range connections {
		f.openStreams(t, window, 100, func(framer *http2.Framer, stream uint32, header []byte) error {
			return errors.Join(
				framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: header, EndHeaders: true}),
				framer.WriteData(stream, true, []byte(body)),
			)
		})
	}
}

// openStreams opens streams on one connection. each writes the frames of one stream.
func (f *flood) openStreams(t *testing.T, window uint32, streams int, each func(framer *http2.Framer, stream uint32, header []byte) error) *tls.Conn {
	t.Helper()
	conn := f.connect(t, "h2")
	var frames bytes.Buffer
	frames.WriteString(http2.ClientPreface)
	framer := http2.NewFramer(&frames, nil)
	if err := errors.Join(framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: window}), framer.WriteWindowUpdate(0, 1<<30)); err != nil {
		t.Fatal(err)
	}
	var header bytes.Buffer
	encoder := hpack.NewEncoder(&header)
	for i := range streams {
		header.Reset()
		for _, field := range [][2]string{
			{":method", "POST"}, {":scheme", "https"}, {":authority", "x"}, {":path", selfReviewPath},
			{"authorization", "Bearer " + f.token}, {"content-type", "application/json"},
		} {
			if err := encoder.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]}); err != nil {
				t.Fatal(err)
			}
		}
		if err := each(framer, uint32(2*i+1), header.Bytes()); err != nil {
			t.Fatal(err)
		}
	}
	go func() { _, _ = conn.Write(frames.Bytes()) }()
	return conn
}

// observe waits until the node has renewed its Lease 20 times. The neighbour must be answered meanwhile. It returns the most
// resident memory seen.
func (f *flood) observe(t *testing.T) (most int) {
	t.Helper()
	const renewals = 20
	before := f.renewed.Load()
	eventually(t, "renewals of the Lease", func(ctx context.Context) bool {
		most = max(most, f.resident(t))
		if got, err := f.neighbour.try(ctx, http.MethodPost, selfReviewPath, []byte(reviewNaming(1))); err != nil || got.code != http.StatusCreated {
			t.Errorf("the neighbour: %.200s, %v", got, err)
			return true
		}
		select {
		case err := <-f.missedRenewal:
			t.Fatalf("the node: %v", err)
		default:
		}
		return f.renewed.Load() >= before+renewals
	})
	return most
}

// TestOneCallerCannotStopOthers attacks an authority in each way in which one account without rights can hold its places, memory
// and connections, while a node renews its Lease and an account like the attacker's sends requests.
func TestOneCallerCannotStopOthers(t *testing.T) {
	t.Parallel()
	f := newFlood(t)
	f.renewLease(t)
	idle := f.observe(t)
	for _, attack := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"bodies over the limit", func(t *testing.T) { f.postUnread(t, 210, 1, reviewNaming(3_000_000)) }},
		{"answers that are never read", func(t *testing.T) { f.postUnread(t, 210, 20, reviewNaming(60_000)) }},
		{"streams with a closed window", func(t *testing.T) { f.postStreams(t, 4, 0, reviewNaming(60_000)) }},
		{"streams over a blocked connection", func(t *testing.T) { f.postStreams(t, 4, 1<<30, reviewNaming(60_000)) }},
		{"rapid reset", f.resetRapidly},
	} {
		t.Run(attack.name, func(t *testing.T) {
			attack.run(t)
			most := f.observe(t)
			t.Logf("resident memory: idle %d MiB, now %d MiB", idle>>20, most>>20)
			// Right after its start a server uses little memory, and any work makes it grow.
			if limit := 2 * max(idle, 160<<20); most >= limit {
				t.Errorf("memory grew from %d to %d MiB, want less than %d MiB", idle>>20, most>>20, limit>>20)
			}
			f.closeConnections()
		})
	}
}

// resetRapidly opens streams and resets each at once, many more than a connection may have open.
func (f *flood) resetRapidly(t *testing.T) {
	t.Helper()
	for range 4 {
		f.openStreams(t, 1<<16, 5000, func(framer *http2.Framer, stream uint32, header []byte) error {
			return errors.Join(
				framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: header, EndHeaders: true}),
				framer.WriteRSTStream(stream, http2.ErrCodeCancel),
			)
		})
	}
}
