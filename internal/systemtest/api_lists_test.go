// Promise: every stored kind is listed, selected and watched as in Kubernetes.

package systemtest

import (
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/utils/ptr"

	"lanyard.dev/lanyardtest"
)

// list returns the names of the listed objects.
func (w kindTest) list(t testing.TB, options metav1.ListOptions) []string {
	t.Helper()
	found, err := w.client.List(t.Context(), options)
	if err != nil {
		t.Fatalf("list %+v: %v", options, err)
	}
	var names []string
	for _, item := range found.Items {
		names = append(names, item.GetName())
	}
	return names
}

func TestListsArePaged(t *testing.T) {
	eachKind(t, func(t *testing.T, w kindTest) {
		const total = 5
		for i := range total {
			w.create(t, w.name(i))
		}
		// There is no selector, because the server counts the remaining items only without one. The pages may also hold objects of
		// other tests.
		seen, token, at := map[string]int{}, "", ""
		for pages := 0; pages == 0 || token != ""; pages++ {
			list, err := w.client.List(t.Context(), metav1.ListOptions{Limit: 2, Continue: token})
			if err != nil || len(list.Items) > 2 {
				t.Fatalf("page %d: %d items, %v", pages, len(list.Items), err)
			}
			if at == "" {
				at = list.GetResourceVersion()
				// An object created between the pages is not in them: all pages show one version.
				w.create(t, w.name(total+1))
			}
			if list.GetResourceVersion() != at {
				t.Errorf("page %d has version %s, the first page %s", pages, list.GetResourceVersion(), at)
			}
			if token = list.GetContinue(); token != "" && (list.GetRemainingItemCount() == nil || *list.GetRemainingItemCount() < 1) {
				t.Errorf("page %d does not count the remaining items", pages)
			}
			for _, item := range list.Items {
				seen[item.GetName()]++
			}
		}
		for i := range total {
			if seen[w.name(i)] != 1 {
				t.Errorf("%s was listed %d times", w.name(i), seen[w.name(i)])
			}
		}
		if seen[w.name(total+1)] != 0 {
			t.Error("the pages hold an object created after the first page")
		}
		if _, err := w.client.List(t.Context(), metav1.ListOptions{Limit: 2, Continue: "nonsense"}); !apierrors.IsBadRequest(err) && !apierrors.IsInvalid(err) {
			t.Errorf("continue with nonsense: %v, want a bad request", err)
		}
	})
}

