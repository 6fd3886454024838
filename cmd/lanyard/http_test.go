package main

import (
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
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
