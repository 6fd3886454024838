package process

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"

	"lanyard.dev/internal/podannotation"
	"lanyard.dev/internal/tokenvolume"
)

const (
	firstRetry = time.Second
	lastRetry  = time.Minute

	requestTimeout = 10 * time.Second
	onRenewTimeout = time.Minute

	// leaseParts is how many renewals one lease has room for: two may fail.
	leaseParts = 3
)

// trouble keeps one kind of failure from being told more than once until it is over, and says when to try again.
type trouble struct {
	s     *supervisor
	what  string
	pause time.Duration
}

// again reports a failure and returns when to try again, at the latest after the limit.
func (t *trouble) again(err error, limit time.Duration) time.Duration {
	if t.pause == 0 {
		t.s.say("%s: %v; trying again", t.what, err)
		t.pause = firstRetry
	} else {
		t.pause = min(2*t.pause, lastRetry)
	}
	t.pause = min(t.pause, limit)
	return t.pause/2 + rand.N(t.pause/2+1)
}

func (t *trouble) end() {
	if t.pause != 0 {
		t.s.say("%s: done", t.what)
	}
	t.pause = 0
}

// wait returns false when ctx ends before the time has passed or somebody pokes.
func (s *supervisor) wait(ctx context.Context, d time.Duration, poke <-chan struct{}) bool {
	timer := s.Clock.NewTimer(max(d, 0))
	defer timer.Stop()
	select {
	case <-timer.C():
	case <-poke:
	case <-ctx.Done():
		return false
	}
	return true
}

// longestWait is how late a renewal may be after the machine has slept: timers sleep too.
const longestWait = time.Minute

// waitUntil returns false when ctx ends, and true when it is time or somebody pokes.
func (s *supervisor) waitUntil(ctx context.Context, due time.Time, poke <-chan struct{}) bool {
	passing := tokenvolume.NewTimeline(s.Clock) // whichever of the two clocks goes on
	due = passing.Now().Add(due.Sub(s.Clock.Now()))
	for {
		left := due.Sub(passing.Now())
		timer := s.Clock.NewTimer(max(min(left, longestWait), 0))
		select {
		case <-timer.C():
			if left <= longestWait {
				return true
			}
		case <-poke:
			timer.Stop()
			return true
		case <-ctx.Done():
			timer.Stop()
			return false
		}
	}
}

// ask bounds a request. One that was not answered in time may have gone into a connection that is dead, which would take
// the next one too: that gets a new one. So does the next where the server does not know the caller any more, whose
// certificate is shown when a connection is made.
func (s *supervisor) ask(ctx context.Context, limit time.Duration, request func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := request(ctx)
	late := err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded)
	if (late || apierrors.IsUnauthorized(err)) && s.HangUp != nil {
		s.HangUp()
	}
	return err
}

// keepLease vouches for the Pod.
func (s *supervisor) keepLease(ctx context.Context) {
	pod := s.pod
	trouble := &trouble{s: s, what: "renew the lease of pod " + pod.Namespace + "/" + pod.Name}
	// The first lease is the authority's to know: a minute, whatever comes after.
	pause := min(s.Lease, podannotation.FirstLease) / leaseParts
	for s.wait(ctx, pause, s.resumed) {
		err := s.vouchOnce(ctx, pod)
		switch {
		case err == nil:
			trouble.end()
			pause = s.Lease / leaseParts
		case ctx.Err() != nil:
			return
		case isGone(err):
			s.gone(pod)
			return
		default:
			pause = trouble.again(err, s.Lease/leaseParts)
		}
	}
}

// authorityTime is what the authority's clock shows, by which it judges leases. While this machine sleeps only one of its
// two clocks goes on, and when its time is corrected only the other is right: the later one keeps the Pod.
func (s *supervisor) authorityTime() time.Time {
	now := s.Clock.Now()
	return s.pod.CreationTimestamp.Add(max(now.Sub(s.made), now.Round(0).Sub(s.made.Round(0))))
}

func (s *supervisor) vouchOnce(ctx context.Context, pod *corev1.Pod) error {
	if err := s.leasing.Acquire(ctx, 1); err != nil {
		return err
	}
	defer s.leasing.Release(1)
	return s.ask(ctx, min(requestTimeout, s.Lease/leaseParts), func(ctx context.Context) error {
		now, err := vouch(ctx, s.pods, pod, s.authorityTime().Add(s.Lease))
		if err == nil {
			s.look(pod, now)
		}
		return err
	})
}

// watchPod notices at once what keepLease would notice later. Who may not watch does without.
func (s *supervisor) watchPod(ctx context.Context) {
	pod := s.pod
	options := metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, pod.Name).String()}
	for pause := time.Duration(0); s.wait(ctx, pause, nil); pause = firstRetry + rand.N(lastRetry/4) {
		watched, err := s.pods.Watch(ctx, options)
		if apierrors.IsForbidden(err) {
			return
		}
		if err != nil {
			continue
		}
		for event := range watched.ResultChan() {
			if now, ok := event.Object.(*corev1.Pod); ok {
				s.noticed(pod, now, event.Type)
			}
		}
		watched.Stop()
	}
}

func (s *supervisor) noticed(pod, now *corev1.Pod, event watch.EventType) {
	if event == watch.Deleted && now.UID == pod.UID {
		s.gone(pod)
		return
	}
	s.look(pod, now)
}

// look draws the conclusions from what is under the Pod's name now.
func (s *supervisor) look(pod, now *corev1.Pod) {
	switch {
	case now.UID != pod.UID:
		s.gone(pod)
	case now.DeletionTimestamp != nil:
		grace := s.Pod.Grace
		// None is what a Pod says that is gone at once. The command is given its time all the same.
		if seconds := now.DeletionGracePeriodSeconds; seconds != nil && *seconds > 0 {
			grace = time.Duration(*seconds) * time.Second
		}
		s.finish(ending{fmt.Sprintf("pod %s/%s is being deleted", pod.Namespace, pod.Name), grace})
	}
}

func (s *supervisor) gone(pod *corev1.Pod) {
	s.finish(ending{fmt.Sprintf("pod %s/%s was deleted, so its tokens are refused", pod.Namespace, pod.Name), s.Pod.Grace})
}

// report shows the Pod as running, if the caller may.
func (s *supervisor) report(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	_ = reportRunning(ctx, s.pods, s.pod, s.Clock.Now())
}
