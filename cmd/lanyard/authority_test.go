package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// patience bounds every wait for an event that certainly comes. It allows for a slow machine.
const patience = time.Minute

// authority is the process `lanyard up` of a script.
type authority struct {
	process *exec.Cmd
	ended   chan error
}

type authorityKey struct{}

func authorityOf(ts *testscript.TestScript) *authority { return ts.Value(authorityKey{}).(*authority) }

// kill ends the process of a script that failed.
func (a *authority) kill() {
	if a.process != nil {
		_ = a.process.Process.Kill()
		<-a.ended
	}
}

var bannerLine = regexp.MustCompile(`(?m)^lanyard is up at (https://\S+)$`)

// startLanyard implements `start-lanyard [FLAG...]`. It starts `lanyard up` with $WORK/data, a free port and these flags, and
// writes its messages to $WORK/up.log. It returns when the authority is up, and sets $URL, $PORT and $PID. By default a
// container runtime of this machine is not used.
func startLanyard(ts *testscript.TestScript, neg bool, args []string) {
	a := authorityOf(ts)
	if neg || a.process != nil {
		ts.Fatalf("start-lanyard cannot be negated, and lanyard must not be running")
	}
	ts.Check(a.start(ts, append([]string{"up", "--data-dir", ts.MkAbs("data"), "--secure-port", "0", "--container-runtime-endpoint", "none"}, args...)))
	address, err := a.awaitBanner(ts.MkAbs("up.log"))
	ts.Check(err)
	ts.Setenv("URL", address)
	parsed, err := url.Parse(address)
	ts.Check(err)
	ts.Setenv("PORT", parsed.Port())
	ts.Setenv("PID", fmt.Sprint(a.process.Process.Pid))
}

func (a *authority) start(ts *testscript.TestScript, args []string) error {
	log, err := os.Create(ts.MkAbs("up.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	program, err := exec.LookPath("lanyard")
	if err != nil {
		return err
	}
	a.process = exec.Command(program, args...)
	a.process.Dir, a.process.Stderr = ts.MkAbs("."), log
	for _, name := range []string{"PATH", "HOME", "TMPDIR", "LANYARD_RUNTIME_DIR", "GOCOVERDIR"} {
		a.process.Env = append(a.process.Env, name+"="+ts.Getenv(name))
	}
	if err := a.process.Start(); err != nil {
		a.process = nil
		return err
	}
	a.ended = make(chan error, 1)
	go func() { a.ended <- a.process.Wait() }()
	return nil
}

func (a *authority) awaitBanner(log string) (address string, err error) {
	err = poll(func() (bool, error) {
		messages, err := os.ReadFile(log)
		if err != nil {
			return false, err
		}
		if found := bannerLine.FindSubmatch(messages); found != nil {
			address = string(found[1])
			return true, nil
		}
		select {
		case err := <-a.ended:
			a.process = nil
			return false, fmt.Errorf("lanyard up ended (%v):\n%s", err, messages)
		default:
			return false, nil
		}
	})
	return address, err
}

// stopLanyard implements `stop-lanyard [TERM|INT|KILL]`. It sends the signal, by default TERM, and waits for the end. Except
// after KILL, the exit code must be 0.
func stopLanyard(ts *testscript.TestScript, neg bool, args []string) {
	signals := map[string]syscall.Signal{"TERM": syscall.SIGTERM, "INT": syscall.SIGINT, "KILL": syscall.SIGKILL}
	name := strings.Join(append(args, "TERM")[:1], "")
	signal, known := signals[name]
	a := authorityOf(ts)
	if neg || !known || len(args) > 1 || a.process == nil {
		ts.Fatalf("usage: stop-lanyard [TERM|INT|KILL], while lanyard is running")
	}
	ts.Check(a.process.Process.Signal(signal))
	select {
	case err := <-a.ended:
		a.process = nil
		if err != nil && signal != syscall.SIGKILL {
			ts.Fatalf("lanyard up ended with %v:\n%s", err, ts.ReadFile("up.log"))
		}
	case <-time.After(patience):
		ts.Fatalf("lanyard up did not end on SIG%s", name)
	}
}

// setenv implements `setenv NAME FILE`. It sets the variable to the content of the file or of stdout, without surrounding white
// space.
func setenv(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: setenv NAME FILE")
	}
	ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile(args[1])))
}

// await implements `await REGEXP FILE`. It waits until the file exists and matches. For example, the audit log is written after
// the answer that it records.
func await(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: await REGEXP FILE")
	}
	pattern, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	path := ts.MkAbs(filepath.FromSlash(args[1]))
	err = poll(func() (bool, error) {
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		return pattern.Match(data), err
	})
	if err != nil {
		ts.Fatalf("no match for %#q in %s: %v", args[0], args[1], err)
	}
}

// until implements `until REGEXP ARG...`. It runs lanyard repeatedly until its output matches.
func until(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: until REGEXP ARG...")
	}
	pattern, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	err = poll(func() (bool, error) {
		return ts.Exec("lanyard", args[1:]...) == nil && pattern.MatchString(ts.ReadFile("stdout")), nil
	})
	if err != nil {
		ts.Fatalf("no match for %#q: %v", args[0], err)
	}
}

func poll(done func() (bool, error)) error {
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if ok, err := done(); ok || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			return errors.New("not in time")
		}
	}
}
