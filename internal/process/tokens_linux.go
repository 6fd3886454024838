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
)

// content is what the volume is to show, and for how long that is good.
type content struct {
	files map[string]tokenvolume.File
	// issued and expires are those of the token that dies first, by this machine's clock.
	issued, expires time.Time
	hasCA           bool
}

// fetch requests all that the volume shows. pod exists.
func (c *Config) fetch(ctx context.Context, pod *corev1.Pod) (*content, error) {
	wanted := append([]Audience{{Path: tokenFile}}, c.Audiences...)
	answers := make([]*authenticationv1.TokenRequest, len(wanted))
	issued := c.Clock.Now()
	group, ctx := errgroup.WithContext(ctx)
	for i, audience := range wanted {
		group.Go(func() (err error) {
			answers[i], err = c.request(ctx, pod, audience.Name)
			return err
		})
	}
	var ca []byte
	group.Go(func() error {
		ca = c.Server.authorities(ctx, c.Client, pod.Namespace)
		return nil
	})
	if err := group.Wait(); err != nil {
		return nil, err
	}
	got := &content{files: map[string]tokenvolume.File{}, issued: issued, hasCA: len(ca) > 0}
	got.files[namespaceFile] = c.file([]byte(pod.Namespace), publicMode)
	if got.hasCA {
		got.files[caFile] = c.file(ca, publicMode)
	}
	for i, answer := range answers {
		got.files[wanted[i].Path] = c.file([]byte(answer.Status.Token), secretMode)
		if expires := issued.Add(lifetime(answer, issued)); got.expires.IsZero() || expires.Before(got.expires) {
			got.expires = expires
		}
	}
	return got, nil
}

func (c *Config) file(data []byte, mode fs.FileMode) tokenvolume.File {
	file := tokenvolume.File{Data: data, Mode: mode, UID: unset, GID: unset}
	if c.User.Other {
		file.UID, file.GID = c.User.UID, c.User.GID
	}
	return file
}

// request asks for a token that dies with the pod.
func (c *Config) request(ctx context.Context, pod *corev1.Pod, audience string) (*authenticationv1.TokenRequest, error) {
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
		return nil, fmt.Errorf("request a token of %s/%s: %w", pod.Namespace, account, err)
	case answer.Status.Token == "":
		return nil, fmt.Errorf("request a token of %s/%s: the answer holds none", pod.Namespace, account)
	}
	return answer, nil
}

// lifetime is how long a token lives from now. The authority's clock may show another time than this machine's, so what
// it grants counts for more than when it says that ends.
func lifetime(answer *authenticationv1.TokenRequest, now time.Time) time.Duration {
	until := answer.Status.ExpirationTimestamp.Sub(now)
	if granted := answer.Spec.ExpirationSeconds; granted != nil {
		return time.Duration(*granted) * time.Second
	}
	return until
}

// keepTokens renews the files in time.
func (s *supervisor) keepTokens(ctx context.Context) {
	trouble := &trouble{s: s, what: "renew the tokens"}
	for due := renewAt(s.content); s.waitUntil(ctx, due, s.replace); {
		got, err := s.renew(ctx)
		switch {
		case err == nil:
			trouble.end()
			s.refused.Store(false)
			s.shown.Store(got)
			due = renewAt(got)
			s.onRenew(ctx)
		case ctx.Err() != nil:
			return
		default:
			limit := lastRetry
			if s.refused.Load() {
				limit = probeEvery
			}
			due = s.Clock.Now().Add(trouble.again(err, limit))
		}
	}
}

func renewAt(c *content) time.Time { return tokenvolume.RenewAt(c.issued, c.expires, rand.Float64()) }

func (s *supervisor) renew(ctx context.Context) (*content, error) {
	var got *content
	err := s.ask(ctx, requestTimeout, func(ctx context.Context) (err error) {
		got, err = s.fetch(ctx, s.pod)
		return err
	})
	if err != nil {
		return nil, err
	}
	return got, tokenvolume.Write(s.root, got.files)
}