func TestSelectors(t *testing.T) {
	eachKind(t, func(t *testing.T, w kindTest) {
		for i := range 3 {
			obj := w.object(t, w.namespace, w.name(i))
			obj.SetLabels(map[string]string{"of": w.namespace, "n": strconv.Itoa(i)})
			if _, err := w.client.Create(t.Context(), obj, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		for _, tt := range []struct {
			labels, fields string
			want           []int
		}{
			{labels: w.selector(), want: []int{0, 1, 2}},
			{labels: w.selector() + ",n in (0,2)", want: []int{0, 2}},
			{labels: w.selector() + ",n!=0", want: []int{1, 2}},
			{labels: w.selector() + ",!n"},
			{labels: w.selector(), fields: "metadata.name=" + w.name(1), want: []int{1}},
			{labels: w.selector(), fields: "metadata.name!=" + w.name(1), want: []int{0, 2}},
			{fields: "metadata.name=" + w.name(9)},
		} {
			// Version "" is read from etcd, version "0" from the watch cache.
			for _, at := range []string{"", "0"} {
				got := w.list(t, metav1.ListOptions{LabelSelector: tt.labels, FieldSelector: tt.fields, ResourceVersion: at})
				var want []string
				for _, i := range tt.want {
					want = append(want, w.name(i))
				}
				if at == "0" && len(got) < len(want) {
					continue // version "0" permits an older state
				}
				if strings.Join(got, " ") != strings.Join(want, " ") {
					t.Errorf("labels %q, fields %q, version %q: %v, want %v", tt.labels, tt.fields, at, got, want)
				}
			}
		}
		for _, bad := range []metav1.ListOptions{{FieldSelector: "spec.nothing=1"}, {LabelSelector: "a in b"}} {
			if _, err := w.client.List(t.Context(), bad); !apierrors.IsBadRequest(err) {
				t.Errorf("list %+v: %v, want a bad request", bad, err)
			}
		}
	})
}

// TestFieldSelectorsOfKinds checks that each kind is selected by the fields that Kubernetes supports for it.
func TestFieldSelectorsOfKinds(t *testing.T) {
	t.Parallel()
	admin := callerFor(t, authority(t).Config())
	for path, fields := range map[string][]string{
		"/api/v1/pods": {
			"spec.nodeName=n", "spec.restartPolicy=Always", "spec.schedulerName=s", "spec.serviceAccountName=a",
			"status.phase=Running", "status.podIP=1.2.3.4", "status.nominatedNodeName=n", "spec.hostNetwork=true",
		},
		"/api/v1/nodes":      {"spec.unschedulable=true"},
		"/api/v1/namespaces": {"status.phase=Active"},
		"/api/v1/secrets":    {"type=Opaque"},
		"/api/v1/events": {
			"involvedObject.kind=Pod", "involvedObject.name=p", "involvedObject.uid=u", "involvedObject.namespace=n",
			"involvedObject.apiVersion=v1", "involvedObject.resourceVersion=1", "involvedObject.fieldPath=f",
			"reason=r", "type=Normal", "source=s", "reportingComponent=c",
		},
		"/apis/events.k8s.io/v1/events": {
			"regarding.kind=Pod", "regarding.name=p", "regarding.uid=u", "regarding.namespace=n", "regarding.apiVersion=v1",
			"regarding.resourceVersion=1", "regarding.fieldPath=f", "reason=r", "type=Normal", "reportingController=c",
		},
		"/apis/identity.lanyard.dev/v1alpha1/issuedtokens": {
			"spec.serviceAccount.name=a", "spec.serviceAccount.uid=u", "spec.audiences=a", "spec.boundObject.kind=Pod", "spec.boundObject.name=p",
			"spec.boundObject.uid=u", "spec.node.name=n", "spec.keyID=k", "spec.mintedBy.username=u", "spec.mintedBy.credentialID=c", "status.phase=Active",
		},
		"/apis/identity.lanyard.dev/v1alpha1/issuedcertificates": {
			"spec.username=u", "spec.groups=g", "spec.signerName=s", "spec.request=r", "spec.mintedBy.username=u", "spec.mintedBy.credentialID=c", "status.phase=Active",
		},
	} {
		for _, field := range append(fields, "metadata.name=x", "metadata.namespace=y") {
			if strings.HasPrefix(field, "metadata.namespace") && (strings.HasSuffix(path, "/nodes") || strings.HasSuffix(path, "/namespaces")) {
				continue
			}
			if got := admin.get(t, path+"?fieldSelector="+field); got.code != http.StatusOK {
				t.Errorf("%s by %s: %s", path, field, got)
			}
		}
	}
}

func TestTables(t *testing.T) {
	columns := map[string]string{
		"namespaces": "Name Status Age", "serviceaccounts": "Name Age", "secrets": "Name Type Data Age",
		"configmaps": "Name Data Age", "pods": "Name Ready Status Restarts Age IP Node Nominated Node Readiness Gates",
		"nodes":  "Name Status Roles Age Version Internal-IP External-IP OS-Image Kernel-Version Container-Runtime",
		"events": "Last Seen Type Reason Object Subobject Source Message First Seen Count Name", "leases": "Name Holder Age",
		"roles": "Name Created At", "clusterroles": "Name Created At",
		"rolebindings":        "Name Role Age Users Groups ServiceAccounts",
		"clusterrolebindings": "Name Role Age Users Groups ServiceAccounts",

		"certificatesigningrequests": "Name Age SignerName Requestor RequestedDuration Condition",
	}
	eachKind(t, func(t *testing.T, w kindTest) {
		name := w.name(0)
		w.create(t, name)
		for _, path := range []string{w.path(w.namespace, name), w.path(w.namespace, "") + "?labelSelector=" + w.selector()} {
			var table metav1.Table
			w.http.must(t, http.MethodGet, path, nil, "Accept", "application/json;as=Table;v=v1;g=meta.k8s.io").decode(t, &table)
			var names []string
			for _, c := range table.ColumnDefinitions {
				names = append(names, c.Name)
			}
			if got := strings.Join(names, " "); got != columns[w.resource] {
				t.Errorf("columns %q, want %q", got, columns[w.resource])
			}
			if len(table.Rows) != 1 || len(table.Rows[0].Cells) != len(names) || !strings.Contains(string(table.Rows[0].Object.Raw), `"PartialObjectMetadata"`) {
				t.Errorf("rows: %+v", table.Rows)
			}
		}
	})
}

// watch opens a watch that ends with the test.
func (w kindTest) watch(t testing.TB, options metav1.ListOptions) watch.Interface {
	t.Helper()
	watching, err := w.client.Watch(t.Context(), options)
	if err != nil {
		t.Fatalf("watch %+v: %v", options, err)
	}
	t.Cleanup(watching.Stop)
	return watching
}

// awaitEvent returns the first event for which wanted is true.
func awaitEvent(t testing.TB, watching watch.Interface, wanted func(watch.Event) bool) watch.Event {
	t.Helper()
	late := time.NewTimer(waitLimit)
	defer late.Stop()
	for {
		select {
		case e, ok := <-watching.ResultChan():
			switch {
			case !ok:
				t.Fatal("the watch ended")
			case wanted(e):
				return e
			case e.Type == watch.Error:
				t.Fatalf("watch: %v", apierrors.FromObject(e.Object))
			}
		case <-late.C:
			t.Fatalf("no such event within %v", waitLimit)
		}
	}
}

// expectEvents reads events until there was one of the given type for each name, in this order. Other events fail the test,
// except bookmarks and the mark that precedes a graceful deletion.
func expectEvents(t testing.TB, watching watch.Interface, want watch.EventType, names ...string) {
	t.Helper()
	for _, name := range names {
		awaitEvent(t, watching, func(e watch.Event) bool {
			m, err := meta.Accessor(e.Object)
			// An object deleted with a grace period, even of 0, gets a deletionTimestamp before it is removed.
			marked := want == watch.Deleted && e.Type == watch.Modified && err == nil && m.GetDeletionTimestamp() != nil
			if err != nil || e.Type == watch.Bookmark || marked {
				return false
			}
			if m.GetName() != name || e.Type != want {
				t.Fatalf("%s %s, want %s %s", e.Type, m.GetName(), want, name)
			}
			return true
		})
	}
}

func parseVersion(t testing.TB, text string) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestWatchReportsEveryChangeSinceAVersion(t *testing.T) {
	eachKind(t, func(t *testing.T, w kindTest) {
		first := w.create(t, w.name(0))
		w.create(t, w.name(1))
		if _, err := w.client.Patch(t.Context(), w.name(0), types.MergePatchType, labelPatch("1"), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		// A watch from an earlier version begins with the events since that version.
		watching := w.watch(t, metav1.ListOptions{LabelSelector: w.selector(), ResourceVersion: first.GetResourceVersion()})
		expectEvents(t, watching, watch.Added, w.name(1))
		expectEvents(t, watching, watch.Modified, w.name(0))
		w.create(t, w.name(2))
		expectEvents(t, watching, watch.Added, w.name(2))
		if w.asynchronous {
			return
		}
		// To this watch, an object that the selector no longer matches is deleted.
		if _, err := w.client.Patch(t.Context(), w.name(2), types.MergePatchType, []byte(`{"metadata":{"labels":{"of":null}}}`), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		expectEvents(t, watching, watch.Deleted, w.name(2))
		if err := w.client.Delete(t.Context(), w.name(1), metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		expectEvents(t, watching, watch.Deleted, w.name(1))
	})
}

func TestStreamingListThenBookmark(t *testing.T) {
	eachKind(t, func(t *testing.T, w kindTest) {
		var last uint64
		for i := range 3 {
			last = parseVersion(t, w.create(t, w.name(i)).GetResourceVersion())
		}
		watching := w.watch(t, metav1.ListOptions{
			LabelSelector: w.selector(), AllowWatchBookmarks: true,
			SendInitialEvents: ptr.To(true), ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan,
		})
		seen := map[string]bool{}
		mark := awaitEvent(t, watching, func(e watch.Event) bool {
			m, err := meta.Accessor(e.Object)
			if err == nil && e.Type == watch.Added {
				seen[m.GetName()] = true
			}
			return e.Type == watch.Bookmark
		})
		m, err := meta.Accessor(mark.Object)
		if err != nil || m.GetAnnotations()[metav1.InitialEventsAnnotationKey] != "true" {
			t.Errorf("the bookmark does not mark the end of the list: %v", mark.Object)
		}
		if len(seen) != 3 || parseVersion(t, m.GetResourceVersion()) < last {
			t.Errorf("before version %s the list had %v; want 3 up to version %d", m.GetResourceVersion(), seen, last)
		}
		w.create(t, w.name(3))
		expectEvents(t, watching, watch.Added, w.name(3))
	})
}

func TestInvalidResourceVersions(t *testing.T) {
	t.Parallel()
	admin := callerFor(t, authority(t).Config())
	for _, tt := range []struct {
		query string
		code  int
	}{
		{"resourceVersion=1000000000000&resourceVersionMatch=NotOlderThan", http.StatusGatewayTimeout},
		{"resourceVersion=x", http.StatusBadRequest},
		{"resourceVersionMatch=Exact", http.StatusUnprocessableEntity},
		{"watch=true&sendInitialEvents=true", http.StatusUnprocessableEntity},
	} {
		if got := admin.get(t, "/api/v1/configmaps?"+tt.query); got.code != tt.code {
			t.Errorf("%s: %s, want %d", tt.query, got, tt.code)
		}
	}
}

// TestWatchOfAnExpiredVersion watches from a version before the start of the server. The server does not remember the
// events since then, and answers that the version has expired.
func TestWatchOfAnExpiredVersion(t *testing.T) {
	t.Parallel()
	first := lanyardtest.Start(t)
	for range 3 {
		first.Namespace(t)
	}
	first.Stop(t)
	second := lanyardtest.StartWith(t, lanyardtest.Options{DataDir: first.DataDir()})
	watching, err := second.Client().CoreV1().Namespaces().Watch(t.Context(), metav1.ListOptions{ResourceVersion: "2"})
	if err == nil {
		defer watching.Stop()
		e := awaitEvent(t, watching, func(watch.Event) bool { return true })
		err = apierrors.FromObject(e.Object)
	}
	if !apierrors.IsResourceExpired(err) && !apierrors.IsGone(err) {
		t.Errorf("watch: %v, want gone", err)
	}
}
