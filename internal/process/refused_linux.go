package process

import (
	"context"
	"math/rand/v2"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

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
