package process_test

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"

	"lanyard.dev/internal/podannotation"
	"lanyard.dev/internal/process"
	"lanyard.dev/internal/runas"
	"lanyard.dev/lanyardtest"
)

// patience bounds every wait for an event that certainly comes. It allows for a slow machine.
const patience = time.Minute

// These variables make the test binary a supervisor with a JSON order, or the command of a supervisor.
const (
	actAsSupervisor = "PROCESS_TEST_SUPERVISOR"
	actAsCommand    = "PROCESS_TEST_COMMAND"
)

func TestMain(m *testing.M) {
	if code, isTrampoline := process.Trampoline(os.Args); isTrampoline {
		os.Exit(code)
	}
	if name := os.Getenv(actAsCommand); name != "" {
		commands[name]()
		return
	}
	if text := os.Getenv(actAsSupervisor); text != "" {
		os.Exit(supervise(text))
	}
	flag.Parse()
	// Supervisors must not ignore SIGHUP, even if the tests were started with it ignored.
	if signal.Ignored(syscall.SIGHUP) {
		signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
	}
	if !testing.Verbose() {
		klog.SetSlogLogger(slog.New(slog.DiscardHandler))
	}
	os.Exit(m.Run())
}

// order configures the supervisor of a test. Durations may be shorter than the flags of lanyard exec allow.
type order struct {
	Host          string
	CA, Cert, Key []byte
	Token         string
	Spec          process.Spec
	Command       []string
	TTL, Lease    time.Duration
	Audiences     []process.Audience
	OnRenew       podannotation.Notice
	NoMount       bool
	UID, GID      int
	Act           string // if set, the command is the test binary, which calls this entry of commands
	Arg           string // argument of that command
	Preserve      []string
	Keep          []int
	Escalate      bool
}

func supervise(text string) int {
	var o order
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		panic(err)
	}
	config := &rest.Config{Host: o.Host, BearerToken: o.Token, QPS: -1}
	config.CAData, config.CertData, config.KeyData = o.CA, o.Cert, o.Key
	closeConnections := process.TrackConnections(config)
	server, err := process.ServerOf(config)
	if err != nil {
		panic(err)
	}
	probe, err := process.NewProbe(config)
	if err != nil {
		panic(err)
	}
	user, err := runas.LookUp("", o.UID, o.GID)
	if err != nil {
		panic(err)
	}
	env := []string{"PATH=" + os.Getenv("PATH"), "KUBECONFIG=/nowhere", "CALLERS_SECRET=x", "CALLERS_OTHER=y"}
	if o.Act != "" {
		env = append(env, actAsCommand+"="+o.Act)
		o.Preserve = append(o.Preserve, actAsCommand)
	}
	code, err := process.Run(context.Background(), process.Config{
		Client: kubernetes.NewForConfigOrDie(config), CloseConnections: closeConnections, Probe: probe, Server: server, Pod: o.Spec, Command: o.Command, Env: env, User: user,
		TTL: o.TTL, Lease: o.Lease, Audiences: o.Audiences, OnRenew: o.OnRenew, NoMount: o.NoMount,
		PreserveEnv: o.Preserve, KeepFDs: o.Keep, AllowEscalation: o.Escalate,
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Messages: os.Stderr,
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return process.ExitCode(err)
	}
	return code
}

// supervised is a supervisor with its command.
type supervised struct {
	t       *testing.T
	process *exec.Cmd
	stdin   io.WriteCloser
	lines   *bufio.Scanner
	stderr  *strings.Builder
	ended   chan struct{}
}

// newOrder returns an order for a new account without permissions. The supervisor uses the administrator's credentials.
func newOrder(t *testing.T, authority *lanyardtest.Authority) *order {
	t.Helper()
	namespace := authority.Namespace(t)
	authority.CreateServiceAccount(t, namespace, "worker")
	o := &order{TTL: time.Hour, Lease: time.Minute, UID: -1, GID: -1}
	o.Spec = process.Spec{Namespace: namespace, ServiceAccount: "worker", NodeName: "here", Grace: patience}
	o.useCredentials(t, authority.Config())
	return o
}

// useCredentials sets the credentials that the supervisor uses.
func (o *order) useCredentials(t *testing.T, config *rest.Config) {
	t.Helper()
	if err := rest.LoadTLSFiles(config); err != nil {
		t.Fatal(err)
	}
	o.Host, o.Token = config.Host, config.BearerToken
	o.CA, o.Cert, o.Key = config.CAData, config.CertData, config.KeyData
}

// start starts the supervisor with pipes as its standard input and output. If uid is not -1, the supervisor runs as that user.
func (o *order) start(t *testing.T, uid int) *supervised {
	t.Helper()
	s := o.prepare(t, uid)
	s.startOnPipes()
	return s
}

// startOnPipes starts the supervisor with pipes as its standard input and output.
func (s *supervised) startOnPipes() {
	t := s.t
	t.Helper()
	var err error
	if s.stdin, err = s.process.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	s.lines, s.process.Stdout = bufio.NewScanner(out), in
	s.startProcess()
	_ = in.Close()
	t.Cleanup(func() { _ = out.Close() })
}

// prepare returns a supervisor that is not started yet.
func (o *order) prepare(t *testing.T, uid int) *supervised {
	t.Helper()
	if o.Act != "" {
		o.Command = []string{"/proc/self/exe", o.Arg}
	}
	text, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	s := &supervised{t: t, process: exec.Command("/proc/self/exe"), stderr: &strings.Builder{}, ended: make(chan struct{})}
	s.process.Env = append(os.Environ(), actAsSupervisor+"="+string(text))
	s.process.Stderr = s.stderr
	s.process.WaitDelay = time.Second
	s.process.SysProcAttr = &syscall.SysProcAttr{}
	if uid != -1 {
		s.process.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}
	}
	return s
}

func (s *supervised) startProcess() {
	s.t.Helper()
	if err := s.process.Start(); err != nil {
		s.t.Fatal(err)
	}
	go func() { _ = s.process.Wait(); close(s.ended) }()
	s.t.Cleanup(func() {
		_ = s.process.Process.Kill()
		<-s.ended
	})
}

// line returns the next line that the command prints.
func (s *supervised) line() string {
	s.t.Helper()
	if !s.lines.Scan() {
		<-s.ended
		skipWithoutNamespaces(s.t, s.stderr.String())
		s.t.Fatalf("no more output; standard error:\n%s", s.stderr)
	}
	return s.lines.Text()
}

// skipWithoutNamespaces skips a test if the machine does not permit namespaces.
func skipWithoutNamespaces(t *testing.T, stderr string) {
	t.Helper()
	if strings.Contains(stderr, "does not permit a private mount namespace") {
		t.Skipf("needs mount namespaces: %s", stderr)
	}
}

func (s *supervised) signal(signal syscall.Signal) {
	s.t.Helper()
	if err := s.process.Process.Signal(signal); err != nil {
		s.t.Fatal(err)
	}
}

// wait returns the exit code of the supervisor.
func (s *supervised) wait() int {
	s.t.Helper()
	select {
	case <-s.ended:
	case <-time.After(patience):
		_ = s.process.Process.Kill()
		<-s.ended
		s.t.Fatalf("the supervisor did not end; standard error:\n%s", s.stderr)
	}
	skipWithoutNamespaces(s.t, s.stderr.String())
	return s.process.ProcessState.ExitCode()
}
