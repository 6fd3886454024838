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
	minRetryPause = time.Second
	maxRetryPause = time.Minute

	requestTimeout = 10 * time.Second

	// renewalsPerLease is the number of renewals within one lease, of which all but one may fail.
	renewalsPerLease = 3
)

// retry computes the pauses between attempts of one action. It reports the first failure of a series and the success that ends
// the series.
type retry struct {
	supervisor *supervisor
	action     string
	pause      time.Duration
}

// failed returns the pause before the next attempt, which is at most limit.
func (r *retry) failed(err error, limit time.Duration) time.Duration {
	if r.pause == 0 {
		r.supervisor.printf("%s: %v; trying again", r.action, err)
		r.pause = minRetryPause
	} else {
		r.pause = min(2*r.pause, maxRetryPause)
	}
	r.pause = min(r.pause, limit)
	return r.pause/2 + rand.N(r.pause/2+1)
}

func (r *retry) succeeded() {
	if r.pause != 0 {
		r.supervisor.printf("%s: done", r.action)
	}
	r.pause = 0
}

// wait returns true after d, or when wake receives a value. It returns false when ctx ends before.
func (s *supervisor) wait(ctx context.Context, d time.Duration, wake <-chan struct{}) bool {
	timer := s.Clock.NewTimer(max(d, 0))
	defer timer.Stop()
	select {
	case <-timer.C():
	case <-wake:
	case <-ctx.Done():
		return false
	}
	return true
}

// maxTimer is the longest timer. Timers do not run while the machine sleeps, so an action is late by at most this time afterwards.
const maxTimer = time.Minute

// waitUntil returns true at due, or when wake receives a value. It returns false when ctx ends before.
func (s *supervisor) waitUntil(ctx context.Context, due time.Time, wake <-chan struct{}) bool {
	timeline := tokenvolume.NewTimeline(s.Clock) // It also advances while the machine sleeps.
	due = timeline.Now().Add(due.Sub(s.Clock.Now()))
	for {
		left := due.Sub(timeline.Now())
		timer := s.Clock.NewTimer(max(min(left, maxTimer), 0))
		select {
		case <-timer.C():
			if left <= maxTimer {
				return true
			}
		case <-wake:
			timer.Stop()
			return true
		case <-ctx.Done():
			timer.Stop()
			return false
		}
	}
}

// request calls f with a context that ends after limit. After a request without an answer it closes the connections, since the
// connection may be dead and the next request would wait on it too. It does the same after status 401, because a connection
// presents the caller's certificate only when it is made, and the certificate may have been renewed.
func (s *supervisor) request(ctx context.Context, limit time.Duration, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := f(ctx)
	late := err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded)
	if (late || apierrors.IsUnauthorized(err)) && s.CloseConnections != nil {
		s.CloseConnections()
	}
	return err
}

// keepLease renews the Pod's lease.
func (s *supervisor) keepLease(ctx context.Context) {
	pod := s.pod
	retry := &retry{supervisor: s, action: "renew the lease of pod " + pod.Namespace + "/" + pod.Name}
	// The authority sets the first lease, whatever the length of the following ones is.
	pause := min(s.Lease, podannotation.FirstLease) / renewalsPerLease
	for s.wait(ctx, pause, s.resumed) {
		err := s.renewLease(ctx, pod)
		switch {
		case err == nil:
			retry.succeeded()
			pause = s.Lease / renewalsPerLease
		case ctx.Err() != nil:
			return
		case isGone(err):
			s.terminateForDeletion(pod)
			return
		default:
			pause = retry.failed(err, s.Lease/renewalsPerLease)
		}
	}
}

// authorityTime estimates the time of the authority's clock, by which the lease ends. It adds the time since the Pod was
// created to the creation time. The monotonic clock stops while this machine sleeps, and the wall clock jumps when it is
// corrected, so authorityTime uses the one that has advanced further: a lease that is too long does less harm than one that is
// too short.
func (s *supervisor) authorityTime() time.Time {
	now := s.Clock.Now()
	return s.pod.CreationTimestamp.Add(max(now.Sub(s.podCreated), now.Round(0).Sub(s.podCreated.Round(0))))
}

// renewLease extends the lease once and evaluates the Pod in the answer.
func (s *supervisor) renewLease(ctx context.Context, pod *corev1.Pod) error {
	if err := s.leaseLock.Acquire(ctx, 1); err != nil {
		return err
	}
	defer s.leaseLock.Release(1)
	return s.request(ctx, min(requestTimeout, s.Lease/renewalsPerLease), func(ctx context.Context) error {
		now, err := extendLease(ctx, s.pods, pod, s.authorityTime().Add(s.Lease))
		if err == nil {
			s.checkPod(pod, now)
		}
		return err
	})
}

// watchPod notices the deletion of the Pod at once, instead of at the next renewal of the lease. It is optional: the caller may
// lack the permission to watch.
func (s *supervisor) watchPod(ctx context.Context) {
	pod := s.pod
	options := metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, pod.Name).String()}
	for pause := time.Duration(0); s.wait(ctx, pause, nil); pause = minRetryPause + rand.N(maxRetryPause/4) {
		watched, err := s.pods.Watch(ctx, options)
		if apierrors.IsForbidden(err) {
			return
		}
		if err != nil {
			continue
		}
		for event := range watched.ResultChan() {
			if now, ok := event.Object.(*corev1.Pod); ok {
				s.handlePodEvent(pod, now, event.Type)
			}
		}
		watched.Stop()
	}
}

func (s *supervisor) handlePodEvent(pod, now *corev1.Pod, event watch.EventType) {
	if event == watch.Deleted && now.UID == pod.UID {
		s.terminateForDeletion(pod)
		return
	}
	s.checkPod(pod, now)
}

// checkPod ends the command if the Pod that has the name of pod now is being deleted or is another one.
func (s *supervisor) checkPod(pod, now *corev1.Pod) {
	switch {
	case now.UID != pod.UID:
		s.terminateForDeletion(pod)
	case now.DeletionTimestamp != nil:
		grace := s.Pod.Grace
		// A Pod that is deleted at once has a grace period of 0. The command still gets the configured time.
		if seconds := now.DeletionGracePeriodSeconds; seconds != nil && *seconds > 0 {
			grace = time.Duration(*seconds) * time.Second
		}
		s.terminate(termination{fmt.Sprintf("pod %s/%s is being deleted", pod.Namespace, pod.Name), grace})
	}
}

func (s *supervisor) terminateForDeletion(pod *corev1.Pod) {
	s.terminate(termination{fmt.Sprintf("pod %s/%s was deleted, so its tokens are refused", pod.Namespace, pod.Name), s.Pod.Grace})
}

// reportRunning sets the status of the Pod, if the caller has the permission.
func (s *supervisor) reportRunning(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	_ = setRunning(ctx, s.pods, s.pod, s.Clock.Now())
}
