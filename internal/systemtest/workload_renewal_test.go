//go:build linux

package systemtest

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
)

// TestRenewalIsTold has programs told of the renewal in each way there is.
func TestRenewalIsTold(t *testing.T) {
	t.Parallel()
	b := briefSite(t).bench(t)
	before := b.metric(t, `lanyard_token_renewals_total{result="success"}`)
	for name, test := range map[string]struct {
		how  string
		args []string
	}{
		"signal":  {"signal:HUP", []string{"on-hup", "/tmp/hups"}},
		"command": {"exec:/bin/tool write /tmp/told yes", []string{"await", "/tmp/told", ";", "log", "told", ";", "sleep"}},
		"nothing": {"", []string{"watch-file", tokenFile}},
	} {
		pod := podOf(t, name, "", test.args...)
		if test.how != "" {
			pod.Annotations = map[string]string{"identity.lanyard.dev/on-renew": test.how}
		}
		b.create(t, pod)
	}
	for _, name := range []string{"signal", "command", "nothing"} {
		b.awaitRunning(t, name)
	}
	for name, want := range map[string]string{"signal": "hup", "command": "told"} {
		s := b.stream(t, "logs", "-f", name)
		s.await(want)
		s.stop()
		b.awaitEvent(t, name, "TokenRenewed", "Renewed the token in volume kube-api-access-")
	}
	tokens := b.stream(t, "logs", "-f", "nothing")
	first, _ := tokens.next()
	if second, ok := tokens.next(); !ok || first == second || strings.Count(second, ".") != 2 {
		t.Error("the file's token was not followed by another")
	}
	tokens.stop()
	if after := b.metric(t, `lanyard_token_renewals_total{result="success"}`); after < before+3 {
		t.Errorf("%v renewals before, %v after", before, after)
	}
	b.kubectl(t, "delete", "pods", "--all", "--now")
}

// metric reads one of the agent's, 0 where it is not there yet.
func (b *bench) metric(t *testing.T, name string) float64 {
	t.Helper()
	config := b.config(t)
	config.CAData, config.CAFile, config.Insecure = nil, "", true // clients do not trust the CA of nodes
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := client.Get("https://" + b.serves(t) + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("metrics: %s, %s, %v", answer.Status, text, err)
	}
	found := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name) + ` (\S+)$`).FindSubmatch(text)
	if found == nil {
		return 0
	}
	value, err := strconv.ParseFloat(string(found[1]), 64)
	if err != nil {
		t.Fatal(err)
	}
	return value
}

const watchers = `
containers:
- {name: config, image: lanyard.test/tool:1, args: [watch-file, /config/COLOR], volumeMounts: [{name: config, mountPath: /config}]}
- {name: secret, image: lanyard.test/tool:1, args: [watch-file, /all/key], volumeMounts: [{name: all, mountPath: /all}]}
- {name: ca, image: lanyard.test/tool:1, args: [watch-file, /var/run/secrets/kubernetes.io/serviceaccount/ca.crt]}
volumes:
- {name: config, configMap: {name: settings}}
- {name: all, projected: {sources: [{secret: {name: keys}}, {configMap: {name: settings}}]}}
`

// TestChangesReachFiles changes what a running pod mounts.
func TestChangesReachFiles(t *testing.T) {
	t.Parallel()
	b := commonSite(t).bench(t)
	b.apply(t, sources)
	b.create(t, podOf(t, "watchers", watchers))
	b.awaitRunning(t, "watchers")
	follow := func(container, first string) *stream {
		s := b.stream(t, "logs", "-f", "watchers", "-c", container)
		s.await(first)
		return s
	}
	config, secret, ca := follow("config", "blue"), follow("secret", "s3cret"), follow("ca", "-----END CERTIFICATE-----")
	defer config.stop()
	defer secret.stop()
	defer ca.stop()
	b.kubectl(t, "patch", "configmap", "settings", "-p", `{"data":{"COLOR":"green"}}`)
	b.kubectl(t, "patch", "secret", "keys", "-p", `{"stringData":{"key":"changed"}}`)
	config.await("green")
	secret.await("changed")
	// The authority puts its CA back at once, so that what is between may be passed over; not again and again.
	maps := b.Client().CoreV1().ConfigMaps(b.namespace)
	wrong := fmt.Appendf(nil, `{"data":{"ca.crt":%q}}`, "none\n")
	eventually(t, "the file has another CA", func(ctx context.Context) bool {
		if _, err := maps.Patch(ctx, rootCAMap, types.MergePatchType, wrong, metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		for len(ca.lines) > 0 {
			if line := <-ca.lines; line == "none" {
				return true
			}
		}
		return false
	})
	ca.await("-----END CERTIFICATE-----")
	b.kubectl(t, "delete", "pod", "watchers", "--now")
}
