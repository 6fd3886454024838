package datadir

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
)

// ErrNoneRunning reports that no instance of this user is up on this machine.
var ErrNoneRunning = errors.New("no authority of this user runs on this machine")

// SeveralError reports that it takes a choice which instance is meant.
type SeveralError struct{ Running []Running }

func (e *SeveralError) Error() string {
	return fmt.Sprintf("%d authorities are running on this machine: %s", len(e.Running), strings.Join(e.list(), ", "))
}

func (e *SeveralError) list() []string {
	var lines []string
	for _, running := range e.Running {
		lines = append(lines, fmt.Sprintf("%s (%s)", running.DataDir, running.URL))
	}
	slices.Sort(lines)
	return lines
}

// Hint says how to choose.
func (e *SeveralError) Hint() string {
	return "choose one, as with --kubeconfig " + e.Running[0].Kubeconfig()
}

// FindOne returns the only instance that is up. Otherwise the error is
// a *NoneError or a *SeveralError.
func FindOne() (Running, error) {
	running, err := FindRunning()
	switch {
	case err != nil:
		return Running{}, err
	case len(running) == 0:
		return Running{}, &NoneError{Others: findOthers(), root: os.Geteuid() == 0}
	case len(running) > 1:
		return Running{}, &SeveralError{Running: running}
	}
	return running[0], nil
}
