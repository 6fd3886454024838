// Package externalsigner signs tokens with keys that this process does not have: those of an external signer, such as a
// plugin for a hardware security module or a key management service.
//
// The protocol is kube-apiserver's (k8s.io/externaljwt, version v1): gRPC over a unix socket. The signer gets the encoded claims
// and returns header and signature. It also has the public keys that verify its tokens, which are fetched again as often as it
// asks for, and when a token names an unknown key.
//
// The signer is trusted to sign, but nothing that it sends is used unchecked. Every call has a deadline, and every answer a limit
// for its size. A token is returned only if its header has nothing but alg, kid and typ, and if its signature is by a published
// key of that name. While the signer does not answer, no token is issued, and the keys that were fetched last verify tokens.
package externalsigner

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	externaljwtv1 "k8s.io/externaljwt/apis/v1"
	"k8s.io/klog/v2"

	"lanyard.dev/internal/apiserver/metrics"
	"lanyard.dev/internal/hint"
	"lanyard.dev/internal/signingkey"
	"lanyard.dev/internal/token"
)

const (
	// DefaultStartTimeout is how long Connect waits for a signer that starts at the same time.
	DefaultStartTimeout = 10 * time.Second
	// DefaultCallTimeout is the deadline of every other call.
	DefaultCallTimeout = 5 * time.Second

	// The limits for answers, in bytes. They leave room for MaxKeys keys, and for a key id of the greatest length.
	maxKeysAnswer     = 1 << 20
	maxSignAnswer     = 16 << 10
	maxMetadataAnswer = 1 << 10
	maxHeaderList     = 16 << 10

	// maxReconnectDelay is the longest pause between attempts to connect.
	maxReconnectDelay = time.Second
	// maxMessage is how much of an error message of the signer is repeated.
	maxMessage = 200
)

// Config configures a Signer.
type Config struct {
	// Socket is the path of the unix socket. A path that begins with "@" names an abstract socket.
	Socket  string
	Metrics *metrics.Signer
	// StartTimeout and CallTimeout replace the defaults if they are not 0.
	StartTimeout, CallTimeout time.Duration

	// second is the unit of the times at which keys are fetched again; 0 means a second. Only tests shorten it.
	second time.Duration
}

// Signer is the connection to a signer. It is safe for concurrent use.
type Signer struct {
	config      Config
	conn        *grpc.ClientConn
	client      externaljwtv1.ExternalJWTSignerClient
	maxLifetime time.Duration
	warn        rate.Sometimes // of tokens that were not signed

	current atomic.Pointer[keySet]
	// failing is why the latest fetch of the keys failed; nil if it succeeded.
	failing atomic.Pointer[error]
	// fetching has an element while a caller fetches the keys; that caller owns began and err.
	fetching chan struct{}
	began    time.Time // when the latest fetch began
	err      error     // with which it ended
	// lost wakes Run when the connection has ended.
	lost chan struct{}
}

var (
	_ signingkey.KeySource = &Signer{}
	_ token.Signer         = &Signer{}
)

// Connect connects to the signer and fetches its keys and metadata.
func Connect(ctx context.Context, c Config) (*Signer, error) {
	if c.StartTimeout == 0 {
		c.StartTimeout = DefaultStartTimeout
	}
	if c.CallTimeout == 0 {
		c.CallTimeout = DefaultCallTimeout
	}
	if c.second == 0 {
		c.second = time.Second
	}
	if replaceable(c.Socket) {
		klog.ErrorS(nil, "Every user of this machine may replace the socket of the external signer: move it to a directory that only the signer may write", "socket", c.Socket)
	}
	conn, err := dial(c.Socket)
	if err != nil {
		return nil, fmt.Errorf("external signer at %s: %w", c.Socket, err)
	}
	s := &Signer{
		config: c, conn: conn, client: externaljwtv1.NewExternalJWTSignerClient(conn), warn: rate.Sometimes{Interval: 10 * time.Second},
		fetching: make(chan struct{}, 1), lost: make(chan struct{}, 1),
	}
	if err := s.start(ctx); err != nil {
		s.Close()
		return nil, hint.New(fmt.Errorf("external signer at %s: %w", c.Socket, err),
			"check that the signer runs and that --service-account-signing-endpoint names its socket")
	}
	return s, nil
}

