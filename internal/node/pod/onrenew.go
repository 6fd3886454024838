package pod

import (
	"fmt"
	"strings"
	"syscall"
)

// OnRenew is what is done to a container once a volume it mounts was renewed: a signal to its first process, or a command.
type OnRenew struct {
	Signal  syscall.Signal // 0 for a command
	Command []string
}

// String is for events: a command may have more in it than its readers are to see.
func (o OnRenew) String() string {
	for name, number := range signals {
		if o.Signal == number {
			return "signal:" + name
		}
	}
	return "exec"
}

// signals are those that tell a program something, by Linux' numbers. Those that end or stop any program are left out.
var signals = map[string]syscall.Signal{
	"HUP": 1, "INT": 2, "QUIT": 3, "USR1": 10, "USR2": 12, "ALRM": 14, "TERM": 15, "CONT": 18, "URG": 23, "WINCH": 28, "IO": 29,
}

// ParseOnRenew reads signal:NAME or exec:COMMAND ARG...
func ParseOnRenew(text string) (OnRenew, error) {
	how, what, _ := strings.Cut(text, ":")
	switch how {
	case "signal":
		if s, ok := signals[strings.TrimPrefix(what, "SIG")]; ok {
			return OnRenew{Signal: s}, nil
		}
		return OnRenew{}, fmt.Errorf("%.64q is no signal to renew with: use one such as signal:HUP or signal:USR1", what)
	case "exec":
		if command := strings.Fields(what); len(command) > 0 {
			return OnRenew{Command: command}, nil
		}
		return OnRenew{}, fmt.Errorf("exec: needs a command")
	}
	return OnRenew{}, fmt.Errorf("%.64q is neither signal:NAME nor exec:COMMAND", text)
}