// onRenew tells the command, or runs what does.
func (s *supervisor) onRenew(ctx context.Context) {
	switch {
	case s.OnRenew.Signal != 0:
		_ = s.command.Signal(s.OnRenew.Signal)
	case len(s.OnRenew.Command) > 0:
		if err := s.runOnRenew(ctx); err != nil && ctx.Err() == nil {
			s.say("--on-renew %s: %v", s.OnRenew.Command[0], err)
		}
	}
}

// runOnRenew runs the command of --on-renew as the user, outside of the namespace: it is to tell, not to read.
func (s *supervisor) runOnRenew(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, onRenewTimeout)
	defer cancel()
	command := exec.CommandContext(ctx, s.OnRenew.Command[0], s.OnRenew.Command[1:]...)
	command.Env = append(s.env[:len(s.env):len(s.env)], fmt.Sprintf("%s=%d", envPID, s.command.Pid))
	command.Stdout, command.Stderr = s.Stderr, s.Stderr
	if s.apart == nil {
		return command.Run()
	}
	return s.runApart(command)
}

// runApart runs a program of another user as the command itself is run, with none of the descriptors to keep.
func (s *supervisor) runApart(command *exec.Cmd) (err error) {
	if s.relay != nil && isTerminal(s.Stderr) {
		command.Stdout, command.Stderr = s.relay.slave, s.relay.slave
	}
	if command.Path, err = filepath.Abs(command.Path); err != nil {
		return err
	}
	// The command has the terminal; this one has none.
	apart := *s.apart
	apart.terminal = unset
	command.SysProcAttr = &syscall.SysProcAttr{}
	apart.attributes(command.SysProcAttr)
	thread := newThread()
	defer thread.end()
	thread.do(func() {
		if err = apart.cross(); err == nil {
			err = command.Start()
		}
	})
	if err != nil {
		return err
	}
	return command.Wait()
}

const envPID = "LANYARD_EXEC_PID"

const (
	// probeEvery is how often the API server is asked whether it still accepts the token. A refused token is to be replaced
	// within 5 seconds, and each probe is a request, and with most policies a line of the audit log.
	probeEvery = 4 * time.Second
	// lastProbeRetry bounds the wait after a probe without an answer, lastReplacement the wait after a refusal of a token that
	// had just replaced a refused one: then a new token is no remedy.
	lastProbeRetry  = 15 * time.Second
	lastReplacement = 5 * time.Minute

	reasonRefused = "TokenRefused"
)

// watchTokens has the tokens replaced as soon as the API server does not accept them any more: their account may have been
// deleted and created again, their key retired, or they were revoked. The token for the API server stands for the others, which
// have the same account and key. While the API server does not answer, nothing is replaced.
func (s *supervisor) watchTokens(ctx context.Context) {
	if s.Probe == nil {
		return
	}
	var last string // the token that was refused last
	refusals := 0
	for pause := probeEvery; s.wait(ctx, pause-rand.N(pause/8), nil); { // processes that began together ask apart
		text := string(s.shown.Load().files[tokenFile].Data)
		if text == last {
			pause = probeEvery
			continue // keepTokens is replacing it
		}
		accepted, err := s.probe(ctx, text)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			pause = min(2*pause, lastProbeRetry)
		case accepted:
			refusals, pause = 0, probeEvery
		default:
			pause = min(probeEvery<<min(refusals, 16), lastReplacement)
			last, refusals = text, refusals+1
			s.tokensRefused(ctx)
		}
	}
}

func (s *supervisor) probe(ctx context.Context, text string) (accepted bool, err error) {
	err = s.ask(ctx, requestTimeout, func(ctx context.Context) (err error) {
		accepted, err = s.Probe(ctx, text)
		return err
	})
	return accepted, err
}

// tokensRefused asks for new tokens, unless the tokens are refused because the Pod is gone.
func (s *supervisor) tokensRefused(ctx context.Context) {
	if err := s.vouchOnce(ctx, s.pod); isGone(err) {
		s.gone(s.pod)
		return
	}
	s.say("the API server no longer accepts the tokens of pod %s/%s; requesting new ones", s.pod.Namespace, s.pod.Name)
	s.refused.Store(true)
	select {
	case s.replace <- struct{}{}:
	default:
	}
	s.recordRefusal(ctx)
}

// recordRefusal makes an event of the Pod, if the caller may.
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
