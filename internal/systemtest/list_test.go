package systemtest

import (
	"net/http"
	"strconv"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func (w workbench) list(t testing.TB, options metav1.ListOptions) []string {
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
	eachKind(t, func(t *testing.T, w workbench) {
		const total = 5
		for i := range total {
			w.create(t, w.name(i))
		}
		// No selector, since the server counts what remains only without one; others' objects may be among the pages.
		seen, token, at := map[string]int{}, "", ""
		for pages := 0; pages == 0 || token != ""; pages++ {
			list, err := w.client.List(t.Context(), metav1.ListOptions{Limit: 2, Continue: token})
			if err != nil || len(list.Items) > 2 {
				t.Fatalf("page %d: %d items, %v", pages, len(list.Items), err)
			}
			if at == "" {
				at = list.GetResourceVersion()
				// What is made between the pages is not in them: they show one version.
				w.create(t, w.name(total+1))
			}
			if list.GetResourceVersion() != at {
				t.Errorf("page %d is of version %s, the first of %s", pages, list.GetResourceVersion(), at)
			}
			if token = list.GetContinue(); token != "" && (list.GetRemainingItemCount() == nil || *list.GetRemainingItemCount() < 1) {
				t.Errorf("page %d says nothing of what remains", pages)
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
			t.Error("the pages show what was made after the first of them")
		}
		if _, err := w.client.List(t.Context(), metav1.ListOptions{Limit: 2, Continue: "nonsense"}); !apierrors.IsBadRequest(err) && !apierrors.IsInvalid(err) {
			t.Errorf("continue with nonsense: %v, want a bad request", err)
		}
	})
}

func TestSelectors(t *testing.T) {
	eachKind(t, func(t *testing.T, w workbench) {
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
			// From etcd, and from memory.
			for _, at := range []string{"", "0"} {
				got := w.list(t, metav1.ListOptions{LabelSelector: tt.labels, FieldSelector: tt.fields, ResourceVersion: at})
				var want []string
				for _, i := range tt.want {
					want = append(want, w.name(i))
				}
				if at == "0" && len(got) < len(want) {
					continue // any version will do, says the question
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

// TestFieldSelectorsOfKinds holds the fields that Kubernetes lets each kind be selected by.
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
	eachKind(t, func(t *testing.T, w workbench) {
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
