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

// Streams are the standard streams of a process that a session carries, and whether the process has a terminal.
type Streams struct{ Stdin, Stdout, Stderr, TTY bool }

// The names of the kubelet's parameters.
const (
	stdinParam, stdoutParam, stderrParam = "input", "output", "error"

	ttyParam, commandParam, portParam = "tty", "command", "port"
)

// ErrNoStream is the error of a session without any stream. The text is the kubelet's.
var ErrNoStream = errors.New("you must specify at least 1 of stdin, stdout, stderr")

// Query returns the kubelet's parameters for a session. command is nil for attach.
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

// ParseStreams reads the parameters that Query returns. A terminal has one output, so Stderr is false if TTY is true.
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

// PortQuery returns the kubelet's parameters for port forwarding.
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

// ParsePorts reads the parameters that PortQuery returns. No ports are no error: with SPDY each stream names its port.
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

// LogQuery returns the kubelet's parameters for the log of a container. Log reads them.
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
