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
	"lanyard.dev/internal/runas"
	"lanyard.dev/internal/tokenvolume"
)

// WellKnown is the directory in which containers have the files of their service account.
const WellKnown = "/var/run/secrets/kubernetes.io/serviceaccount"

// PodNameEnv is the variable that holds the name of the Pod. It is set for a command and the processes that it starts.
const PodNameEnv = "LANYARD_POD_NAME"

// The files of each volume. ca.crt is missing if neither the authority nor the kubeconfig names a CA.
const (
	tokenFile     = "token"
	caFile        = "ca.crt"
	namespaceFile = "namespace"
)

// Config describes a command and the service account that it runs as.
type Config struct {
	Client kubernetes.Interface
	// CloseConnections closes the connections of Client, so that the next request makes a new one. It may be nil.
	CloseConnections func()
	// Probe checks whether the tokens are still accepted. Without it, tokens are replaced only when they are due for renewal.
	Probe  Probe
	Server Server
	// Pod describes the Pod that represents the command.
	Pod Spec
	// Command is the program, which is looked up as a shell does, and its arguments.
	Command []string
	// Env is the caller's environment, from which the environment of the command is made.
	Env []string
	// User is the user who runs the command.
	User runas.User
	// PreserveEnv names the variables, and KeepFDs the inherited descriptors from 3 on, that the command of another user gets in
	// addition to the variables and descriptors of a login. With AllowEscalation, set-user-ID programs and file capabilities take
	// effect in it. A command of the same user inherits everything anyway.
	PreserveEnv     []string
	KeepFDs         []int
	AllowEscalation bool
	// TTL is the lifetime of each token. Lease is the time after which the authority deletes the Pod if the supervisor does not
	// renew the lease.
	TTL, Lease time.Duration
	Audiences  []Audience
	OnRenew    podannotation.Notice
	// NoMount gives the command a private directory and a kubeconfig instead of a mounted volume.
	NoMount bool
	// Stdin, Stdout and Stderr are the standard streams of the command.
	Stdin, Stdout, Stderr *os.File
	// Messages receives the supervisor's messages for the user.
	Messages io.Writer
	// Clock is the real clock if it is nil.
	Clock clock.Clock
}

// Spec describes the Pod of a command.
type Spec struct {
	Namespace      string
	ServiceAccount string
	// Name is the name of the Pod. If it is empty, the authority generates one from the name of the command.
	Name     string
	NodeName string
	Labels   map[string]string
	// Grace is the time between SIGTERM and SIGKILL when the Pod is deleted.
	Grace time.Duration
}

// Audience requests one more token, for a service other than the API server.
type Audience struct {
	Name string
	// Path is the file of the token, relative to the directory of the other files.
	Path string
}

// ParseAudience parses NAME=PATH. A name may contain "=", as URLs do; a path may not.
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

// ValidateAudiences checks that the paths conflict neither with each other nor with the other files. It returns one error for each
// conflict.
func ValidateAudiences(audiences []Audience) []error {
	taken := []string{tokenFile, caFile, namespaceFile}
	var errs []error
	for _, a := range audiences {
		for _, other := range taken {
			if a.Path == other || strings.HasPrefix(a.Path, other+"/") || strings.HasPrefix(other, a.Path+"/") {
				errs = append(errs, fmt.Errorf("%s=%s: the path conflicts with the file %s", a.Name, a.Path, other))
				break
			}
		}
		taken = append(taken, a.Path)
	}
	return errs
}

// Error is an error with an exit code.
type Error struct {
	Code int
	Err  error
}

// Exit codes for failures without an exit code of the command. They are the same as for env, nohup and timeout.
const (
	ExitFailed        = 125
	ExitNotExecutable = 126
	ExitNotFound      = 127

	// exitSignal plus the number of a signal is the exit code of a command that the signal ended, as in a shell.
	exitSignal = 128
)

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// ExitCode returns the exit code for an error of Run.
func ExitCode(err error) int {
	if failure := (*Error)(nil); errors.As(err, &failure) {
		return failure.Code
	}
	return ExitFailed
}
