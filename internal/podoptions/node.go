package podoptions

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Streams say which ends of a process are wanted.
type Streams struct{ Stdin, Stdout, Stderr, TTY bool }

// The names of a kubelet's parameters.
const (
	stdinParam, stdoutParam, stderrParam = "input", "output", "error"

	ttyParam, commandParam, portParam = "tty", "command", "port"
)

// ErrNoStream says that a session would carry nothing; the words are a kubelet's.
var ErrNoStream = errors.New("you must specify at least 1 of stdin, stdout, stderr")

// Query returns the parameters by which a kubelet is asked for a session; command is nil but for exec.
func (s Streams) Query(command []string) url.Values {
	query := url.Values{}
	for name, wanted := range map[string]bool{stdinParam: s.Stdin, stdoutParam: s.Stdout, stderrParam: s.Stderr, ttyParam: s.TTY} {
		if wanted {
			query.Set(name, "1")
		}
	}
	if len(command) > 0 {
		query[commandParam] = command
	}
	return query
}

// ParseStreams reads what Query wrote. A terminal has one output, so with TTY there is no Stderr.
func ParseStreams(query url.Values) (s Streams, command []string, err error) {
	s = Streams{
		Stdin: query.Get(stdinParam) == "1", Stdout: query.Get(stdoutParam) == "1",
		Stderr: query.Get(stderrParam) == "1", TTY: query.Get(ttyParam) == "1",
	}
	s.Stderr = s.Stderr && !s.TTY
	if !s.Stdin && !s.Stdout && !s.Stderr {
		return Streams{}, nil, ErrNoStream
	}
	return s, query[commandParam], nil
}

// PortQuery returns the parameters by which a kubelet is asked to forward ports.
func PortQuery(ports []int32) url.Values {
	if len(ports) == 0 {
		return url.Values{}
	}
	texts := make([]string, len(ports))
	for i, port := range ports {
		texts[i] = strconv.Itoa(int(port))
	}
	return url.Values{portParam: {strings.Join(texts, ",")}}
}

// ParsePorts reads what PortQuery wrote. None is no fault: SPDY names the port of each stream.
func ParsePorts(query url.Values) ([]int32, error) {
	var ports []int32
	for _, value := range query[portParam] {
		for text := range strings.SplitSeq(value, ",") {
			port, err := strconv.ParseUint(text, 10, 16)
			if err != nil || port == 0 {
				return nil, fmt.Errorf("port %q: must be between 1 and 65535", text)
			}
			ports = append(ports, int32(port))
		}
	}
	return ports, nil
}

// LogQuery returns the parameters by which a kubelet is asked for a container's logs; Log reads them.
func LogQuery(o *corev1.PodLogOptions) url.Values {
	query := url.Values{}
	for name, wanted := range map[string]bool{"follow": o.Follow, "previous": o.Previous, "timestamps": o.Timestamps} {
		if wanted {
			query.Set(name, "true")
		}
	}
	for name, number := range map[string]*int64{"sinceSeconds": o.SinceSeconds, "tailLines": o.TailLines, "limitBytes": o.LimitBytes} {
		if number != nil {
			query.Set(name, strconv.FormatInt(*number, 10))
		}
	}
	if o.SinceTime != nil {
		query.Set("sinceTime", o.SinceTime.Format(time.RFC3339))
	}
	if o.Stream != nil {
		query.Set("stream", *o.Stream)
	}
	return query
}
