package process

import (
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"lanyard.dev/internal/tokenvolume"
)

const (
	secretMode = 0o600
	publicMode = 0o644

	// noID leaves the owner or group of a file unchanged.
	noID = -1
)

// content is what the volume shows.
type content struct {
	files map[string]tokenvolume.File
	// issued and expires belong to the token that expires first, by this machine's clock.
	issued, expires time.Time
	hasCA           bool
}

// fetch requests the content of the volume. pod must exist.
func (c *Config) fetch(ctx context.Context, pod *corev1.Pod) (*content, error) {
	wanted := append([]Audience{{Path: tokenFile}}, c.Audiences...)
	answers := make([]*authenticationv1.TokenRequest, len(wanted))
	issued := c.Clock.Now()
	group, ctx := errgroup.WithContext(ctx)
	for i, audience := range wanted {
		group.Go(func() (err error) {
			answers[i], err = c.requestToken(ctx, pod, audience.Name)
			return err
		})
	}
	var ca []byte
	group.Go(func() error {
		ca = c.Server.loadCA(ctx, c.Client, pod.Namespace)
		return nil
	})
	if err := group.Wait(); err != nil {
		return nil, err
	}
	got := &content{files: map[string]tokenvolume.File{}, issued: issued, hasCA: len(ca) > 0}
	got.files[namespaceFile] = c.newFile([]byte(pod.Namespace), publicMode)
	if got.hasCA {
		got.files[caFile] = c.newFile(ca, publicMode)
	}
	for i, answer := range answers {
		got.files[wanted[i].Path] = c.newFile([]byte(answer.Status.Token), secretMode)
		if expires := issued.Add(lifetime(answer, issued)); got.expires.IsZero() || expires.Before(got.expires) {
			got.expires = expires
		}
	}
	return got, nil
}

func (c *Config) newFile(data []byte, mode fs.FileMode) tokenvolume.File {
	file := tokenvolume.File{Data: data, Mode: mode, UID: noID, GID: noID}
	if c.User.Other {
		file.UID, file.GID = c.User.UID, c.User.GID
	}
	return file
}

// requestToken requests a token that is bound to the Pod.
func (c *Config) requestToken(ctx context.Context, pod *corev1.Pod, audience string) (*authenticationv1.TokenRequest, error) {
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: ptr.To(int64(c.TTL / time.Second)),
		BoundObjectRef:    &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID},
	}}
	if audience != "" {
		request.Spec.Audiences = []string{audience}
	}
	account := pod.Spec.ServiceAccountName
	answer, err := c.Client.CoreV1().ServiceAccounts(pod.Namespace).CreateToken(ctx, account, request, metav1.CreateOptions{})
	switch {
	case err != nil:
		return nil, fmt.Errorf("request a token for %s/%s: %w", pod.Namespace, account, err)
	case answer.Status.Token == "":
		return nil, fmt.Errorf("request a token for %s/%s: the answer contains none", pod.Namespace, account)
	}
	return answer, nil
}

// lifetime returns how long a token lives from now. It prefers the granted number of seconds to the expiration time, because the
// authority's clock may differ from this machine's.
func lifetime(answer *authenticationv1.TokenRequest, now time.Time) time.Duration {
	until := answer.Status.ExpirationTimestamp.Sub(now)
	if granted := answer.Spec.ExpirationSeconds; granted != nil {
		return time.Duration(*granted) * time.Second
	}
	return until
}

// keepTokens renews the files before a token expires, or when renewNow receives a value.
func (s *supervisor) keepTokens(ctx context.Context) {
	retry := &retry{supervisor: s, action: "renew the tokens"}
	for due := renewalTime(s.content); s.waitUntil(ctx, due, s.renewNow); {
		got, err := s.renew(ctx)
		switch {
		case err == nil:
			retry.succeeded()
			s.refused.Store(false)
			s.current.Store(got)
			due = renewalTime(got)
			s.notifyRenewal(ctx)
		case ctx.Err() != nil:
			return
		default:
			limit := maxRetryPause
			if s.refused.Load() {
				limit = probeInterval
			}
			due = s.Clock.Now().Add(retry.failed(err, limit))
		}
	}
}

func renewalTime(c *content) time.Time {
	return tokenvolume.RenewAt(c.issued, c.expires, rand.Float64())
}

func (s *supervisor) renew(ctx context.Context) (*content, error) {
	var got *content
	err := s.request(ctx, requestTimeout, func(ctx context.Context) (err error) {
		got, err = s.fetch(ctx, s.pod)
		return err
	})
	if err != nil {
		return nil, err
	}
	return got, tokenvolume.Write(s.root, got.files)
}

// onRenewTimeout bounds the command of --on-renew.
const onRenewTimeout = time.Minute

// notifyRenewal sends the signal of --on-renew to the command, or runs the command of --on-renew.
func (s *supervisor) notifyRenewal(ctx context.Context) {
	switch {
	case s.OnRenew.Signal != 0:
		_ = s.command.Signal(s.OnRenew.Signal)
	case len(s.OnRenew.Command) > 0:
		if err := s.runOnRenew(ctx); err != nil && ctx.Err() == nil {
			s.printf("--on-renew %s: %v", s.OnRenew.Command[0], err)
		}
	}
}

