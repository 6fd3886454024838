// Package auditlog writes who did what as audit.k8s.io/v1 JSON lines, and keeps credentials out of them.
package auditlog

import (
	"fmt"

	auditinternal "k8s.io/apiserver/pkg/apis/audit"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/audit/policy"
	pluginlog "k8s.io/apiserver/plugin/pkg/audit/log"
)

// Options say where the log goes and what it holds; the names are kube-apiserver's.
type Options struct {
	// LogPath is a file, or "-" for standard output; empty turns auditing off.
	LogPath string
	// PolicyFile is an audit.k8s.io/v1 Policy; without one every request is logged at level Metadata.
	PolicyFile string
	// Mode is one of Modes; empty means Blocking.
	Mode string
	// MaxAge in days, MaxBackups in files and MaxSize in megabytes rule rotation. Zero means no limit of that kind,
	// but 100 MB for MaxSize.
	MaxAge, MaxBackups, MaxSize int
}

// Validate returns every fault of the options.
func (o Options) Validate() []error {
	var errs []error
	for name, value := range map[string]int{"maxage": o.MaxAge, "maxbackup": o.MaxBackups, "maxsize": o.MaxSize} {
		if value < 0 {
			errs = append(errs, fmt.Errorf("--audit-log-%s %d: can't be a negative number", name, value))
		}
	}
	if o.PolicyFile != "" && o.LogPath == "" {
		errs = append(errs, fmt.Errorf("--audit-policy-file needs --audit-log-path: there is nothing to write to"))
	}
	if err := validateMode(o.Mode); err != nil {
		errs = append(errs, err)
	}
	return errs
}

// Log is an open audit log and the policy that fills it.
type Log struct {
	Backend audit.Backend
	Policy  audit.PolicyRuleEvaluator
	file    *file
}

// Open returns the log, or nil when auditing is off. The file is made 0600 if it is not there.
func Open(o Options) (*Log, error) {
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
		evaluator = withArrivals{evaluator}
	}
	f := &file{out: out}
	written := inMode(o.Mode, pluginlog.NewBackend(f, pluginlog.FormatJson, auditv1.SchemeGroupVersion))
	return &Log{Backend: withoutCommands{withoutQuotes{written}}, Policy: withoutCredentials{evaluator}, file: f}, nil
}

// Close closes the file; events that come later are refused.
func (l *Log) Close() error {
	if l == nil {
		return nil
	}
	return l.file.Close()
}

func load(file string) (audit.PolicyRuleEvaluator, error) {
	if file == "" {
		return policy.NewPolicyRuleEvaluator(&auditinternal.Policy{
			OmitStages: []auditinternal.Stage{auditinternal.StageRequestReceived},
			Rules:      []auditinternal.PolicyRule{{Level: auditinternal.LevelMetadata}},
		}), nil
	}
	p, err := policy.LoadPolicyFromFile(file)
	if err != nil {
		return nil, fmt.Errorf("read audit policy: %w", err)
	}
	return policy.NewPolicyRuleEvaluator(p), nil
}
