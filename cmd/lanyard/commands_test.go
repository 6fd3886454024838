package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	clocktesting "k8s.io/utils/clock/testing"

	"lanyard.dev/internal/signingkey"
	"lanyard.dev/internal/token"
)

// call is one `http` command.
type call struct {
	method, token, data, mediaType string
}

// request is `http [-X METHOD] [-token FILE] [-data FILE] [-type MEDIATYPE] PATH`, what curl --fail does: a request to
// the running authority, or to a whole https URL, with the CA in $CA trusted. Status, headers in alphabetical order, an
// empty line and the body go to stdout. It fails when there is no answer, or one of 400 and above.
func request(ts *testscript.TestScript, neg bool, args []string) {
	var c call
	flags := flag.NewFlagSet("http", flag.ContinueOnError)
	flags.StringVar(&c.method, "X", "", "")
	flags.StringVar(&c.token, "token", "", "")
	flags.StringVar(&c.data, "data", "", "")
	flags.StringVar(&c.mediaType, "type", "application/json", "")
	if err := flags.Parse(args); err != nil || flags.NArg() != 1 {
		ts.Fatalf("usage: http [-X METHOD] [-token FILE] [-data FILE] [-type MEDIATYPE] PATH")
	}
	target := flags.Arg(0)
	if strings.HasPrefix(target, "/") {
		target = ts.Getenv("URL") + target
	}
	status, err := c.send(ts, target)
	switch {
	case err != nil && !neg:
		ts.Fatalf("%v", err)
	case err != nil:
		fmt.Fprintln(ts.Stderr(), err)
	case (status >= http.StatusBadRequest) != neg:
		ts.Fatalf("unexpected status %d", status)
	}
}

func (c *call) send(ts *testscript.TestScript, target string) (status int, err error) {
	request, err := c.request(ts, target)
	ts.Check(err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(ts.ReadFile(ts.Getenv("CA"))))
	client := &http.Client{Timeout: patience, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, DisableKeepAlives: true,
	}}
	response, err := client.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	return response.StatusCode, show(ts.Stdout(), response)
}

func (c *call) request(ts *testscript.TestScript, target string) (*http.Request, error) {
	method, body := http.MethodGet, io.Reader(nil)
	if c.data != "" {
		method, body = http.MethodPost, strings.NewReader(ts.ReadFile(c.data))
	}
	if c.method != "" {
		method = c.method
	}
	request, err := http.NewRequest(method, target, body)
	if err != nil {
		return nil, err
	}
	if c.data != "" {
		request.Header.Set("Content-Type", c.mediaType)
	}
	if c.token != "" {
		request.Header.Set("Authorization", "Bearer "+strings.TrimSpace(ts.ReadFile(c.token)))
	}
	return request, nil
}

func show(w io.Writer, response *http.Response) error {
	fmt.Fprintf(w, "HTTP %s\n", response.Status)
	var lines []string
	for name, values := range response.Header {
		for _, value := range values {
			lines = append(lines, name+": "+value)
		}
	}
	slices.Sort(lines)
	fmt.Fprintf(w, "%s\n\n", strings.Join(lines, "\n"))
	_, err := io.Copy(w, response.Body)
	return err
}

// forge is `forge [-key FILE] [-issuer URL] [-age D] [-lifetime D] NAMESPACE NAME UID`: it prints the token that an
// authority with this key, a new one if none is given, would have issued -age ago for itself.
func forge(ts *testscript.TestScript, neg bool, args []string) {
	flags := flag.NewFlagSet("forge", flag.ContinueOnError)
	file := flags.String("key", "", "")
	issuer := flags.String("issuer", ts.Getenv("URL"), "")
	age := flags.Duration("age", 0, "")
	lifetime := flags.Duration("lifetime", time.Hour, "")
	if err := flags.Parse(args); err != nil || flags.NArg() != 3 || neg {
		ts.Fatalf("usage: forge [-key FILE] [-issuer URL] [-age D] [-lifetime D] NAMESPACE NAME UID")
	}
	key, err := keyFrom(ts, *file)
	ts.Check(err)
	keys, err := signingkey.NewSet(key)
	ts.Check(err)
	forger, err := token.NewIssuer(*issuer, keys, clocktesting.NewFakePassiveClock(time.Now().Add(-*age)))
	ts.Check(err)
	text, _, err := forger.Issue(token.Request{
		Namespace: flags.Arg(0), ServiceAccount: token.Ref{Name: flags.Arg(1), UID: flags.Arg(2)},
		Audiences: []string{*issuer}, Lifetime: *lifetime,
	})
	ts.Check(err)
	fmt.Fprintln(ts.Stdout(), text)
}

