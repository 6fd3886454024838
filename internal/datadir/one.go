package datadir

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"lanyard.dev/internal/hint"
)

// ErrNoneRunning reports that no instance of this user is up on this machine.
var ErrNoneRunning = errors.New("no authority of this user runs on this machine")

// FindOne returns the only instance that is up. If there is none, the error is
// ErrNoneRunning. If there are several, the error lists them. Both have a hint.
func FindOne() (Running, error) {
	running, err := FindRunning()
	switch {
	case err != nil:
		return Running{}, err
	case len(running) == 0:
		return Running{}, noneRunning(findOthers(), os.Geteuid() == 0)
	case len(running) > 1:
		return Running{}, severalRunning(running)
	}
	return running[0], nil
}

func severalRunning(running []Running) error {
	var lines []string
	for _, r := range running {
		lines = append(lines, fmt.Sprintf("%s (%s)", r.DataDir, r.URL))
	}
	slices.Sort(lines)
	return hint.New(fmt.Errorf("%d authorities are running on this machine: %s", len(running), strings.Join(lines, ", ")),
		"choose one, as with --kubeconfig "+running[0].Kubeconfig())
}
