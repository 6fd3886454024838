package podannotation

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
)

// Notice is how a program is told that its token was renewed: by a signal, or by a command. The zero value tells nothing.
type Notice struct {
	Signal  syscall.Signal // 0 for a command
	Command []string
}

// signals are those that tell a program something, by Linux' numbers. Those that end or stop any program are left out.
var signals = map[string]syscall.Signal{
	"HUP": 1, "INT": 2, "QUIT": 3, "USR1": 10, "USR2": 12, "ALRM": 14, "TERM": 15, "CONT": 18, "URG": 23, "WINCH": 28, "IO": 29,
}

// String is for events: a command may have more in it than its readers are to see.
func (n Notice) String() string {
	for name, number := range signals {
		if n.Signal == number {
			return "signal:" + name
		}
	}
	return "exec"
}

// ParseNotice reads signal:NAME, as in signal:HUP, or exec:COMMAND ARG..., which is split at white space and by nothing else.
func ParseNotice(text string) (Notice, error) {
	how, what, _ := strings.Cut(text, ":")
	switch how {
	case "signal":
		if s, ok := signals[strings.TrimPrefix(strings.ToUpper(what), "SIG")]; ok {
			return Notice{Signal: s}, nil
		}
		return Notice{}, fmt.Errorf("%.64q is no signal to tell a program with: use one such as signal:HUP or signal:USR1", what)
	case "exec":
		if command := strings.Fields(what); len(command) > 0 {
			return Notice{Command: command}, nil
		}
		return Notice{}, errors.New("exec: names no command")
	}
	return Notice{}, fmt.Errorf("%.64q is neither signal:NAME nor exec:COMMAND", text)
}
