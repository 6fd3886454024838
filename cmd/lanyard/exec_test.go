package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
)

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