func keyFrom(ts *testscript.TestScript, file string) (*signingkey.PrivateKey, error) {
	if file == "" {
		return signingkey.Generate(signingkey.DefaultAlgorithm)
	}
	return signingkey.LoadPrivate(ts.MkAbs(file))
}

// kubeconfig is `kubeconfig FILE TOKENFILE`: it writes a kubeconfig with which kubectl has this token and nothing else.
// kubectl's --token does not do: with the administrator's kubeconfig it sends the certificate too, which counts.
func kubeconfig(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: kubeconfig FILE TOKENFILE")
	}
	const name = "robot"
	config := clientcmdapi.NewConfig()
	config.Clusters[name] = &clientcmdapi.Cluster{Server: ts.Getenv("URL"), CertificateAuthority: ts.Getenv("CA")}
	config.AuthInfos[name] = &clientcmdapi.AuthInfo{Token: strings.TrimSpace(ts.ReadFile(args[1]))}
	config.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: name}
	config.CurrentContext = name
	ts.Check(clientcmd.WriteToFile(*config, ts.MkAbs(args[0])))
}

// serveBadly is `! serve FLAG...`: `lanyard serve` with the files of $WORK/data where the flags name no others. As
// nothing is there to serve, it must fail before it asks its etcd.
func serveBadly(ts *testscript.TestScript, neg bool, args []string) {
	if !neg {
		ts.Fatalf("serve is to be negated")
	}
	flags := []string{
		"serve", "--secure-port", "0", "--bind-address", "127.0.0.1", "--etcd-servers", "unix:///nowhere",
		"--tls-cert-file", "data/serving.crt", "--tls-private-key-file", "data/serving.key", "--client-ca-file", "data/ca.crt",
		"--service-account-issuer", "https://issuer.example", "--service-account-signing-key-file", "data/sa.key",
	}
	if err := ts.Exec("lanyard", append(flags, args...)...); err == nil {
		ts.Fatalf("lanyard serve ended well")
	}
}

// dashboard is a program for a pod, `dashboard STATUS PATH...`: with nothing but what client-go finds in a container, it
// says who it is and asks for each path, and fails when an answer has another status. Of lists it prints the names.
func dashboard() {
	if err := dashboardOf(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "dashboard:", err)
		os.Exit(1)
	}
}

func dashboardOf(questions []string) error {
	config, err := rest.InClusterConfig()
	if err != nil {
		return err
	}
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return err
	}
	if err := introduce(client, config.Host); err != nil {
		return err
	}
	for ; len(questions) > 1; questions = questions[2:] {
		status, body, err := ask(client, http.MethodGet, config.Host+questions[1], "")
		if err != nil {
			return err
		}
		if strconv.Itoa(status) != questions[0] {
			return fmt.Errorf("%s: status %d\n%s", questions[1], status, body)
		}
		fmt.Println(strings.TrimSuffix(fmt.Sprintf("%d %s: %s", status, questions[1], names(body)), ": "))
	}
	return nil
}

func introduce(client *http.Client, host string) error {
	const review = `{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}`
	_, body, err := ask(client, http.MethodPost, host+"/apis/authentication.k8s.io/v1/selfsubjectreviews", review)
	if err != nil {
		return err
	}
	var answer struct {
		Status struct{ UserInfo struct{ Username string } }
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return err
	}
	namespace, err := os.ReadFile("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
	fmt.Printf("%s in %s\n", answer.Status.UserInfo.Username, namespace)
	return err
}

func ask(client *http.Client, method, url, body string) (int, []byte, error) {
	request, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	answer, err := client.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer answer.Body.Close()
	data, err := io.ReadAll(answer.Body)
	return answer.StatusCode, data, err
}

func names(body []byte) string {
	var list corev1.PodList
	if json.Unmarshal(body, &list) != nil {
		return ""
	}
	var found []string
	for i := range list.Items {
		found = append(found, list.Items[i].Name)
	}
	return strings.Join(found, " ")
}

// code is `code N PROGRAM [ARG...]`: it runs the program, which must end with this exit code.
func code(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N PROGRAM [ARG...]")
	}
	err := ts.Exec(args[1], args[2:]...)
	got := 0
	if ended := (*exec.ExitError)(nil); errors.As(err, &ended) {
		got = ended.ExitCode()
	} else {
		ts.Check(err)
	}
	if strconv.Itoa(got) != args[0] {
		ts.Fatalf("exit code %d", got)
	}
}
