// Fixture: the lanyard program and the real kubectl as processes of their own.

package systemtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"lanyard.dev/internal/standalone"
)

// program is a process that runs lanyard.
type program struct {
	process *exec.Cmd
	log     string
	ended   chan error
}

// startProgram runs lanyard with the arguments. Its standard output and error go to the log. A process that still runs at
// the end of the test is killed.
func startProgram(t testing.TB, log string, args ...string) *program {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("processes are ended by signals")
	}
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = out.Close() }()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &program{process: exec.Command(self, args...), log: log, ended: make(chan error, 1)}
	p.process.Stdout, p.process.Stderr = out, out
	p.process.Env = append(os.Environ(), actAsLanyard+"=1", "LANYARD_RUNTIME_DIR="+filepath.Join(filepath.Dir(log), "run"))
	if err := p.process.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.ended <- p.process.Wait(); close(p.ended) }()
	t.Cleanup(func() {
		_ = p.process.Process.Kill()
		<-p.ended
	})
	return p
}

// awaitLine returns when the log has that many matches of the pattern, and fails the test if the program ends before.
func (p *program) awaitLine(t testing.TB, pattern string, times int) {
	t.Helper()
	line := regexp.MustCompile(pattern)
	eventually(t, "line "+pattern, func(context.Context) bool {
		text, err := os.ReadFile(p.log)
		if err != nil {
			t.Fatal(err)
		}
		if len(line.FindAll(text, -1)) >= times {
			return true
		}
		select {
		case err := <-p.ended:
			t.Fatalf("lanyard ended (%v):\n%s", err, text)
		default:
		}
		return false
	})
}

// end sends the signal, and returns how long the process took to end and its error.
func (p *program) end(t testing.TB, signal syscall.Signal) (time.Duration, error) {
	t.Helper()
	started := time.Now()
	if err := p.process.Process.Signal(signal); err != nil {
		t.Fatalf("signal: %v", err)
	}
	select {
	case err := <-p.ended:
		return time.Since(started), err
	case <-time.After(waitLimit):
		t.Fatalf("lanyard did not end on %v", signal)
	}
	return 0, nil
}

// upServer is a data directory and a port on which a test starts lanyard up, possibly several times. The port stays the same
// because the issuer of tokens is named after it.
type upServer struct {
	dir, log string
	port     int
	starts   int
	// shortTokens limits the life of tokens to shortTokenLife.
	shortTokens bool
}

func newUpServer(t testing.TB) *upServer {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	dir := t.TempDir()
	return &upServer{dir: filepath.Join(dir, "data"), log: filepath.Join(dir, "log"), port: listener.Addr().(*net.TCPAddr).Port}
}

// start runs lanyard up and returns when it is ready.
func (h *upServer) start(t testing.TB) *program {
	t.Helper()
	h.starts++
	args := []string{"up", "--data-dir", h.dir, "--secure-port", fmt.Sprint(h.port), "--container-runtime-endpoint", "none"}
	if h.shortTokens {
		args = []string{shortTokenUp, h.dir, fmt.Sprint(h.port)}
	}
	p := startProgram(t, h.log, args...)
	p.awaitLine(t, `(?m)^lanyard is up at https://`, h.starts)
	return p
}

// shortTokenLife is the life of tokens in tests that wait for their end.
const shortTokenLife = 6 * time.Second

// shortTokenUp is a command that the program has in tests only: up, with tokens that live for shortTokenLife.
const shortTokenUp = "brief-up"

func upWithShortTokens(args []string) (code int) {
	port, err := strconv.Atoi(args[1])
	if err != nil {
		panic(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	a, err := standalone.Start(ctx, standalone.Config{
		DataDir: args[0], BindAddress: "127.0.0.1", Port: port, Log: os.Stderr, Unannounced: true,
		MinTokenExpiration: shortTokenLife, MaxTokenExpiration: shortTokenLife,
	})
	if err == nil {
		fmt.Fprintln(os.Stderr, "lanyard is up at", a.URL)
		err = a.Wait()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func (h *upServer) config(t testing.TB) *rest.Config {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", filepath.Join(h.dir, "admin.kubeconfig"))
	if err != nil {
		t.Fatal(err)
	}
	config.QPS = -1
	return config
}

// lanyard runs the program, which must succeed, and returns its standard output.
func lanyard(t testing.TB, args ...string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	command := exec.Command(self, args...)
	command.Env = append(os.Environ(), actAsLanyard+"=1")
	out, err := command.Output()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		t.Fatalf("lanyard %q: %v\n%s", args, err, exit.Stderr)
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// kubectl returns a command that runs the real kubectl. If spdy is set, kubectl uses SPDY for sessions, otherwise
// WebSockets.
func kubectl(t testing.TB, kubeconfig, namespace string, spdy bool, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	command := exec.CommandContext(t.Context(), self, append([]string{"kubectl", "--kubeconfig", kubeconfig, "-n", namespace}, args...)...)
	command.Env = append(os.Environ(), actAsLanyard+"=1",
		fmt.Sprintf("KUBECTL_REMOTE_COMMAND_WEBSOCKETS=%v", !spdy), fmt.Sprintf("KUBECTL_PORT_FORWARD_WEBSOCKETS=%v", !spdy))
	return command
}

// runCommand runs a command and returns its output and its exit code.
func runCommand(t *testing.T, command *exec.Cmd) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	command.Stdout, command.Stderr = &out, &errs
	err := command.Run()
	if exit, ok := err.(*exec.ExitError); ok {
		return out.String(), errs.String(), exit.ExitCode()
	}
	if err != nil {
		t.Fatalf("%q: %v", command.Args, err)
	}
	return out.String(), errs.String(), 0
}

// overBothProtocols runs a test over WebSockets and over SPDY.
func overBothProtocols(t *testing.T, test func(t *testing.T, spdy bool)) {
	for name, spdy := range map[string]bool{"WebSocket": false, "SPDY": true} {
		t.Run(name, func(t *testing.T) { test(t, spdy) })
	}
}
