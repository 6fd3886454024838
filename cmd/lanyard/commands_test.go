package main

import (
	"context"
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

// httpCommand holds the flags of an `http` command.
type httpCommand struct {
	method, token, data, mediaType string
}

// runHTTP implements `http [-X METHOD] [-token FILE] [-data FILE] [-type MEDIATYPE] PATH`. Like curl --fail, it makes a request
// to the running authority, or to a whole https URL, and trusts the CA in $CA. It prints the status, the headers in
// alphabetical order, an empty line and the body. It fails without an answer, and for a status of 400 or higher.
func runHTTP(ts *testscript.TestScript, neg bool, args []string) {
	var c httpCommand
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

func (c *httpCommand) send(ts *testscript.TestScript, target string) (status int, err error) {
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

func (c *httpCommand) request(ts *testscript.TestScript, target string) (*http.Request, error) {
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

// forge implements `forge [-key FILE] [-issuer URL] [-age D] [-lifetime D] NAMESPACE NAME UID`. It prints the token that an
// authority with this key, or with a new one, would have issued -age ago with itself as the audience.
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
	forger, err := token.NewIssuer(*issuer, token.NewKeySigner(keys), clocktesting.NewFakePassiveClock(time.Now().Add(-*age)))
	ts.Check(err)
	text, _, err := forger.Issue(context.Background(), token.Request{
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

// kubeconfig implements `kubeconfig FILE TOKENFILE`. It writes a kubeconfig with this token as the only credential. kubectl's
// --token would not be enough: with the administrator's kubeconfig, kubectl also presents the certificate, which takes
// precedence.
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

// serveWithFault implements `! serve FLAG...`. It runs `lanyard serve` with the files of $WORK/data, unless the flags name
// others. The command must fail before it connects to etcd, which does not exist.
func serveWithFault(ts *testscript.TestScript, neg bool, args []string) {
	if !neg {
		ts.Fatalf("usage: ! serve FLAG...")
	}
	flags := []string{
		"serve", "--secure-port", "0", "--bind-address", "127.0.0.1", "--etcd-servers", "unix:///nowhere",
		"--tls-cert-file", "data/serving.crt", "--tls-private-key-file", "data/serving.key", "--client-ca-file", "data/ca.crt",
		"--service-account-issuer", "https://issuer.example", "--service-account-signing-key-file", "data/sa.key",
	}
	if err := ts.Exec("lanyard", append(flags, args...)...); err == nil {
		ts.Fatalf("lanyard serve succeeded")
	}
}

// dashboard is a program for a pod, `dashboard [STATUS PATH]...`. With client-go's in-cluster configuration it prints its user
// name and requests each path. It fails if an answer has another status. For lists it prints the names.
func dashboard() {
	if err := runDashboard(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "dashboard:", err)
		os.Exit(1)
	}
}

func runDashboard(requests []string) error {
	config, err := rest.InClusterConfig()
	if err != nil {
		return err
	}
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return err
	}
	if err := printUser(client, config.Host); err != nil {
		return err
	}
	for ; len(requests) > 1; requests = requests[2:] {
		status, body, err := send(client, http.MethodGet, config.Host+requests[1], "")
		if err != nil {
			return err
		}
		if strconv.Itoa(status) != requests[0] {
			return fmt.Errorf("%s: status %d\n%s", requests[1], status, body)
		}
		fmt.Println(strings.TrimSuffix(fmt.Sprintf("%d %s: %s", status, requests[1], names(body)), ": "))
	}
	return nil
}

func printUser(client *http.Client, host string) error {
	const review = `{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}`
	_, body, err := send(client, http.MethodPost, host+"/apis/authentication.k8s.io/v1/selfsubjectreviews", review)
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

func send(client *http.Client, method, url, body string) (int, []byte, error) {
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

// code implements `code N PROGRAM [ARG...]`. It runs the program, which must end with this exit code.
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
