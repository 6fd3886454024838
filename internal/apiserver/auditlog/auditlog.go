// Package auditlog writes the audit log: a line of JSON for each audit.k8s.io/v1 event. It keeps credentials out of the log,
// whatever the policy, and reports whether the log can be written.
package auditlog

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"
	auditinternal "k8s.io/apiserver/pkg/apis/audit"
	"k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/audit/policy"

	"lanyard.dev/internal/files"
)

// Options configure the log. They are named after kube-apiserver's flags.
type Options struct {
	// LogPath is a file, or "-" for standard output. If it is empty, there is no audit log.
	LogPath string
	// PolicyFile is an audit.k8s.io/v1 Policy. If it is empty, every request is logged at level Metadata.
	PolicyFile string
	// Mode is one of Modes; empty means Blocking.
	Mode string
	// MaxAge in days and MaxBackups in files limit how many rotated files are kept; zero means no limit. MaxSize in megabytes
	// is the size at which the file is rotated; zero means 100.
	MaxAge, MaxBackups, MaxSize int
}

// Validate returns every fault of the options. path is the path of the options.
func (o Options) Validate(path *field.Path) field.ErrorList {
	var faults field.ErrorList
	for _, limit := range []struct {
		name  string
		value int
	}{{"maxAge", o.MaxAge}, {"maxBackups", o.MaxBackups}, {"maxSize", o.MaxSize}} {
		if limit.value < 0 {
			faults = append(faults, field.Invalid(path.Child(limit.name), limit.value, "can't be a negative number"))
		}
	}
	if file, log := path.Child("policyFile"), path.Child("logPath"); o.PolicyFile != "" && o.LogPath == "" {
		faults = append(faults, field.Required(log, fmt.Sprintf("`%v` needs `%v`: there is nothing to write to", file, log)))
	}
	if o.Mode != "" && !slices.Contains(Modes, o.Mode) {
		faults = append(faults, field.Invalid(path.Child("mode"), o.Mode, "must be one of "+strings.Join(Modes, ", ")))
	}
	return faults
}

// Log is an open audit log with its policy.
type Log struct {
	Backend audit.Backend
	Policy  audit.PolicyRuleEvaluator
	file    *file
}

// Open opens the log. It returns nil if there is none. A file that does not exist is created with mode 0600. credentials
// decides for which requests the log contains neither bodies nor messages that may quote them.
func Open(o Options, credentials CredentialsFunc) (*Log, error) {
	if o.LogPath == "" {
		return nil, nil
	}
	evaluator, err := load(o.PolicyFile)
	if err != nil {
		return nil, err
	}
	out, err := open(o)
	if err != nil {
		return nil, fmt.Errorf("open audit log %s: %w", o.LogPath, err)
	}
	if o.Mode == BlockingStrict {
		evaluator = recordArrivals{evaluator}
	}
	f := &file{out: out}
	backend := inMode(o.Mode, newLines(f))
	return &Log{Backend: hideCommands{hideMessages{backend, credentials}}, Policy: capLevel{evaluator, credentials}, file: f}, nil
}

// Close closes the file. Later events are not written. A nil Log can be closed.
func (l *Log) Close() error {
	if l == nil {
		return nil
	}
	return l.file.Close()
}

// load returns the policy in a file, or the default policy if file is empty.
func load(file string) (audit.PolicyRuleEvaluator, error) {
	if file == "" {
		return policy.NewPolicyRuleEvaluator(&auditinternal.Policy{
			OmitStages: []auditinternal.Stage{auditinternal.StageRequestReceived},
			Rules:      []auditinternal.PolicyRule{{Level: auditinternal.LevelMetadata}},
		}), nil
	}
	text, err := files.Read(file, files.MaxConfig)
	if err != nil {
		return nil, fmt.Errorf("read audit policy: %w", err)
	}
	p, err := policy.LoadPolicyFromBytes(text)
	if err != nil {
		return nil, fmt.Errorf("read audit policy: %s: %w", file, err)
	}
	return policy.NewPolicyRuleEvaluator(p), nil
}
