package process

import (
	"errors"
	"fmt"
	"strings"
)

// OnRenew is what is done after tokens were renewed. The zero value is nothing.
type OnRenew struct {
	// Signal is sent to the command, as in "HUP".
	Signal string
	// Command is run, as the command's user.
	Command []string
}

// renewSignals are those that some program takes for a request to read its files again.
var renewSignals = []string{"HUP", "USR1", "USR2", "INT", "TERM", "QUIT", "WINCH", "ALRM"}

// ParseOnRenew reads signal:NAME or exec:COMMAND ARG..., which are split at white space as nothing else is.
func ParseOnRenew(text string) (OnRenew, error) {
	kind, rest, _ := strings.Cut(text, ":")
	switch kind {
	case "signal":
		name := strings.TrimPrefix(strings.ToUpper(rest), "SIG")
		for _, known := range renewSignals {
			if name == known {
				return OnRenew{Signal: name}, nil
			}
		}
		return OnRenew{}, fmt.Errorf("%q: the signal must be one of %s", text, strings.Join(renewSignals, ", "))
	case "exec":
		if command := strings.Fields(rest); len(command) > 0 {
			return OnRenew{Command: command}, nil
		}
		return OnRenew{}, errors.New("exec: names no command")
	}
	return OnRenew{}, fmt.Errorf("%q is neither signal:NAME nor exec:COMMAND", text)
}
