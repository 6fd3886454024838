package etcd

import (
	"strings"
	"testing"

	"go.uber.org/zap"
)

// TestExpectedWarnings checks that the log has only the warnings that mean something to the user of one member.
func TestExpectedWarnings(t *testing.T) {
	t.Parallel()
	var log strings.Builder
	logger := newFailureLog().logger(&log)
	for _, expected := range []string{
		"simple token is not cryptographically signed",
		"293f8039e09d2201 cannot campaign at term 1 since there are still pending configuration changes to apply",
	} {
		logger.Named("raft").Warn(expected)
		logger.With(zap.Int("any", 1)).Warn(expected)
	}
	if log.Len() > 0 {
		t.Errorf("logged %s", &log)
	}
	logger.Warn("slow fdatasync")
	logger.Warn("293f8039e09d2201 cannot campaign at term 7 since there are still pending configuration changes to apply")
	if lines := strings.Count(log.String(), "\n"); lines != 2 {
		t.Errorf("logged %d lines, want 2: %s", lines, &log)
	}
}
