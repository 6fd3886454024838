package issued_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/utils/ptr"

	identity "lanyard.dev/apis/identity/v1alpha1"
	"lanyard.dev/internal/apiserver/outage"
	"lanyard.dev/internal/ledger"
)

// watched is a watch under test.
type watched struct {
	t *testing.T
	w watch.Interface
}

func startWatch(t *testing.T, f *fixture, namespace string, options *internalversion.ListOptions) watched {
	t.Helper()
	w, err := f.tokens().Watch(in(t, namespace), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Stop)
	return watched{t, w}
}

func (w watched) next() watch.Event {
	w.t.Helper()
	select {
	case event, ok := <-w.w.ResultChan():
		if !ok {
			w.t.Fatal("the watch ended")
		}
		return event
	case <-time.After(10 * time.Second):
		w.t.Fatal("no event")
	}
	return watch.Event{}
}

// expect compares the next events, as in "ADDED a 11".
func (w watched) expect(want ...string) {
	w.t.Helper()
	for _, text := range want {
		event := w.next()
		object, ok := event.Object.(*identity.IssuedToken)
		if !ok {
			w.t.Fatalf("event %s of %v, want %s", event.Type, event.Object, text)
		}
		if got := fmt.Sprintf("%s %s %s", event.Type, object.Name, object.ResourceVersion); got != text {
			w.t.Errorf("got %s, want %s", got, text)
		}
	}
}

func (w watched) expectError(is func(error) bool) {
	w.t.Helper()
	event := w.next()
	if status, ok := event.Object.(*metav1.Status); event.Type != watch.Error || !ok || !is(&apierrors.StatusError{ErrStatus: *status}) {
		w.t.Errorf("got %s %v", event.Type, event.Object)
	}
	if event, ok := <-w.w.ResultChan(); ok {
		w.t.Errorf("the watch goes on with %v", event)
	}
}

// TestWatchFromAVersion checks that a client gets each change after its resource version. Events of one revision have that
// revision at last only, so that a client that stops between them gets them again.
func TestWatchFromAVersion(t *testing.T) {
	t.Parallel()
	f := five()
	w := startWatch(t, f, "", &internalversion.ListOptions{ResourceVersion: "11"})
	w.expect("ADDED c 12", "ADDED d 12", "ADDED e 13")
	if _, _, err := f.tokens().Delete(in(t, "prod"), "a", nil, nil); err != nil {
		t.Fatal(err)
	}
	w.expect("DELETED a 14")
	f.clock.SetTime(issuedAt.Add(59 * time.Minute))
	brief := sample("brief", "prod", "web")
	brief.Expires = issuedAt.Add(59*time.Minute + time.Second)
	f.issue(brief)
	w.expect("ADDED brief 15")
	f.clock.SetTime(brief.Expires)
	f.memory.Sweep()
	w.expect("DELETED brief 15")
	f.issue(sample("f", "prod", "web"), sample("g", "prod", "web"), sample("h", "prod", "web"))
	w.expect("ADDED f 15", "ADDED g 15", "ADDED h 16")
	startWatch(t, f, "", &internalversion.ListOptions{ResourceVersion: "15"}).expect("DELETED brief 15", "ADDED f 15", "ADDED g 15", "ADDED h 16")
}

// TestWatchSelects checks that selectors and the namespace apply to events.
func TestWatchSelects(t *testing.T) {
	t.Parallel()
	f := five()
	options := selectors(t, "spec.serviceAccount.name=web", "identity.lanyard.dev/node")
	options.ResourceVersion = "10"
	w := startWatch(t, f, "prod", options)
	w.expect("ADDED a 11")
	f.issue(bound(sample("f", "prod", "web"), "p", "n1"), bound(sample("g", "test", "web"), "p", "n1"), bound(sample("h", "prod", "robot"), "p", "n1"))
	w.expect("ADDED f 14")
	if _, err := f.tokens().Watch(in(t, ""), selectors(t, "status.phase=Active", "")); !apierrors.IsBadRequest(err) {
		t.Errorf("select by phase: %v", err)
	}
}