// start makes the first calls.
func (s *Signer) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.config.StartTimeout)
	defer cancel()
	if err := s.fetch(ctx, grpc.WaitForReady(true)); err != nil {
		return err
	}
	began := time.Now()
	answer, err := s.client.Metadata(ctx, &externaljwtv1.MetadataRequest{}, grpc.MaxCallRecvMsgSize(maxMetadataAnswer))
	s.config.Metrics.Called("Metadata", code(err), time.Since(began))
	if err != nil {
		return fmt.Errorf("read its metadata: %w", describe(err))
	}
	s.maxLifetime, err = maxLifetimeOf(answer)
	return err
}

// maxLifetimeOf returns the longest lifetime of the signer's tokens.
func maxLifetimeOf(answer *externaljwtv1.MetadataResponse) (time.Duration, error) {
	seconds := answer.GetMaxTokenExpirationSeconds()
	if seconds < int64(token.MinLifetime/time.Second) {
		return 0, fmt.Errorf("its tokens live for at most %d seconds, and the shortest lifetime that clients may request is %v", seconds, token.MinLifetime)
	}
	return time.Duration(min(seconds, int64(token.MaxLifetime/time.Second))) * time.Second, nil
}

func dial(socket string) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///localhost",
		grpc.WithTransportCredentials(insecure.NewCredentials()), // a unix socket has no network
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		}),
		grpc.WithNoProxy(), grpc.WithDisableServiceConfig(), grpc.WithMaxHeaderListSize(maxHeaderList), grpc.WithIdleTimeout(0),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: maxReconnectDelay / 10, Multiplier: 2, Jitter: 0.2, MaxDelay: maxReconnectDelay},
			MinConnectTimeout: DefaultCallTimeout,
		}))
}

// replaceable reports whether every user may put another socket in the place of this one.
func replaceable(socket string) bool {
	if runtime.GOOS == "windows" || strings.HasPrefix(socket, "@") {
		return false
	}
	info, err := os.Stat(filepath.Dir(socket))
	return err == nil && info.Mode()&0o002 != 0 && info.Mode()&os.ModeSticky == 0
}

// Close closes the connection.
func (s *Signer) Close() { _ = s.conn.Close() }

// MaxLifetime is the longest lifetime of a token that the signer signs.
func (s *Signer) MaxLifetime() time.Duration { return s.maxLifetime }

// Healthy returns why the keys could not be fetched at the latest attempt, or nil.
func (s *Signer) Healthy() error {
	if err := s.failing.Load(); err != nil {
		return *err
	}
	return nil
}

// watchConnection notes in s.lost each time that the connection ends, until ctx ends.
func (s *Signer) watchConnection(ctx context.Context) {
	for state := s.conn.GetState(); s.conn.WaitForStateChange(ctx, state); {
		state = s.conn.GetState()
		if state == connectivity.Idle || state == connectivity.TransientFailure {
			select {
			case s.lost <- struct{}{}:
			default:
			}
		}
	}
}

// code returns the name of the code of a call's result.
func code(err error) string { return status.Code(err).String() }

// describe returns the error of a call in a form of limited length.
func describe(err error) error {
	found := status.Convert(err)
	text := found.Message()
	if len(text) > maxMessage {
		text = text[:maxMessage] + "..."
	}
	return fmt.Errorf("%v: %q", found.Code(), text)
}

// ErrAnswer reports that the signer's answer is not used, because it breaks the protocol or because its signature is wrong.
var ErrAnswer = errors.New("the answer of the external signer is refused")
