// Package auditlog writes who did what as audit.k8s.io/v1 JSON lines, and keeps credentials out of them.
package auditlog

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"
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

// Validate returns every fault of the options, which are at path.
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