// commandPIDEnv is the variable in which the command of --on-renew finds the process ID of the command.
const commandPIDEnv = "LANYARD_EXEC_PID"

// runOnRenew runs the command of --on-renew as the command's user, but outside its mount namespace.
func (s *supervisor) runOnRenew(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, onRenewTimeout)
	defer cancel()
	command := exec.CommandContext(ctx, s.OnRenew.Command[0], s.OnRenew.Command[1:]...)
	command.Env = append(s.env[:len(s.env):len(s.env)], fmt.Sprintf("%s=%d", commandPIDEnv, s.command.Pid))
	command.Stdout, command.Stderr = s.Stderr, s.Stderr
	if s.isolation == nil {
		return command.Run()
	}
	return s.runIsolated(command)
}

// runIsolated runs a program as another user, separated from the caller as the command itself is. The program gets no terminal and
// none of the descriptors to keep.
func (s *supervisor) runIsolated(command *exec.Cmd) (err error) {
	output := s.relay.Replace(s.Stderr)
	command.Stdout, command.Stderr = output, output
	if command.Path, err = filepath.Abs(command.Path); err != nil {
		return err
	}
	command.SysProcAttr = &syscall.SysProcAttr{}
	isolation, thread := s.isolation.WithoutTerminal(), newThread()
	defer thread.end()
	thread.do(func() { err = isolation.Start(command.SysProcAttr, command.Start) })
	if err != nil {
		return err
	}
	return command.Wait()
}

const (
	// probeInterval is the time between two probes. It follows from the promise to replace a refused token within 5 seconds. It
	// is not shorter because each probe is a request and, under most policies, a line in the audit log.
	probeInterval = 4 * time.Second
	// maxProbePause bounds the pause after a probe without an answer.
	maxProbePause = 15 * time.Second
	// maxReplacePause bounds the pause after a token is refused that has just replaced a refused one. A new token does not help
	// then.
	maxReplacePause = 5 * time.Minute

	reasonRefused = "TokenRefused"
)

// probeTokens requests new tokens when the API server refuses the current one, because the account was deleted and created again,
// the key was retired, or the token was revoked. It probes only the token for the API server; the others have the same account
// and key. Nothing is replaced while the API server does not answer.
func (s *supervisor) probeTokens(ctx context.Context) {
	if s.Probe == nil {
		return
	}
	var lastRefused string
	refusals := 0
	// Random pauses spread the probes of processes that start together.
	for pause := probeInterval; s.wait(ctx, pause-rand.N(pause/8), nil); {
		token := string(s.current.Load().files[tokenFile].Data)
		if token == lastRefused {
			pause = probeInterval
			continue // keepTokens is replacing it.
		}
		accepted, err := s.probe(ctx, token)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			pause = min(2*pause, maxProbePause)
		case accepted:
			refusals, pause = 0, probeInterval
		default:
			pause = min(probeInterval<<min(refusals, 16), maxReplacePause)
			lastRefused, refusals = token, refusals+1
			s.replaceTokens(ctx)
		}
	}
}

func (s *supervisor) probe(ctx context.Context, token string) (accepted bool, err error) {
	err = s.request(ctx, requestTimeout, func(ctx context.Context) (err error) {
		accepted, err = s.Probe(ctx, token)
		return err
	})
	return accepted, err
}

// replaceTokens requests new tokens, unless the old ones are refused because the Pod was deleted.
func (s *supervisor) replaceTokens(ctx context.Context) {
	if err := s.renewLease(ctx, s.pod); isGone(err) {
		s.terminateForDeletion(s.pod)
		return
	}
	s.printf("the API server no longer accepts the tokens of pod %s/%s; requesting new ones", s.pod.Namespace, s.pod.Name)
	s.refused.Store(true)
	select {
	case s.renewNow <- struct{}{}:
	default:
	}
	s.recordRefusal(ctx)
}

// recordRefusal creates an event of the Pod. It is optional: the caller may lack the permission.
func (s *supervisor) recordRefusal(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	now := metav1.NewTime(s.Clock.Now())
	_, _ = s.Client.CoreV1().Events(s.pod.Namespace).Create(ctx, &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{GenerateName: s.pod.Name + "."},
		InvolvedObject: corev1.ObjectReference{
			APIVersion: "v1", Kind: "Pod", Namespace: s.pod.Namespace, Name: s.pod.Name, UID: s.pod.UID,
		},
		Type: corev1.EventTypeWarning, Reason: reasonRefused, Message: "The API server no longer accepts the tokens of the process; requesting new ones",
		Source: corev1.EventSource{Component: "lanyard-exec", Host: s.pod.Spec.NodeName}, FirstTimestamp: now, LastTimestamp: now, Count: 1,
	}, metav1.CreateOptions{})
}
