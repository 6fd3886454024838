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
	authenticationv1 "k8s.io/api/authentication/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

const selfReviewPath = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"

// flood is an account without any right that tries to stop an authority, beside those who must not notice.
type flood struct {
	url, token  string
	admin       *caller
	node        *caller
	neighbour   *caller
	renewed     atomic.Int64
	missed      chan error // the first renewal that was not answered well
	connections []net.Conn
}

// newFlood starts an authority in a process of its own, and a node that renews its Lease until the test ends.
func newFlood(t *testing.T) *flood {
	t.Helper()
	h := newHousehold(t)
	h.up(t)
	config := h.config(t)
	core := clientFor(t, config).CoreV1()
	tokens := map[string]string{}
	for _, name := range []string{"attacker", "neighbour"} {
		account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}
		if _, err := core.ServiceAccounts("default").Create(t.Context(), account, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		issued, err := core.ServiceAccounts("default").CreateToken(t.Context(), name, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		tokens[name] = issued.Status.Token
	}
	f := &flood{
		url: config.Host, missed: make(chan error, 1), token: tokens["attacker"], admin: callerFor(t, config),
		node: callerFor(t, nodeConfig(t, h.dir, config, "steady")), neighbour: bearer(t, config, tokens["neighbour"]),
	}
	t.Cleanup(f.hangUp)
	return f
}

func (f *flood) hangUp() {
	for _, c := range f.connections {
		_ = c.Close()
	}
	f.connections = nil
}

// renew renews the node's Lease again and again until the test ends.
func (f *flood) renew(t *testing.T) {
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
				f.missed <- fmt.Errorf("renewal %d: %v, %v", f.renewed.Load(), got, err)
				return
			}
			f.renewed.Add(1)
		}
	}()
}

// resident is the memory of the server process, in bytes.
func (f *flood) resident(t *testing.T) int {
	t.Helper()
	text := f.admin.must(t, http.MethodGet, "/metrics", nil).body
	found := regexp.MustCompile(`(?m)^process_resident_memory_bytes (\S+)$`).FindSubmatch(text)
	if found == nil {
		t.Skip("the system does not tell how much memory a process has")
	}
	value, err := strconv.ParseFloat(string(found[1]), 64)
	if err != nil {
		t.Fatal(err)
	}
	return int(value)
}

// connect opens a connection that will never be read: its receive buffer is as small as it can be.
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
	// What the server never takes must not stop the attack.
	if err := plain.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	conn := tls.Client(plain, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protocol}})
	if err := conn.HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	return conn
}

// review is the body of a review whose answer repeats a name of this length.
func reviewNaming(length int) string {
	return `{"apiVersion":"authorization.k8s.io/v1","kind":"SelfSubjectAccessReview","spec":{"resourceAttributes":{"verb":"get","resource":"pods","namespace":"default","name":"` +
		strings.Repeat("x", length) + `"}}}`
}

// unread posts a body again and again over many connections of HTTP/1.1 and reads no answer.
func (f *flood) unread(t *testing.T, connections, times int, body string) {
	t.Helper()
	text := []byte(fmt.Sprintf("POST %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		selfReviewPath, f.token, len(body), body))
	for range connections {
		conn := f.connect(t, "http/1.1")
		go func() {
			for range times {
				if _, err := conn.Write(text); err != nil {
					return // refused, or not taken any more
				}
			}
		}()
	}
}

// streams posts the body on every stream that each of some connections of HTTP/2 may have, with windows of this size.
func (f *flood) streams(t *testing.T, connections int, window uint32, body string) {
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

// openStreams writes a request on each of many streams of one connection.
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

// watchOver lets the attack last while the node renews its Lease many times and a neighbour, who has no more rights than
// the attacker, is answered; it returns the most memory seen.
func (f *flood) watchOver(t *testing.T) (most int) {
	t.Helper()
	const renewals = 20
	before := f.renewed.Load()
	eventually(t, "renewals", func(ctx context.Context) bool {
		most = max(most, f.resident(t))
		if got, err := f.neighbour.try(ctx, http.MethodPost, selfReviewPath, []byte(reviewNaming(1))); err != nil || got.code != http.StatusCreated {
			t.Errorf("the neighbour: %.200s, %v", got, err)
			return true
		}
		select {
		case err := <-f.missed:
			t.Fatalf("the node: %v", err)
		default:
		}
		return f.renewed.Load() >= before+renewals
	})
	return most
}

// TestOneCallerStopsNobody attacks an authority in each way that one account without rights has to hold its places,
// memory and connections, beside a node that renews its Lease and an account like the attacker's.
func TestOneCallerStopsNobody(t *testing.T) {
	t.Parallel()
	f := newFlood(t)
	f.renew(t)
	idle := f.watchOver(t)
	for _, attack := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"bodies over the limit", func(t *testing.T) { f.unread(t, 210, 1, reviewNaming(3_000_000)) }},
		{"answers that nobody reads", func(t *testing.T) { f.unread(t, 210, 20, reviewNaming(60_000)) }},
		{"streams with a closed window", func(t *testing.T) { f.streams(t, 4, 0, reviewNaming(60_000)) }},
		{"streams over a blocked connection", func(t *testing.T) { f.streams(t, 4, 1<<30, reviewNaming(60_000)) }},
		{"rapid reset", f.resetRapidly},
	} {
		t.Run(attack.name, func(t *testing.T) {
			attack.run(t)
			most := f.watchOver(t)
			t.Logf("resident memory: idle %d MiB, now %d MiB", idle>>20, most>>20)
			// Right after the start a server is small, and any work makes it grow.
			if limit := 2 * max(idle, 160<<20); most >= limit {
				t.Errorf("memory grew from %d to %d MiB, want less than %d MiB", idle>>20, most>>20, limit>>20)
			}
			f.hangUp()
		})
	}
}

// resetRapidly opens streams and resets each at once, far more than a connection may have open.
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
