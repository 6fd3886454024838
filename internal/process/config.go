package process

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/clock"

	"lanyard.dev/internal/podannotation"
	"lanyard.dev/internal/tokenvolume"
)

// WellKnown is where containers have the files of their service account.
const WellKnown = "/var/run/secrets/kubernetes.io/serviceaccount"

// PodNameEnv tells a command, and what it starts, that it runs under lanyard exec, and the name of its Pod.
const PodNameEnv = "LANYARD_POD_NAME"

// The files that are always there, but the CA's where nobody names one.
const (
	tokenFile     = "token"
	caFile        = "ca.crt"
	namespaceFile = "namespace"
)

// Config says what is run, and as which service account.
type Config struct {
	Client kubernetes.Interface
	// HangUp closes Client's connections, so that the next request makes a new one; nil where they cannot be closed.
	HangUp func()
	// Probe, where not nil, is asked whether the tokens are still accepted.
	Probe  Probe
	Server Server
	// Pod is what the Pod is to be.
	Pod Spec
	// Command is the program, looked up as a shell does, and its arguments.
	Command []string
	// Env is the environment that the command's is made of.
	Env []string
	// User is who runs the command.
	User User
	// PreserveEnv names the variables, and KeepFDs the inherited descriptors from 3 on, that the command of another user
	// gets besides what a login gives them. With AllowEscalation, set-user-ID programs and file capabilities take effect.
	// The command of the same user has all that.
	PreserveEnv     []string
	KeepFDs         []int
	AllowEscalation bool
	// TTL is the life of each token, and Lease the time for which the supervisor vouches for the Pod.
	TTL, Lease time.Duration
	Audiences  []Audience
	OnRenew    podannotation.Notice
	// NoMount hands over a private directory and a kubeconfig instead of mounting.
	NoMount bool
	// Stdin, Stdout and Stderr are the command's.
	Stdin, Stdout, Stderr *os.File
	// Words is where the supervisor says what the user has to know.
	Words io.Writer
	Clock clock.Clock
}

// Spec says what the Pod is to be.
type Spec struct {
	Namespace      string
	ServiceAccount string
	// Name is the Pod's; where it is empty, a new one is made of the command's.
	Name     string
	NodeName string
	Labels   map[string]string
	// Grace is how long the command has to end, when the Pod is deleted, before it is killed.
	Grace time.Duration
}

// Audience is one more token, for others than the API server.
type Audience struct {
	Name string
	// Path of the file, below the directory of the other files.
	Path string
}

// ParseAudience reads NAME=PATH. A name may hold "=", as URLs do; a path may not.
func ParseAudience(text string) (Audience, error) {
	at := strings.LastIndexByte(text, '=')
	if at <= 0 || strings.TrimSpace(text[:at]) != text[:at] {
		return Audience{}, fmt.Errorf("%q is not NAME=PATH, as in vault=vault/token", text)
	}
	path, err := tokenvolume.CleanPath(text[at+1:])
	if err != nil {
		return Audience{}, fmt.Errorf("%q: %w", text, err)
	}
	return Audience{Name: text[:at], Path: path}, nil
}

// ValidateAudiences returns what keeps the tokens from being beside each other and the other files, one error for each.
func ValidateAudiences(audiences []Audience) []error {
	taken := []string{tokenFile, caFile, namespaceFile}
	var errs []error
	for _, a := range audiences {
		for _, other := range taken {
			if a.Path == other || strings.HasPrefix(a.Path, other+"/") || strings.HasPrefix(other, a.Path+"/") {
				errs = append(errs, fmt.Errorf("%s=%s: there is %s already", a.Name, a.Path, other))
				break
			}
		}
		taken = append(taken, a.Path)
	}
	return errs
}

// maxDescriptor bounds the numbers of descriptors to keep: the kernel gives no process more by default.
const maxDescriptor = 1 << 20

// ValidateCrossing returns what is wrong with the variables and descriptors that are to go to another user, one error for
// each.
func ValidateCrossing(preserve []string, keep []int) (errs []error) {
	for _, name := range preserve {
		if name == "" || strings.ContainsAny(name, "=\x00") {
			errs = append(errs, fmt.Errorf("%q is not the name of a variable", name))
		}
	}
	for _, descriptor := range keep {
		if descriptor < 3 || descriptor > maxDescriptor {
			errs = append(errs, fmt.Errorf("descriptor %d: must be between 3 and %d; 0, 1 and 2 are always kept", descriptor, maxDescriptor))
		}
	}
	return errs
}

// Error is a failure with the exit code that says what failed, and perhaps the reader's next step.
type Error struct {
	Code int
	Err  error
	Next string
}

// Exit codes of a supervisor that has no command's to return: those of env, nohup and timeout.
const (
	ExitFailed        = 125
	ExitNotExecutable = 126
	ExitNotFound      = 127

	// exitSignal and the number of a signal are a shell's exit code for what the signal ended.
	exitSignal = 128
)

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// Hint returns the next step, or nothing.
func (e *Error) Hint() string { return e.Next }

// ExitCode returns the exit code of a failure.
func ExitCode(err error) int {
	if failure := (*Error)(nil); errors.As(err, &failure) && failure.Code != 0 {
		return failure.Code
	}
	return ExitFailed
}