// TestWatchOfAll checks the watches that begin with what there is.
func TestWatchOfAll(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"", "0"} {
		f := five()
		w := startWatch(t, f, "test", &internalversion.ListOptions{ResourceVersion: version})
		w.expect("ADDED c 12", "ADDED d 13")
		f.issue(sample("f", "test", "web"))
		w.expect("ADDED f 14")
		if want := map[string]int{"": 1, "0": 0}[version]; f.settled != want {
			t.Errorf("%q: waited %d times, want %d", version, f.settled, want)
		}
	}
}

// TestWatchList checks the protocol by which informers list and watch in one request.
func TestWatchList(t *testing.T) {
	t.Parallel()
	f := five()
	w := startWatch(t, f, "test", &internalversion.ListOptions{
		SendInitialEvents: ptr.To(true), AllowWatchBookmarks: true, ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan,
	})
	w.expect("ADDED c 12", "ADDED d 13")
	mark := w.next()
	object := mark.Object.(*identity.IssuedToken)
	if mark.Type != watch.Bookmark || object.ResourceVersion != "13" || object.Annotations[metav1.InitialEventsAnnotationKey] != "true" {
		t.Errorf("got %s %+v, want the end of the initial events", mark.Type, object)
	}
	f.issue(sample("f", "test", "web"))
	w.expect("ADDED f 14")

	none := startWatch(t, f, "test", &internalversion.ListOptions{SendInitialEvents: ptr.To(false), ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan})
	f.issue(sample("g", "test", "web"))
	none.expect("ADDED g 15")
}

// TestBookmarks checks that a client learns of revisions whose changes it did not select.
func TestBookmarks(t *testing.T) {
	t.Parallel()
	f := five()
	w := startWatch(t, f, "none", &internalversion.ListOptions{ResourceVersion: "13", AllowWatchBookmarks: true})
	f.issue(sample("f", "test", "web"))
	w.expect("BOOKMARK  14")
}

// TestWatchOfTheForgotten checks that a client which comes too late is told to list again.
func TestWatchOfTheForgotten(t *testing.T) {
	t.Parallel()
	f := five()
	if _, err := f.tokens().Watch(in(t, ""), &internalversion.ListOptions{ResourceVersion: "9"}); !apierrors.IsResourceExpired(err) {
		t.Errorf("got %v", err)
	}
	w := startWatch(t, f, "", &internalversion.ListOptions{ResourceVersion: "13"})
	var many []ledger.Token
	for i := range 9000 { // more than the ledger remembers and the watch holds
		many = append(many, sample(fmt.Sprintf("many-%d", i), "prod", "web"))
	}
	f.issue(many...)
	for event := w.next(); ; event = w.next() {
		if event.Type == watch.Error {
			if status, ok := event.Object.(*metav1.Status); !ok || status.Code != http.StatusGone {
				t.Errorf("got %v", event.Object)
			}
			return
		}
	}
}

// TestWatchInAnOutage checks that a watch ends when the phase of a token cannot be determined.
func TestWatchInAnOutage(t *testing.T) {
	t.Parallel()
	f := five()
	w := startWatch(t, f, "", &internalversion.ListOptions{ResourceVersion: "12"})
	w.expect("ADDED d 12", "ADDED e 13")
	f.refuse("f", errBroken)
	f.issue(sample("f", "prod", "web"))
	w.expectError(apierrors.IsServiceUnavailable)
	f.settleErr = errBroken
	if _, err := f.tokens().Watch(in(t, ""), &internalversion.ListOptions{}); outage.Of(err) == nil {
		t.Errorf("got %v, want an outage", err)
	}
}

func TestWatchEnds(t *testing.T) {
	t.Parallel()
	w := startWatch(t, five(), "", &internalversion.ListOptions{ResourceVersion: "13"})
	w.w.Stop()
	w.w.Stop()
	if event, ok := <-w.w.ResultChan(); ok {
		t.Errorf("got %v", event)
	}
}
